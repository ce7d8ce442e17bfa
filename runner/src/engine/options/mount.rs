//! `-v`, `--mount` and `--tmpfs`: three spellings of what is put into a
//! container's tree.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::size::Bytes;

/// Something the user wants to see at a path inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum MountRequest {
    /// A directory or file of the host.
    Bind(Bind),
    /// A directory in memory.
    Tmpfs(Tmpfs),
    /// A directory that lives and dies with the container, outside its
    /// overlay, filled with what the image has at its path.
    Volume {
        /// Where it appears.
        target: PathBuf,
    },
}

/// A directory or file of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// The path on the host; relative ones start at the caller's directory.
    pub source: PathBuf,
    /// Where it appears.
    pub target: PathBuf,
    /// Whether it cannot be written from inside.
    pub readonly: bool,
    /// Whether a missing source becomes an empty directory, as `-v` has it
    /// and `--mount` has not.
    pub create_source: bool,
}

/// A directory in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where it appears.
    pub target: PathBuf,
    /// How much it may hold; the kernel's default is half of the memory.
    pub size: Option<Bytes>,
    /// The permissions of its top, 1777 unless told otherwise.
    pub mode: Option<u32>,
    /// Whether it cannot be written.
    pub readonly: bool,
}

impl MountRequest {
    /// Returns where it appears inside.
    pub fn target(&self) -> &Path {
        match self {
            Self::Bind(bind) => &bind.target,
            Self::Tmpfs(tmpfs) => &tmpfs.target,
            Self::Volume { target } => target,
        }
    }

    /// Parses the argument of `-v`: `SOURCE:TARGET[:ro]`, or `TARGET` alone.
    ///
    /// # Errors
    ///
    /// A sentence saying what is wrong.
    pub fn from_volume(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [target] => return Ok(Self::Volume { target: inside(target)? }),
            [source, target] => (source, target, ""),
            [source, target, options] => (source, target, options),
            _ => return Err(format!("\"{text}\" is not SOURCE:TARGET[:ro]")),
        };
        if source.is_empty() {
            return Err(format!("\"{text}\" has no source"));
        }
        if !source.starts_with(['/', '.']) {
            return Err(format!(
                "named volumes such as \"{source}\" are not supported yet; for a directory write ./{source}"
            ));
        }
        let mut readonly = false;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => readonly = true,
                // What is always so, or has no meaning without a security module.
                "rw" | "z" | "Z" | "rprivate" | "private" | "cached" | "delegated"
                | "consistent" => {}
                _ => {
                    return Err(format!(
                        "\"{option}\" is not an option of a volume; there are ro and rw"
                    ));
                }
            }
        }
        Ok(Self::Bind(Bind {
            source: PathBuf::from(source),
            target: inside(target)?,
            readonly,
            create_source: true,
        }))
    }

    /// Parses the argument of `--mount`:
    /// `type=bind|tmpfs|volume,source=…,target=…[,readonly]`.
    ///
    /// # Errors
    ///
    /// A sentence saying what is wrong.
    pub fn from_mount(text: &str) -> Result<Self, String> {
        let fields = Fields::parse(text)?;
        let target = fields.target.as_deref().ok_or("a mount needs target=PATH")?;
        let target = inside(target)?;
        let source = fields.source;
        match fields.kind.as_deref().unwrap_or("volume") {
            "bind" => Ok(Self::Bind(Bind {
                source: source.ok_or("a bind mount needs source=PATH")?.into(),
                target,
                readonly: fields.readonly,
                create_source: false,
            })),
            "tmpfs" if source.is_some() => Err("a tmpfs has no source".to_owned()),
            "tmpfs" => Ok(Self::Tmpfs(Tmpfs {
                target,
                size: fields.size,
                mode: fields.mode,
                readonly: fields.readonly,
            })),
            "volume" if source.is_some() => {
                Err("named volumes are not supported yet; use type=bind with a path".to_owned())
            }
            "volume" => Ok(Self::Volume { target }),
            kind => Err(format!("no mount type \"{kind}\"; there are bind, tmpfs and volume")),
        }
    }

    /// Parses the argument of `--tmpfs`: `TARGET[:size=64m,mode=1777,ro]`.
    ///
    /// # Errors
    ///
    /// A sentence saying what is wrong.
    pub fn from_tmpfs(text: &str) -> Result<Self, String> {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let mut tmpfs = Tmpfs { target: inside(target)?, size: None, mode: None, readonly: false };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=').unwrap_or((option, "")) {
                ("size", size) => tmpfs.size = Some(size.parse()?),
                ("mode", mode) => tmpfs.mode = Some(octal(mode)?),
                ("ro", "") => tmpfs.readonly = true,
                // What is always so.
                ("rw" | "nosuid" | "nodev" | "noexec", "") => {}
                _ => {
                    return Err(format!(
                        "\"{option}\" is not an option of a tmpfs; there are size, mode and ro"
                    ));
                }
            }
        }
        Ok(Self::Tmpfs(tmpfs))
    }
}

/// What `--mount` says, before its type decides what it means.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    readonly: bool,
    size: Option<Bytes>,
    mode: Option<u32>,
}

impl Fields {
    fn parse(text: &str) -> Result<Self, String> {
        let mut fields = Self::default();
        for field in text.split(',') {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (field, None),
            };
            let text = || match value {
                Some(value) if !value.is_empty() => Ok(value.to_owned()),
                _ => Err(format!("\"{field}\" has no value")),
            };
            match key {
                "type" => fields.kind = Some(text()?),
                "source" | "src" => fields.source = Some(text()?),
                "target" | "dst" | "destination" => fields.target = Some(text()?),
                "readonly" | "ro" => {
                    fields.readonly = match value {
                        None | Some("true" | "1") => true,
                        Some("false" | "0") => false,
                        Some(_) => return Err(format!("\"{field}\" is neither true nor false")),
                    }
                }
                "tmpfs-size" => fields.size = Some(text()?.parse()?),
                "tmpfs-mode" => fields.mode = Some(octal(&text()?)?),
                // Only private propagation exists here.
                "bind-propagation" if matches!(value, Some("private" | "rprivate")) => {}
                _ => return Err(format!("\"{field}\" is not a field of a mount")),
            }
        }
        Ok(fields)
    }
}

/// Returns an absolute path inside the container without `.`, `..` or `//`.
///
/// This is for comparing and for reading only: the sandbox resolves the path
/// again, beneath the container's root.
pub(crate) fn inside(text: &str) -> Result<PathBuf, String> {
    if !text.starts_with('/') {
        return Err(format!("\"{text}\" is not an absolute path inside the container"));
    }
    let mut path = PathBuf::from("/");
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if path == Path::new("/") {
        return Err("the container's root cannot be replaced".to_owned());
    }
    Ok(path)
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("\"{text}\" is not an octal mode such as 1777"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &str, target: &str, readonly: bool, create_source: bool) -> MountRequest {
        let (source, target) = (source.into(), target.into());
        MountRequest::Bind(Bind { source, target, readonly, create_source })
    }

    #[test]
    fn volumes_have_one_to_three_parts() {
        for (text, expected) in [
            ("/a:/b", bind("/a", "/b", false, true)),
            ("./a:/b:ro", bind("./a", "/b", true, true)),
            ("/a:/b:rw,z", bind("/a", "/b", false, true)),
            ("..:/b//c/./d/../e", bind("..", "/b/c/e", false, true)),
            ("/data", MountRequest::Volume { target: "/data".into() }),
        ] {
            assert_eq!(MountRequest::from_volume(text), Ok(expected), "for {text}");
        }
    }

    #[test]
    fn odd_volumes_are_refused_with_a_reason() {
        for (text, word) in [
            ("", "absolute"),
            ("data:/data", "./data"),
            ("/a:b", "absolute"),
            ("/a:/", "root"),
            ("/a:/b/..", "root"),
            (":/b", "no source"),
            ("/a:/b:rx", "\"rx\""),
            ("/a:/b:ro:x", "SOURCE:TARGET"),
        ] {
            let error = MountRequest::from_volume(text).unwrap_err();
            assert!(error.contains(word), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn mounts_are_fields_in_any_order() {
        for (text, expected) in [
            ("type=bind,source=/a,target=/b", bind("/a", "/b", false, false)),
            ("dst=/b,src=a,type=bind,readonly", bind("a", "/b", true, false)),
            ("type=bind,src=/a,destination=/b,ro=false", bind("/a", "/b", false, false)),
            ("target=/v", MountRequest::Volume { target: "/v".into() }),
            (
                "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700",
                MountRequest::Tmpfs(Tmpfs {
                    target: "/t".into(),
                    size: Some(Bytes(1 << 20)),
                    mode: Some(0o700),
                    readonly: false,
                }),
            ),
        ] {
            assert_eq!(MountRequest::from_mount(text), Ok(expected), "for {text}");
        }
        for text in [
            "",
            "type=bind,target=/b",
            "type=bind,source=/a",
            "type=npipe,target=/b",
            "type=tmpfs,source=/a,target=/b",
            "source=name,target=/b",
            "type=bind,source=/a,target=/b,what",
            "type=tmpfs,target=/t,tmpfs-mode=9",
            "type=bind,source=,target=/b",
        ] {
            assert!(MountRequest::from_mount(text).is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn tmpfs_has_its_own_options() {
        assert_eq!(
            MountRequest::from_tmpfs("/t:size=64m,mode=1777,noexec,ro"),
            Ok(MountRequest::Tmpfs(Tmpfs {
                target: "/t".into(),
                size: Some(Bytes(64 << 20)),
                mode: Some(0o1777),
                readonly: true,
            }))
        );
        for text in ["t", "/t:size=", "/t:exec", "/t:uid=3"] {
            assert!(MountRequest::from_tmpfs(text).is_err(), "accepted {text:?}");
        }
    }
}

//! `-v`, `--mount` and `--tmpfs`: three spellings of what is put into a
//! container's tree.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::size::Bytes;
use super::volume::VolumeName;

/// Something the user wants to see at a path inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum MountRequest {
    /// A directory or file of the host.
    Bind(Bind),
    /// A directory in memory.
    Tmpfs(Tmpfs),
    /// A directory that lives and dies with the container.
    Volume(AnonymousVolume),
    /// A directory that outlives containers. Versions that know no such thing
    /// refuse the container rather than give it a directory of its own.
    Named(NamedVolume),
}

/// A directory that lives and dies with the container, outside its overlay,
/// filled with what the image has at its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnonymousVolume {
    /// Where it appears.
    pub target: PathBuf,
    /// Whether it cannot be written from inside.
    #[serde(default)]
    pub readonly: bool,
    /// Whether it begins empty, whatever the image has there.
    #[serde(default)]
    pub nocopy: bool,
}

/// A directory with a name, which outlives the containers that use it. An empty
/// one is filled with what the image has at its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedVolume {
    /// Its name.
    pub name: VolumeName,
    /// Where it appears.
    pub target: PathBuf,
    /// Whether it cannot be written from inside.
    pub readonly: bool,
    /// Whether it stays empty, whatever the image has there.
    pub nocopy: bool,
    /// What of it appears, if not all: a path from its top, which must be there.
    pub subpath: Option<PathBuf>,
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
            Self::Volume(volume) => &volume.target,
            Self::Named(volume) => &volume.target,
        }
    }

    /// Returns an anonymous volume like that of `-v TARGET`.
    pub(crate) fn anonymous(target: PathBuf) -> Self {
        Self::Volume(AnonymousVolume { target, readonly: false, nocopy: false })
    }

    /// Parses the argument of `-v`: `SOURCE:TARGET[:ro]`, where the source is a
    /// path or the name of a volume, or `TARGET` alone.
    ///
    /// # Errors
    ///
    /// A sentence saying what is wrong.
    pub fn from_volume(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [target] => return Ok(Self::anonymous(inside(target)?)),
            [source, target] => (source, target, ""),
            [source, target, options] => (source, target, options),
            _ => return Err(format!("\"{text}\" is not SOURCE:TARGET[:ro]")),
        };
        if source.is_empty() {
            return Err(format!("\"{text}\" has no source"));
        }
        let name = match source.starts_with(['/', '.']) {
            true => None,
            false => Some(source.parse::<VolumeName>().map_err(|reason| {
                format!("{reason}; for a directory of this machine write ./{source}")
            })?),
        };
        let (mut readonly, mut nocopy) = (false, false);
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => readonly = true,
                "nocopy" if name.is_some() => nocopy = true,
                // What is always so, or has no meaning without a security module.
                "rw" | "z" | "Z" | "rprivate" | "private" | "cached" | "delegated"
                | "consistent" => {}
                _ => {
                    return Err(format!(
                        "\"{option}\" is not an option of a volume; there are ro and rw, and nocopy of a volume with a name"
                    ));
                }
            }
        }
        let target = inside(target)?;
        Ok(match name {
            Some(name) => {
                Self::Named(NamedVolume { name, target, readonly, nocopy, subpath: None })
            }
            None => {
                let source = PathBuf::from(source);
                Self::Bind(Bind { source, target, readonly, create_source: true })
            }
        })
    }

    /// Parses the argument of `--mount`:
    /// `type=bind|tmpfs|volume,source=…,target=…[,readonly]`, with
    /// `volume-nocopy` and `volume-subpath` for volumes.
    ///
    /// # Errors
    ///
    /// A sentence saying what is wrong.
    pub fn from_mount(text: &str) -> Result<Self, String> {
        let fields = Fields::parse(text)?;
        let target = fields.target.as_deref().ok_or("a mount needs target=PATH")?;
        let target = inside(target)?;
        let source = fields.source;
        let kind = fields.kind.as_deref().unwrap_or("volume");
        if kind != "volume" && (fields.nocopy || fields.subpath.is_some()) {
            return Err(format!("volume-nocopy and volume-subpath mean nothing for a {kind}"));
        }
        match kind {
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
            "volume" => match source {
                Some(source) => Ok(Self::Named(NamedVolume {
                    name: source.parse().map_err(|reason| {
                        format!("{reason}; for a directory of this machine use type=bind")
                    })?,
                    target,
                    readonly: fields.readonly,
                    nocopy: fields.nocopy,
                    subpath: fields.subpath,
                })),
                None if fields.subpath.is_some() => {
                    Err("volume-subpath needs source=NAME: a volume without a name is new"
                        .to_owned())
                }
                None => Ok(Self::Volume(AnonymousVolume {
                    target,
                    readonly: fields.readonly,
                    nocopy: fields.nocopy,
                })),
            },
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
    nocopy: bool,
    subpath: Option<PathBuf>,
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
                "readonly" | "ro" => fields.readonly = is_true(field, value)?,
                "volume-nocopy" => fields.nocopy = is_true(field, value)?,
                "volume-subpath" => fields.subpath = Some(within(&text()?)?),
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

/// Reads a field that is true when it stands alone.
fn is_true(field: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(format!("\"{field}\" is neither true nor false")),
    }
}

/// Returns a path from the top of a volume, which does not leave it.
///
/// Its links are resolved when it is mounted, inside the volume.
fn within(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let is_plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.components().all(is_plain) {
        Ok(path.to_owned())
    } else {
        Err(format!("volume-subpath={text} is not a path from the top of the volume without .."))
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

    fn named(name: &str, target: &str) -> MountRequest {
        let (name, target) = (name.parse().unwrap(), target.into());
        let (readonly, nocopy, subpath) = (false, false, None);
        MountRequest::Named(NamedVolume { name, target, readonly, nocopy, subpath })
    }

    #[test]
    fn volumes_have_one_to_three_parts() {
        for (text, expected) in [
            ("/a:/b", bind("/a", "/b", false, true)),
            ("./a:/b:ro", bind("./a", "/b", true, true)),
            ("/a:/b:rw,z", bind("/a", "/b", false, true)),
            ("..:/b//c/./d/../e", bind("..", "/b/c/e", false, true)),
            ("/data", MountRequest::anonymous("/data".into())),
            ("data:/data", named("data", "/data")),
            ("data:/data:nocopy,ro", {
                let MountRequest::Named(volume) = named("data", "/data") else { unreachable!() };
                MountRequest::Named(NamedVolume { readonly: true, nocopy: true, ..volume })
            }),
        ] {
            assert_eq!(MountRequest::from_volume(text), Ok(expected), "for {text}");
        }
    }

    #[test]
    fn odd_volumes_are_refused_with_a_reason() {
        for (text, word) in [
            ("", "absolute"),
            ("da/ta:/data", "./da/ta"),
            ("d:/data", "2 to 200"),
            ("data:data", "absolute"),
            ("/a:/b:nocopy", "of a volume with a name"),
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
            ("target=/v", MountRequest::anonymous("/v".into())),
            ("type=volume,src=data,dst=/v", named("data", "/v")),
            (
                "type=volume,src=data,dst=/v,volume-nocopy,volume-subpath=a/./b,readonly",
                MountRequest::Named(NamedVolume {
                    name: "data".parse().unwrap(),
                    target: "/v".into(),
                    readonly: true,
                    nocopy: true,
                    subpath: Some("a/b".into()),
                }),
            ),
            (
                "dst=/v,volume-nocopy=true,ro",
                MountRequest::Volume(AnonymousVolume {
                    target: "/v".into(),
                    readonly: true,
                    nocopy: true,
                }),
            ),
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
            "source=/name,target=/b",
            "source=name,target=/b,volume-subpath=../x",
            "source=name,target=/b,volume-subpath=/x",
            "source=name,target=/b,volume-nocopy=maybe",
            "target=/b,volume-subpath=x",
            "type=bind,source=/a,target=/b,volume-nocopy",
            "type=tmpfs,target=/b,volume-subpath=x",
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

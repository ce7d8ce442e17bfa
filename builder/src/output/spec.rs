//! What `--output` says, in docker buildx' words.
//!
//! ```text
//! -o DIR                             the files into a directory: type=local,dest=DIR
//! -o -                               the files as a tar on stdout: type=tar,dest=-
//! -o type=oci,dest=FILE,…            fields of one CSV record; a quoted field may have commas
//! ```

use std::path::PathBuf;

use oci::{Compression, Reference};

use super::annotation::{Annotations, Key};
use crate::dockerfile::suggest::nearest;

/// One `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What is written.
    pub kind: Kind,
    /// Where to; `None` where none was given.
    pub destination: Option<Destination>,
    /// `name=`: what the image is called, instead of what `--tag` says.
    pub names: Vec<Reference>,
    /// How the image is put together.
    pub form: Form,
    /// How the image is sent to a registry.
    pub push: Push,
    /// `platform-split=`: whether each platform's files get a directory of their own; by default
    /// those of several platforms do.
    pub platform_split: Option<bool>,
}

/// What an output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The store, and a registry if it is to be pushed.
    Image,
    /// An OCI layout, as a tar or a directory.
    Oci {
        /// Whether it is one file.
        tar: bool,
    },
    /// What `docker load` takes.
    Docker {
        /// Whether it is one file, which it must be.
        tar: bool,
    },
    /// The root file system as a tar.
    Tar,
    /// The root file system as a directory.
    Local,
    /// Nothing: the build is only recorded.
    CacheOnly,
}

/// Where an output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `-`
    Stdout,
    /// A file or directory.
    Path(PathBuf),
}

/// How an image is put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// `compression=`: of the layers made here; `None` where none was given.
    pub compression: Option<Compression>,
    /// `compression-level=`
    pub level: Option<u32>,
    /// `force-compression=`: also of layers of base images.
    pub force: bool,
    /// `oci-mediatypes=`; with `false`, docker's are used.
    pub docker_types: bool,
    /// `rewrite-timestamp=`
    pub rewrite_timestamp: Option<bool>,
    /// `annotation.…=` and the like.
    pub annotations: Annotations,
}

/// How an image is sent to a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Push {
    /// `push=`, and `type=registry`
    pub wanted: bool,
    /// `push-by-digest=`: no tag changes.
    pub by_digest: bool,
    /// `registry.insecure=`
    pub insecure: bool,
    /// `store=false`: the image is not named here.
    pub skip_store: bool,
}

/// Attributes that mean something to other builders, or in other surroundings, and that are the
/// default here or have no effect.
const IGNORED: [&str; 8] = [
    "attestation-prefix",
    "buildinfo",
    "buildinfo-attrs",
    "dangling-name-prefix",
    "name-canonical",
    "oci-artifact",
    "prefer-nondist-layers",
    "unpack",
];

/// The attributes that mean something here.
const KNOWN: [&str; 14] = [
    "compression",
    "compression-level",
    "dest",
    "force-compression",
    "name",
    "oci-mediatypes",
    "platform-split",
    "push",
    "push-by-digest",
    "registry.insecure",
    "rewrite-timestamp",
    "store",
    "tar",
    "type",
];

impl Output {
    /// Returns the output of a kind, with nothing said about it.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            destination: None,
            names: Vec::new(),
            form: Form::default(),
            push: Push::default(),
            platform_split: None,
        }
    }

    /// Reads the value of `--output`.
    ///
    /// # Errors
    /// Says what is wrong, as buildx does where it knows.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields = fields(text)?;
        if text == "-" {
            return Ok(Self { destination: Some(Destination::Stdout), ..Self::new(Kind::Tar) });
        }
        if let [field] = &fields[..]
            && field == text
            && !text.starts_with("type=")
        {
            let destination = Some(Destination::Path(PathBuf::from(text)));
            return Self { destination, ..Self::new(Kind::Local) }.checked();
        }
        let mut pairs = Vec::new();
        for field in &fields {
            let (name, value) =
                field.split_once('=').ok_or_else(|| format!("invalid value {field}"))?;
            pairs.push((name.trim().to_lowercase(), value.to_owned()));
        }
        let value = |wanted: &str| {
            pairs.iter().rev().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
        };
        let kind = value("type").filter(|kind| !kind.is_empty());
        let kind = kind.ok_or("type is required for output")?;
        let is_tar = value("tar").map_or(Ok(true), |value| boolean("tar", value))?;
        let mut output = Self::new(match kind {
            "image" | "registry" => Kind::Image,
            "oci" => Kind::Oci { tar: is_tar },
            "docker" => Kind::Docker { tar: is_tar },
            "tar" => Kind::Tar,
            "local" => Kind::Local,
            "cacheonly" => Kind::CacheOnly,
            other => return Err(format!("exporter {other:?} could not be found")),
        });
        // What is built for a registry alone is not kept here, nor is all of its base needed.
        output.push.wanted = kind == "registry";
        output.push.skip_store = kind == "registry";
        for (name, value) in &pairs {
            output.set(name, value)?;
        }
        output.checked()
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let flag = || boolean(name, value);
        match name {
            "type" | "tar" => {}
            "dest" => {
                self.destination = Some(match value {
                    "-" => Destination::Stdout,
                    path => Destination::Path(PathBuf::from(path)),
                });
            }
            "name" => self.names = names(value)?,
            "push" => self.push.wanted = flag()?,
            "push-by-digest" => self.push.by_digest = flag()?,
            "registry.insecure" => self.push.insecure = flag()?,
            "store" => self.push.skip_store = !flag()?,
            "platform-split" => self.platform_split = Some(flag()?),
            "compression" => {
                self.form.compression = Some(match value {
                    "gzip" => Compression::Gzip,
                    "zstd" => Compression::Zstd,
                    "uncompressed" | "none" => Compression::None,
                    other => return Err(format!("unsupported layer compression type {other}")),
                });
            }
            "compression-level" => {
                let level = value.parse();
                let failed = |_| format!("non-integer value {value} specified for {name}");
                self.form.level = Some(level.map_err(failed)?);
            }
            "force-compression" => self.form.force = flag()?,
            "oci-mediatypes" => self.form.docker_types = !flag()?,
            "rewrite-timestamp" => self.form.rewrite_timestamp = Some(flag()?),
            _ => match Key::of_attribute(name) {
                Some(key) => self.form.annotations.set(key?, value),
                None if IGNORED.contains(&name) => {}
                None => return Err(unknown(name)),
            },
        }
        Ok(())
    }

    /// Refuses what contradicts itself.
    fn checked(mut self) -> Result<Self, String> {
        let (exporter, is_file, is_directory) = match self.kind {
            Kind::Image => ("image", false, false),
            Kind::Oci { tar } => ("oci", tar, !tar),
            Kind::Docker { tar } => ("docker", tar, !tar),
            Kind::Tar => ("tar", true, false),
            Kind::Local => ("local", false, true),
            Kind::CacheOnly => ("cacheonly", false, false),
        };
        match &self.destination {
            None if is_directory => {
                return Err(format!("dest is required for {exporter} exporter"));
            }
            Some(Destination::Path(path)) if is_directory && path.as_os_str().is_empty() => {
                return Err(format!("dest is required for {exporter} exporter"));
            }
            Some(Destination::Stdout) if is_directory => {
                return Err(format!("dest cannot be stdout for {exporter} exporter"));
            }
            Some(Destination::Path(path)) if is_directory && path.exists() && !path.is_dir() => {
                return Err(format!("destination directory {} is a file", path.display()));
            }
            Some(Destination::Path(path)) if is_file && path.is_dir() => {
                return Err(format!("destination file {} is a directory", path.display()));
            }
            Some(_) if !is_file && !is_directory => {
                return Err(format!("dest is not allowed for {exporter} exporter"));
            }
            None if is_file && !matches!(self.kind, Kind::Docker { .. }) => {
                self.destination = Some(Destination::Stdout);
            }
            Some(_) | None => {}
        }
        if self.kind == (Kind::Docker { tar: false }) {
            return Err("docker loads only tars: use type=oci,tar=false".to_owned());
        }
        // Docker's formats know neither; BuildKit turns OCI's on as well.
        if self.form.compression == Some(Compression::Zstd) || !self.form.annotations.is_empty() {
            self.form.docker_types = false;
        }
        if self.push.by_digest && self.names.iter().any(|name| name.digest().is_some()) {
            return Err("can't push by digest to a name with a digest".to_owned());
        }
        Ok(self)
    }
}

fn names(text: &str) -> Result<Vec<Reference>, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| name.parse().map_err(|error: oci::Error| error.to_string())).collect()
}

fn unknown(name: &str) -> String {
    match nearest(name, KNOWN.iter().copied()) {
        Some(near) => format!("unknown attribute {name} of an output (did you mean {near}?)"),
        None => format!("unknown attribute {name} of an output"),
    }
}

/// Reads a truth value as Go does; none at all is true.
fn boolean(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("non-bool value {value} specified for {name}")),
    }
}

/// Splits one CSV record (RFC 4180).
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) = rest.split_once(',').map_or((rest, None), |(f, a)| (f, Some(a)));
            if field.contains('"') {
                return Err(format!("bare \" in non-quoted field: {field}"));
            }
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut characters = quoted.char_indices().peekable();
        let end = loop {
            match characters.next() {
                Some((_, '"')) if characters.next_if(|(_, next)| *next == '"').is_some() => {
                    field.push('"');
                }
                Some((at, '"')) => break at + 1,
                Some((_, other)) => field.push(other),
                None => return Err(format!("a quote is not closed in {text}")),
            }
        };
        fields.push(field);
        match quoted[end..].strip_prefix(',') {
            Some(after) => rest = after,
            None if quoted[end..].is_empty() => return Ok(fields),
            None => return Err(format!("extraneous characters after a quoted field in {text}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Output {
        Output::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_short_forms_are_files() {
        assert_eq!(
            (parse("-").kind, parse("-").destination),
            (Kind::Tar, Some(Destination::Stdout))
        );
        let local = parse("out/dir");
        assert_eq!(local.kind, Kind::Local);
        assert_eq!(local.destination, Some(Destination::Path("out/dir".into())));
    }

    #[test]
    fn attributes_are_understood() {
        let output = parse(
            "type=image,\"name=app:1,localhost:5000/app\",push=true,compression=zstd,\
             compression-level=7,force-compression=1,oci-mediatypes=false,annotation.a=1,\
             annotation-index.b=2=3,unpack=true",
        );
        assert_eq!(output.kind, Kind::Image);
        assert!(!output.push.skip_store && parse("type=registry").push.skip_store);
        let names: Vec<String> = output.names.iter().map(Reference::familiar).collect();
        assert_eq!(names, ["app:1", "localhost:5000/app:latest"]);
        assert!(output.push.wanted && !output.push.by_digest);
        assert_eq!(output.form.compression, Some(Compression::Zstd));
        assert_eq!((output.form.level, output.form.force), (Some(7), true));
        assert!(!output.form.docker_types, "zstd needs OCI's media types");
        assert!(parse("type=registry,name=a/b").push.wanted);
        assert!(!parse("type=registry,name=a/b,push=false").push.wanted);
        assert!(parse("type=image,oci-mediatypes=false").form.docker_types);
        assert_eq!(parse("type=oci").destination, Some(Destination::Stdout));
        assert_eq!(parse("type=docker").destination, None, "goes to docker itself");
        assert_eq!(parse("type=oci,tar=false,dest=d").kind, Kind::Oci { tar: false });
        assert_eq!(parse("type=tar, dest=a b").destination, Some(Destination::Path("a b".into())));
    }

    #[test]
    fn what_is_wrong_is_said_in_buildx_words() {
        let table = [
            ("type=", "type is required for output"),
            ("dest=x,push=true", "type is required for output"),
            ("type=local", "dest is required for local exporter"),
            ("type=local,dest=-", "dest cannot be stdout for local exporter"),
            ("type=oci,tar=false,dest=-", "dest cannot be stdout for oci exporter"),
            ("type=tar,dest=/", "destination file / is a directory"),
            ("type=local,dest=/proc/version", "destination directory /proc/version is a file"),
            ("type=foo", "exporter \"foo\" could not be found"),
            ("type=oci,dest", "invalid value dest"),
            ("type=oci,tar=maybe", "non-bool value maybe specified for tar"),
            ("type=image,compression=lzma", "unsupported layer compression type lzma"),
            (
                "type=image,compression-level=high",
                "non-integer value high specified for compression-level",
            ),
            (
                "type=image,compresion=gzip",
                "unknown attribute compresion of an output (did you mean compression?)",
            ),
            ("type=image,dest=x", "dest is not allowed for image exporter"),
            ("type=oci,\"dest=x", "a quote is not closed in type=oci,\"dest=x"),
            ("type=oci,annotation-foo.x=1", "unknown annotation type \"foo\""),
        ];
        for (text, expected) in table {
            assert_eq!(Output::parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn fields_are_those_of_csv() {
        assert_eq!(fields("a,\"b,\"\"c\"\"\",,d").unwrap(), ["a", "b,\"c\"", "", "d"]);
        assert!(fields("a\"b").is_err() && fields("\"a\"b").is_err());
    }
}

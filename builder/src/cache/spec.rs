//! What `--cache-to` and `--cache-from` say, in docker buildx' words.
//!
//! ```text
//! --cache-from NAME                             type=registry,ref=NAME
//! --cache-to type=local,dest=DIR,mode=max,…     fields of one CSV record
//! --cache-to type=inline
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use oci::{Compression, Digest, Reference};

use crate::dockerfile::csv_fields;
use crate::dockerfile::suggest::nearest;

/// The tag of a cache in a layout where none is given.
const TAG: &str = "latest";

/// A cache to look results up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Import {
    /// An image or cache in a registry.
    Registry(Reference),
    /// A cache in an OCI layout.
    Local {
        /// The directory.
        src: PathBuf,
        /// Its name in the layout.
        tag: String,
        /// Its manifest, if that is to be a certain one.
        digest: Option<Digest>,
    },
}

/// A cache to leave results in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Where.
    pub to: Target,
    /// Of which steps the layers are kept.
    pub mode: Mode,
    /// How layers that were made here are compressed.
    pub compression: Compression,
    /// The level of compression; `None` for the codec's default.
    pub level: Option<u32>,
    /// Whether layers that came compressed are compressed again in this way.
    pub force_compression: bool,
    /// Whether media types are those of the OCI, rather than docker's.
    pub oci_media_types: bool,
    /// Whether the build succeeds although the cache could not be written.
    pub ignore_error: bool,
}

/// Where a cache goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A registry.
    Registry(Reference),
    /// An OCI layout.
    Local {
        /// The directory.
        dest: PathBuf,
        /// Its name in the layout.
        tag: String,
    },
    /// The config of the image itself.
    Inline,
}

/// Of which steps an exported cache has the layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Those of the image; of the others it says what they came to.
    #[default]
    Min,
    /// All.
    Max,
}

impl std::fmt::Display for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "{}", reference.familiar()),
            Self::Local { src, .. } => write!(f, "{}", src.display()),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "{}", reference.familiar()),
            Self::Local { dest, .. } => write!(f, "{}", dest.display()),
            Self::Inline => f.write_str("the image"),
        }
    }
}

impl FromStr for Import {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains('=') {
            return Ok(Self::Registry(reference(text)?));
        }
        let mut fields = Fields::parse(text)?;
        let kind = fields.kind()?;
        let import = match kind.as_str() {
            "registry" => Self::Registry(reference(&fields.required("ref")?)?),
            "local" => Self::Local {
                src: fields.required("src")?.into(),
                tag: fields.take("tag").unwrap_or_else(|| TAG.to_owned()),
                digest: fields.parsed("digest")?,
            },
            "inline" => {
                return Err(
                    "an inline cache is imported from its image: type=registry,ref=NAME".to_owned()
                );
            }
            _ => return Err(unknown_type(&kind)),
        };
        fields.finish(match kind.as_str() {
            "registry" => &["type", "ref"],
            _ => &["type", "src", "tag", "digest"],
        })?;
        Ok(import)
    }
}

impl FromStr for Export {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains('=') {
            let to = Target::Registry(reference(text)?);
            return Ok(Self::to(to));
        }
        let mut fields = Fields::parse(text)?;
        let kind = fields.kind()?;
        let to = match kind.as_str() {
            "registry" => Target::Registry(reference(&fields.required("ref")?)?),
            "local" => Target::Local {
                dest: fields.required("dest")?.into(),
                tag: fields.take("tag").unwrap_or_else(|| TAG.to_owned()),
            },
            "inline" => Target::Inline,
            _ => return Err(unknown_type(&kind)),
        };
        let mut export = Self::to(to);
        export.mode = match fields.take("mode").as_deref() {
            None | Some("min") => Mode::Min,
            Some("max") if export.to == Target::Inline => {
                return Err("an inline cache has the layers of its image only: mode=min".to_owned());
            }
            Some("max") => Mode::Max,
            Some(other) => return Err(format!("mode={other}: use min or max")),
        };
        export.ignore_error = fields.flag("ignore-error")?.unwrap_or(false);
        if export.to != Target::Inline {
            export.compression = match fields.take("compression").as_deref() {
                None | Some("gzip") => Compression::Gzip,
                Some("zstd") => Compression::Zstd,
                Some("uncompressed" | "none") => Compression::None,
                Some(other) => {
                    return Err(format!("compression={other}: use gzip, zstd or uncompressed"));
                }
            };
            export.level = fields.parsed("compression-level")?;
            export.force_compression = fields.flag("force-compression")?.unwrap_or(false);
            export.oci_media_types = fields.flag("oci-mediatypes")?.unwrap_or(true);
            if fields.flag("image-manifest")? == Some(false) {
                return Err("image-manifest=false: a cache is always an image manifest, which \
                            every registry takes"
                    .to_owned());
            }
        }
        fields.finish(match kind.as_str() {
            "inline" => &["type", "mode", "ignore-error"],
            "local" => &LOCAL,
            _ => &REGISTRY,
        })?;
        Ok(export)
    }
}

const REGISTRY: [&str; 9] = [
    "type",
    "ref",
    "mode",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "image-manifest",
    "ignore-error",
];

const LOCAL: [&str; 10] = [
    "type",
    "dest",
    "tag",
    "mode",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "image-manifest",
    "ignore-error",
];

impl Export {
    fn to(to: Target) -> Self {
        Self {
            to,
            mode: Mode::Min,
            compression: Compression::Gzip,
            level: None,
            force_compression: false,
            oci_media_types: true,
            ignore_error: false,
        }
    }
}

fn reference(text: &str) -> Result<Reference, String> {
    text.parse().map_err(|error: oci::Error| format!("{text}: {error}"))
}

fn unknown_type(kind: &str) -> String {
    match kind {
        "gha" | "s3" | "azblob" => {
            format!("type={kind} is a service of somebody else: use registry, local or inline")
        }
        _ => format!("type={kind}: use registry, local or inline"),
    }
}

/// The fields of one record, taken one after the other.
struct Fields(BTreeMap<String, String>);

impl Fields {
    fn parse(text: &str) -> Result<Self, String> {
        let mut fields = BTreeMap::new();
        for field in csv_fields(text)? {
            let (name, value) =
                field.split_once('=').ok_or_else(|| format!("{field:?} is no NAME=VALUE"))?;
            let name = name.trim().to_lowercase();
            if fields.insert(name.clone(), value.to_owned()).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        Ok(Self(fields))
    }

    fn kind(&mut self) -> Result<String, String> {
        self.take("type").ok_or_else(|| "type= is missing: registry, local or inline".to_owned())
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn required(&mut self, name: &str) -> Result<String, String> {
        self.take(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| format!("{name}= is missing"))
    }

    fn parsed<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String>
    where
        T::Err: std::fmt::Display,
    {
        let Some(text) = self.take(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error| format!("{name}={text}: {error}"))
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>, String> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(format!("{name}={other}: use true or false")),
        }
    }

    /// Refuses what nobody took.
    fn finish(self, known: &[&str]) -> Result<(), String> {
        let Some(name) = self.0.into_keys().next() else { return Ok(()) };
        let hint = nearest(&name, known.iter().copied())
            .map_or_else(String::new, |nearest| format!(", did you mean {nearest}?"));
        Err(format!("{name} is not known here{hint}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buildx_words_are_understood() {
        let registry = |name: &str| Target::Registry(name.parse().unwrap());
        let table = [
            ("app:cache", Export::to(registry("app:cache"))),
            ("type=registry,ref=app:cache", Export::to(registry("app:cache"))),
            (
                "type=registry,ref=app:cache,mode=max,compression=zstd,compression-level=7,\
                 force-compression=true,oci-mediatypes=false,image-manifest=true,ignore-error=true",
                Export {
                    mode: Mode::Max,
                    compression: Compression::Zstd,
                    level: Some(7),
                    force_compression: true,
                    oci_media_types: false,
                    ignore_error: true,
                    ..Export::to(registry("app:cache"))
                },
            ),
            (
                "type=local,\"dest=/a,b\",tag=t,compression=uncompressed",
                Export {
                    compression: Compression::None,
                    ..Export::to(Target::Local { dest: "/a,b".into(), tag: "t".into() })
                },
            ),
            ("type=inline", Export::to(Target::Inline)),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        assert_eq!("app".parse(), Ok(Import::Registry("app".parse().unwrap())));
        let digest = Digest::sha256(b"x");
        let local = Import::Local { src: "d".into(), tag: "latest".into(), digest: Some(digest) };
        assert_eq!(format!("type=local,src=d,digest={digest}").parse(), Ok(local));
    }

    #[test]
    fn mistakes_are_named() {
        let table = [
            ("type=registry", "ref= is missing"),
            ("type=local,dest=", "dest= is missing"),
            ("ref=x", "type= is missing: registry, local or inline"),
            ("type=gha", "type=gha is a service of somebody else: use registry, local or inline"),
            ("type=inline,mode=max", "an inline cache has the layers of its image only: mode=min"),
            ("type=registry,ref=a,moed=max", "moed is not known here, did you mean mode?"),
            ("type=local,dest=a,ref=b", "ref is not known here"),
            ("type=registry,ref=a,ref=b", "ref is there twice"),
            ("type=registry,ref=a,mode=most", "mode=most: use min or max"),
            ("type=registry,ref=a,ignore-error=yes", "ignore-error=yes: use true or false"),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Export>().unwrap_err(), expected, "{text}");
        }
        assert!("type=inline".parse::<Import>().is_err());
        assert!("A b".parse::<Import>().is_err());
    }
}

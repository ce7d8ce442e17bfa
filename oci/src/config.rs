//! Image configs: how to run an image, and which layers it is made of.

use std::collections::{BTreeMap, BTreeSet};

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{ChainId, DiffId};
use crate::document;
use crate::error::{Error, Result};
use crate::json::{Extra, Fields, FromFields, Json, deserialize_object};
use crate::platform::Platform;

/// The largest image config that is accepted, in bytes.
///
/// The same as for manifests: a config is held in memory as well.
pub const MAX_CONFIG_BYTES: usize = 8 * 1024 * 1024;

/// How to run an image, and which layers it is made of.
///
/// image-spec, `config.md`; docker adds fields, which are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// When the image was made, as RFC 3339 text.
    pub created: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// What it runs on.
    pub platform: Platform,
    /// Defaults for its containers.
    pub config: RuntimeConfig,
    /// The uncompressed layers, bottom first.
    pub rootfs_diff_ids: Vec<DiffId>,
    /// The fields of `rootfs` that we do not know.
    pub rootfs_extra: Extra,
    /// How each layer came to be, bottom first.
    pub history: Vec<History>,
    /// The fields we do not know.
    pub extra: Extra,
}

impl ImageConfig {
    /// Returns the config of an image without layers.
    #[must_use]
    pub fn new(platform: Platform) -> Self {
        Self { platform, ..Self::default() }
    }

    /// Reads a config.
    ///
    /// # Errors
    ///
    /// Refuses what is larger than [`MAX_CONFIG_BYTES`], nests too deep, is not
    /// JSON, or lacks fields or has wrong ones.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Fields::parse_document(Self::WHAT, bytes, MAX_CONFIG_BYTES).and_then(Self::from_fields)
    }

    /// Returns the document as compact JSON, known fields first.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        document::to_bytes(self)
    }

    /// Returns the identity of the whole stack of layers, or `None` where there are none.
    #[must_use]
    pub fn chain_id(&self) -> Option<ChainId> {
        ChainId::of(&self.rootfs_diff_ids)
    }
}

impl FromFields for ImageConfig {
    const WHAT: &'static str = "image config";

    fn from_fields(mut fields: Fields<'_>) -> Result<Self> {
        let rootfs: RootFs = fields.take_or_default("rootfs")?;
        Ok(Self {
            created: fields.take("created")?,
            author: fields.take("author")?,
            platform: Platform::take_from(&mut fields)?,
            config: fields.take_or_default("config")?,
            rootfs_diff_ids: rootfs.diff_ids,
            rootfs_extra: rootfs.extra,
            history: fields.take_or_default("history")?,
            extra: fields.rest(),
        })
    }
}

impl<'de> Deserialize<'de> for ImageConfig {
    /// Reads from JSON text or a JSON value; other formats cannot carry unknown fields.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserialize_object(deserializer)
    }
}

impl Serialize for ImageConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        entry(&mut map, "created", self.created.as_ref())?;
        entry(&mut map, "author", self.author.as_ref())?;
        self.platform.serialize_into(&mut map)?;
        map.serialize_entry("config", &self.config)?;
        map.serialize_entry(
            "rootfs",
            &RootFsRef { diff_ids: &self.rootfs_diff_ids, extra: &self.rootfs_extra },
        )?;
        if !self.history.is_empty() {
            map.serialize_entry("history", &self.history)?;
        }
        self.extra.serialize_into(&mut map)?;
        map.end()
    }
}

/// The only kind of root file system there is.
const ROOTFS_TYPE: &str = "layers";

#[derive(Default)]
struct RootFs {
    diff_ids: Vec<DiffId>,
    extra: Extra,
}

impl FromFields for RootFs {
    const WHAT: &'static str = "rootfs";

    fn from_fields(mut fields: Fields<'_>) -> Result<Self> {
        match fields.take::<String>("type")? {
            Some(kind) if kind != ROOTFS_TYPE => Err(Error::Json {
                what: Self::WHAT,
                reason: format!("type {kind:?} is not {ROOTFS_TYPE:?}"),
            }),
            _ => Ok(Self { diff_ids: fields.take_or_default("diff_ids")?, extra: fields.rest() }),
        }
    }
}

impl<'de> Deserialize<'de> for RootFs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserialize_object(deserializer)
    }
}

struct RootFsRef<'a> {
    diff_ids: &'a [DiffId],
    extra: &'a Extra,
}

impl Serialize for RootFsRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", ROOTFS_TYPE)?;
        map.serialize_entry("diff_ids", self.diff_ids)?;
        self.extra.serialize_into(&mut map)?;
        map.end()
    }
}

/// Defaults for the containers of an image.
///
/// image-spec, `config.md`, "Properties", `config`; and moby's `HealthCheck`,
/// `OnBuild`, `Shell` and `ArgsEscaped`. Lists that docker writes as `null` are
/// read as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// The user, `name|uid[:group|gid]`; absent or empty means root.
    pub user: Option<String>,
    /// Ports the image listens on, such as `80/tcp`.
    pub exposed_ports: BTreeSet<String>,
    /// The environment, as `NAME=value`, in order.
    pub env: Vec<String>,
    /// The program, before `cmd`.
    pub entrypoint: Option<Vec<String>>,
    /// The arguments, or the program where there is no entrypoint.
    pub cmd: Option<Vec<String>>,
    /// Directories that hold data of their own.
    pub volumes: BTreeSet<String>,
    /// The directory to start in; absent or empty means `/`.
    pub working_dir: Option<String>,
    /// Remarks.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the container to stop.
    pub stop_signal: Option<String>,
    /// Whether `cmd` is already escaped; only Windows images have it.
    pub args_escaped: Option<bool>,
    /// How to find out whether the container works, as docker writes it.
    pub healthcheck: Option<Json>,
    /// Instructions for builds that start from this image.
    pub on_build: Vec<String>,
    /// The shell for instructions in shell form.
    pub shell: Option<Vec<String>>,
    /// The fields we do not know.
    pub extra: Extra,
}

impl FromFields for RuntimeConfig {
    const WHAT: &'static str = "container config";

    fn from_fields(mut fields: Fields<'_>) -> Result<Self> {
        let non_empty = |text: &String| !text.is_empty();
        Ok(Self {
            user: fields.take::<String>("User")?.filter(non_empty),
            exposed_ports: take_set(&mut fields, "ExposedPorts")?,
            env: fields.take_or_default("Env")?,
            entrypoint: take_words(&mut fields, "Entrypoint")?,
            cmd: take_words(&mut fields, "Cmd")?,
            volumes: take_set(&mut fields, "Volumes")?,
            working_dir: fields.take::<String>("WorkingDir")?.filter(non_empty),
            labels: fields.take_or_default("Labels")?,
            stop_signal: fields.take::<String>("StopSignal")?.filter(non_empty),
            args_escaped: fields.take("ArgsEscaped")?,
            healthcheck: fields.take("Healthcheck")?,
            on_build: fields.take_or_default("OnBuild")?,
            shell: take_words(&mut fields, "Shell")?,
            extra: fields.rest(),
        })
    }
}

/// Takes a set out that Go writes as an object of empty objects.
fn take_set(fields: &mut Fields<'_>, name: &str) -> Result<BTreeSet<String>> {
    let map: BTreeMap<String, Json> = fields.take_or_default(name)?;
    Ok(map.into_keys().collect())
}

/// Takes a command out, which images of docker 1.x may have as one string.
fn take_words(fields: &mut Fields<'_>, name: &str) -> Result<Option<Vec<String>>> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a list of strings")]
    enum Words {
        List(Vec<String>),
        One(String),
    }
    Ok(fields.take(name)?.map(|words| match words {
        Words::List(list) => list,
        Words::One(word) => vec![word],
    }))
}

impl<'de> Deserialize<'de> for RuntimeConfig {
    /// Reads from JSON text or a JSON value; other formats cannot carry unknown fields.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserialize_object(deserializer)
    }
}

impl Serialize for RuntimeConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        entry(&mut map, "User", self.user.as_ref())?;
        entry(&mut map, "ExposedPorts", set(&self.exposed_ports))?;
        entry(&mut map, "Env", non_empty(&self.env))?;
        entry(&mut map, "Entrypoint", self.entrypoint.as_ref())?;
        entry(&mut map, "Cmd", self.cmd.as_ref())?;
        entry(&mut map, "Volumes", set(&self.volumes))?;
        entry(&mut map, "WorkingDir", self.working_dir.as_ref())?;
        entry(&mut map, "Labels", (!self.labels.is_empty()).then_some(&self.labels))?;
        entry(&mut map, "StopSignal", self.stop_signal.as_ref())?;
        entry(&mut map, "ArgsEscaped", self.args_escaped)?;
        entry(&mut map, "Healthcheck", self.healthcheck.as_ref())?;
        entry(&mut map, "OnBuild", non_empty(&self.on_build))?;
        entry(&mut map, "Shell", self.shell.as_ref())?;
        self.extra.serialize_into(&mut map)?;
        map.end()
    }
}

fn non_empty(list: &[String]) -> Option<&[String]> {
    (!list.is_empty()).then_some(list)
}

/// Returns a set as Go writes it: an object of empty objects.
fn set(names: &BTreeSet<String>) -> Option<BTreeMap<&str, BTreeMap<(), ()>>> {
    (!names.is_empty()).then(|| names.iter().map(|name| (name.as_str(), BTreeMap::new())).collect())
}

/// Writes a field that is there.
fn entry<M: SerializeMap, T: Serialize>(
    map: &mut M,
    name: &'static str,
    value: Option<T>,
) -> std::result::Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, &value))
}

/// How a layer, or a change of the config, came to be.
///
/// image-spec, `config.md`, "Properties", `history`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When, as RFC 3339 text.
    pub created: Option<String>,
    /// By which command.
    pub created_by: Option<String>,
    /// By whom.
    pub author: Option<String>,
    /// A remark.
    pub comment: Option<String>,
    /// Whether there is no layer for this entry.
    pub empty_layer: bool,
    /// The fields we do not know.
    pub extra: Extra,
}

impl FromFields for History {
    const WHAT: &'static str = "history entry";

    fn from_fields(mut fields: Fields<'_>) -> Result<Self> {
        Ok(Self {
            created: fields.take("created")?,
            created_by: fields.take("created_by")?,
            author: fields.take("author")?,
            comment: fields.take("comment")?,
            empty_layer: fields.take_or_default("empty_layer")?,
            extra: fields.rest(),
        })
    }
}

impl<'de> Deserialize<'de> for History {
    /// Reads from JSON text or a JSON value; other formats cannot carry unknown fields.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserialize_object(deserializer)
    }
}

impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        entry(&mut map, "created", self.created.as_ref())?;
        entry(&mut map, "created_by", self.created_by.as_ref())?;
        entry(&mut map, "author", self.author.as_ref())?;
        entry(&mut map, "comment", self.comment.as_ref())?;
        entry(&mut map, "empty_layer", self.empty_layer.then_some(true))?;
        self.extra.serialize_into(&mut map)?;
        map.end()
    }
}

//! Where two builds of the same thing differ.

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use oci::{Compression, Descriptor, Digest, Hasher, Platform};
use store::layers::tar::Reader;
use store::layers::{Entry, Kind};
use store::{Image, Lease};

use super::finished::Finished;
use crate::error::{Error, IoContext as _, Result};

/// The first thing in which two builds differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Of which image.
    pub platform: Platform,
    /// The layer, counted from one, and what made it; `None` for the config.
    pub layer: Option<(usize, String)>,
    /// The file in the layer, or the place in the config.
    pub path: String,
    /// What about it: `content`, `mtime`, `mode`, …
    pub field: String,
    /// What it is in the first and in the second build; `None` where it is not there.
    pub values: (Option<String>, Option<String>),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.layer {
            Some((number, by)) => write!(f, "{}: layer {number} ({by}): ", self.platform),
            None => write!(f, "{}: config: ", self.platform),
        }?;
        write!(f, "{}: ", self.path)?;
        match &self.values {
            (Some(first), Some(second)) => {
                write!(f, "{} is {first} in the first build, {second} in the second", self.field)
            }
            (Some(_), None) => write!(f, "only in the first build"),
            (None, _) => write!(f, "only in the second build"),
        }
    }
}

/// Compares two builds of the same platforms; `None` if they are the same.
///
/// # Errors
/// Fails when an image cannot be read.
pub fn difference(
    lease: &Lease,
    first: &Finished,
    second: &Finished,
) -> Result<Option<Difference>> {
    for (one, other) in first.builds.iter().zip(&second.builds) {
        if one.manifest.digest == other.manifest.digest {
            continue;
        }
        let store = lease.store();
        let images = (
            store.image(&one.manifest, &one.platform)?,
            store.image(&other.manifest, &other.platform)?,
        );
        let found = |layer, (path, field, values)| {
            let platform = one.platform.clone();
            Ok(Some(Difference { platform, layer, path, field, values }))
        };
        if let Some((number, place)) = layers(lease, &images.0, &images.1)? {
            return found(Some((number + 1, made_by(&images.0, number))), place);
        }
        if let Some(place) = configs(&images.0, &images.1) {
            return found(None, place);
        }
    }
    Ok(None)
}

/// A path or place, a field, and its two values.
type Place = (String, String, (Option<String>, Option<String>));

/// Returns the instruction behind a layer.
fn made_by(image: &Image, layer: usize) -> String {
    let history = image.config.history.iter().filter(|entry| !entry.empty_layer);
    history.skip(layer).find_map(|entry| entry.created_by.clone()).unwrap_or_default()
}

fn layers(lease: &Lease, first: &Image, second: &Image) -> Result<Option<(usize, Place)>> {
    let pairs = first.manifest.layers.iter().zip(&second.manifest.layers);
    let diff_ids = first.diff_ids().iter().zip(second.diff_ids());
    for (number, ((one, other), (id, other_id))) in pairs.zip(diff_ids).enumerate() {
        if id == other_id {
            continue;
        }
        let (one, other) = (files(lease, one)?, files(lease, other)?);
        if let Some(place) = first_difference(&one, &other) {
            return Ok(Some((number, place)));
        }
        let place = ("the tar".to_owned(), "order".to_owned(), (None, None));
        return Ok(Some((number, place)));
    }
    Ok(None)
}

/// What a layer says about its files.
type Files = BTreeMap<Vec<u8>, Vec<(&'static str, String)>>;

fn files(lease: &Lease, layer: &Descriptor) -> Result<Files> {
    let path = lease.store().root().blob(&layer.digest);
    let blob = lease.store().blobs().open(&layer.digest)?;
    let codec = layer.media_type.layer_compression().unwrap_or(Compression::None);
    let reader = store::decoder(blob, codec).doing("read", &path)?;
    let mut tar = Reader::new(BufReader::with_capacity(256 * 1024, reader));
    let failed = |error: store::layers::LayerError| Error::Archive {
        path: path.clone(),
        reason: error.to_string(),
    };
    let mut files = Files::new();
    while let Some(entry) = tar.next_entry().map_err(failed)? {
        let mut content = Hasher::new(oci::Algorithm::Sha256);
        loop {
            let chunk = tar.chunk().map_err(failed)?;
            if chunk.is_empty() {
                break;
            }
            content.update(chunk);
            let count = chunk.len();
            tar.consume(count);
        }
        files.insert(entry.path.clone(), facts(&entry, content.finish()));
    }
    Ok(files)
}

fn facts(entry: &Entry, content: Digest) -> Vec<(&'static str, String)> {
    let path =
        |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes)).display().to_string();
    let (kind, target, size) = match &entry.kind {
        Kind::Directory => ("directory", String::new(), 0),
        Kind::File { size } => ("file", String::new(), *size),
        Kind::Symlink { target } => ("symbolic link", path(target), 0),
        Kind::HardLink { target } => ("hard link", path(target), 0),
        Kind::CharDevice { major, minor } => ("character device", format!("{major}:{minor}"), 0),
        Kind::BlockDevice { major, minor } => ("block device", format!("{major}:{minor}"), 0),
        Kind::Fifo => ("fifo", String::new(), 0),
    };
    let metadata = &entry.metadata;
    vec![
        ("type", kind.to_owned()),
        ("target", target),
        ("size", size.to_string()),
        ("content", content.to_string()),
        ("mode", format!("{:o}", metadata.mode)),
        ("uid", metadata.uid.to_string()),
        ("gid", metadata.gid.to_string()),
        ("mtime", metadata.mtime.seconds.to_string()),
        ("xattrs", format!("{:?}", metadata.xattrs)),
    ]
}

fn first_difference(one: &Files, other: &Files) -> Option<Place> {
    let paths: std::collections::BTreeSet<&Vec<u8>> = one.keys().chain(other.keys()).collect();
    for path in paths {
        let shown = String::from_utf8_lossy(path).into_owned();
        let place = |field: &str, values| Some((shown.clone(), field.to_owned(), values));
        match (one.get(path), other.get(path)) {
            (Some(here), Some(there)) => {
                let mut pairs = here.iter().zip(there);
                if let Some(((field, a), (_, b))) = pairs.find(|(a, b)| a != b) {
                    return place(field, (Some(a.clone()), Some(b.clone())));
                }
            }
            (Some(_), None) => return place("presence", (Some("there".to_owned()), None)),
            (None, _) => return place("presence", (None, Some("there".to_owned()))),
        }
    }
    None
}

/// Returns where two configs differ.
fn configs(first: &Image, second: &Image) -> Option<Place> {
    let parse = |image: &Image| {
        serde_json::from_slice(&image.config.to_bytes()).unwrap_or(serde_json::Value::Null)
    };
    values("", &parse(first), &parse(second))
}

fn values(at: &str, one: &serde_json::Value, other: &serde_json::Value) -> Option<Place> {
    use serde_json::Value;
    let null = &Value::Null;
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let mut names: Vec<&String> = one.keys().collect();
            names.extend(other.keys().filter(|name| !one.contains_key(*name)));
            names.into_iter().find_map(|name| {
                let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                values(&at, one.get(name).unwrap_or(null), other.get(name).unwrap_or(null))
            })
        }
        (Value::Array(one), Value::Array(other)) => {
            (0..one.len().max(other.len())).find_map(|index| {
                let at = format!("{at}[{index}]");
                values(&at, one.get(index).unwrap_or(null), other.get(index).unwrap_or(null))
            })
        }
        (one, other) if one == other => None,
        (one, other) => {
            let text = |value: &Value| (!value.is_null()).then(|| value.to_string());
            Some((at.to_owned(), "its value".to_owned(), (text(one), text(other))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, facts: &[(&'static str, &str)]) -> (Vec<u8>, Vec<(&'static str, String)>) {
        (path.into(), facts.iter().map(|(field, value)| (*field, (*value).to_owned())).collect())
    }

    #[test]
    fn the_first_difference_is_the_first_in_the_order_of_paths() {
        let one = Files::from([
            file("a", &[("mode", "644"), ("mtime", "1")]),
            file("b", &[("mode", "644"), ("mtime", "1")]),
        ]);
        let other = Files::from([
            file("a", &[("mode", "644"), ("mtime", "1")]),
            file("b", &[("mode", "600"), ("mtime", "2")]),
            file("c", &[]),
        ]);
        let text = |place: Option<Place>| {
            let (path, field, values) = place.unwrap();
            let platform = Platform::new("linux", "amd64", None);
            let layer = Some((2, "RUN date > /d".to_owned()));
            Difference { platform, layer, path, field, values }.to_string()
        };
        assert_eq!(
            text(first_difference(&one, &other)),
            "linux/amd64: layer 2 (RUN date > /d): b: mode is 644 in the first build, 600 in the second"
        );
        assert_eq!(
            text(first_difference(&Files::new(), &one)),
            "linux/amd64: layer 2 (RUN date > /d): a: only in the second build"
        );
        assert_eq!(first_difference(&one, &one), None);
    }

    #[test]
    fn configs_differ_at_a_place() {
        let one = serde_json::json!({"config": {"Env": ["A=1", "B=1"]}});
        let other = serde_json::json!({"config": {"Env": ["A=1", "B=2"]}});
        let (at, _, found) = values("", &one, &other).unwrap();
        assert_eq!(at, "config.Env[1]");
        assert_eq!(found, (Some("\"B=1\"".to_owned()), Some("\"B=2\"".to_owned())));
        let shorter = serde_json::json!({"config": {"Env": ["A=1"]}});
        let (_, _, found) = values("", &one, &shorter).unwrap();
        assert_eq!(found, (Some("\"B=1\"".to_owned()), None));
    }
}

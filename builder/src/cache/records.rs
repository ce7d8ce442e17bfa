//! What an exported cache says: which step came to which layer.
//!
//! ```json
//! {"version":1,
//!  "steps":[{"key":"sha256:…","diffID":"sha256:…","layer":0,"created":"2026-01-01T00:00:00Z"}],
//!  "contents":[{"key":"sha256:…","digest":"sha256:…"}]}
//! ```
//!
//! `layer` is the position of the layer's blob in the manifest; without one, the cache knows what
//! the step came to, and has not got it. `contents` are digests of files that a COPY took out of a
//! stage, so that its key is known without the stage's files.
//!
//! # Invariants
//!
//! - All of it is somebody else's claim. A record is found by its key only; a layer that is
//!   used is verified by the digest of its blob and by its diff id.

use std::collections::BTreeMap;

use oci::{Descriptor, DiffId, Digest};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The media type of the config of a cache's manifest.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.rbuild.cache.v1+json";

/// The field of an image config that holds an inline cache.
pub(crate) const INLINE_FIELD: &str = "rbuild.cache.v1";

/// The format. Another one is a cache of somebody else, which is none for us.
const VERSION: u32 = 1;

/// A build with more steps than this is none; the limit bounds the memory that a cache can take.
const MAX_RECORDS: usize = 50_000;

/// The records of a cache, as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Records {
    version: u32,
    steps: Vec<Step>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    contents: Vec<Content>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Step {
    key: Digest,
    #[serde(rename = "diffID")]
    diff_id: DiffId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layer: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    key: Digest,
    digest: Digest,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) diff_id: DiffId,
    /// The blob that holds the layer, if the cache has it.
    pub(crate) blob: Option<Descriptor>,
    pub(crate) created: Option<String>,
}

/// A cache that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) steps: BTreeMap<Digest, Outcome>,
    pub(crate) contents: BTreeMap<Digest, Digest>,
}

impl Records {
    pub(crate) fn new() -> Self {
        Self { version: VERSION, ..Self::default() }
    }

    pub(crate) fn add_step(
        &mut self,
        key: Digest,
        diff_id: DiffId,
        layer: Option<usize>,
        created: Option<String>,
    ) {
        self.steps.push(Step { key, diff_id, layer, created });
    }

    pub(crate) fn add_content(&mut self, key: Digest, digest: Digest) {
        self.contents.push(Content { key, digest });
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("records have only text for keys")
    }

    /// Reads records that refer to `layers`; with the diff ids of an image's layers, a record that
    /// says otherwise is refused.
    pub(crate) fn read(
        text: &str,
        layers: &[Descriptor],
        diff_ids: Option<&[DiffId]>,
    ) -> Result<Known, String> {
        let records: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if records.version != VERSION {
            return Err(format!("its format is {}, not {VERSION}", records.version));
        }
        if records.steps.len() + records.contents.len() > MAX_RECORDS {
            return Err(format!("it has more than {MAX_RECORDS} records"));
        }
        let mut known = Known::default();
        for Step { key, diff_id, layer, created } in records.steps {
            let blob = match layer {
                None => None,
                Some(layer) => {
                    let blob = layers
                        .get(layer)
                        .ok_or_else(|| format!("it has no layer {layer}, which a record names"))?;
                    if blob.media_type.layer_compression().is_none() {
                        return Err(format!("{} is no layer", blob.media_type));
                    }
                    if diff_ids.is_some_and(|diff_ids| diff_ids.get(layer) != Some(&diff_id)) {
                        return Err(format!("its layer {layer} is not what a record says"));
                    }
                    Some(blob.clone())
                }
            };
            // It becomes part of a config: only what is a time.
            let created = created.filter(|text| OffsetDateTime::parse(text, &Rfc3339).is_ok());
            known.steps.insert(key, Outcome { diff_id, blob, created });
        }
        known.contents =
            records.contents.into_iter().map(|content| (content.key, content.digest)).collect();
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::MediaType;

    fn digest(text: &str) -> Digest {
        Digest::sha256(text.as_bytes())
    }

    fn blob(text: &str) -> Descriptor {
        Descriptor::new(MediaType::OCI_LAYER_GZIP, digest(text), 7)
    }

    #[test]
    fn what_was_written_is_read() {
        let mut records = Records::new();
        let time = "2026-01-01T00:00:00Z".to_owned();
        records.add_step(digest("k1"), DiffId(digest("d1")), Some(1), Some(time.clone()));
        records.add_step(digest("k2"), DiffId(digest("d2")), None, None);
        records.add_content(digest("c"), digest("files"));
        let known = Records::read(&records.to_json(), &[blob("a"), blob("b")], None).unwrap();
        let one =
            Outcome { diff_id: DiffId(digest("d1")), blob: Some(blob("b")), created: Some(time) };
        assert_eq!(known.steps[&digest("k1")], one);
        assert_eq!(known.steps[&digest("k2")].blob, None);
        assert_eq!(known.contents[&digest("c")], digest("files"));
    }

    #[test]
    fn hostile_records_are_refused() {
        let (key, diff) = (digest("k"), digest("d"));
        let step = |rest: &str| {
            format!(r#"{{"version":1,"steps":[{{"key":"{key}","diffID":"{diff}"{rest}}}]}}"#)
        };
        let other = Descriptor::new(MediaType::OCI_CONFIG, digest("a"), 7);
        let layers = [blob("a"), other];
        let table = [
            (step(r#","layer":2"#), "it has no layer 2, which a record names"),
            (step(r#","layer":1"#), "application/vnd.oci.image.config.v1+json is no layer"),
            (step(r#","layer":-1"#), "invalid value: integer `-1`, expected usize"),
            (r#"{"version":2,"steps":[]}"#.to_owned(), "its format is 2, not 1"),
            (step("").replace("sha256:", "sha1:"), "sha1"),
            ("[]".to_owned(), "invalid length 0"),
        ];
        for (text, expected) in table {
            let error = Records::read(&text, &layers, None).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = Records::read(&step(r#","layer":0"#), &layers, Some(&[DiffId(key)]));
        assert_eq!(error.unwrap_err(), "its layer 0 is not what a record says");
        let one = format!(r#"{{"key":"{key}","diffID":"{key}"}}"#);
        let many = format!(r#"{{"version":1,"steps":[{}]}}"#, vec![one; 50_001].join(","));
        assert_eq!(
            Records::read(&many, &layers, None).unwrap_err(),
            "it has more than 50000 records"
        );
        // What is no time does not become part of an image.
        let known = Records::read(&step(r#","created":"\u001b[31m""#), &layers, None).unwrap();
        assert_eq!(known.steps[&key].created, None);
    }
}

//! An OCI layout (image-spec, `image-layout.md`): one folder, one repository.

use std::collections::BTreeMap;

use oci::{Document, MAX_MANIFEST_BYTES, MediaType, Repository, Tag};

use super::Result;
use super::folder::Folder;
use super::importer::{Importer, Wanted};
use super::source::Source;
use crate::storage::Storage;

/// The annotation that names an image within a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// How long the file `oci-layout` may be.
const MAX_LAYOUT_BYTES: usize = 4096;

/// Whether a folder is an OCI layout.
pub(super) fn is_one(folder: &Folder) -> Result<bool> {
    let text = folder.read("oci-layout", MAX_LAYOUT_BYTES)?;
    let value = text.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    Ok(value.is_some_and(|value| value["imageLayoutVersion"] == "1.0.0"))
}

/// Imports what the layout's index lists into `repository`.
pub(super) async fn import<S: Storage>(
    folder: &Folder,
    repository: &Repository,
    importer: &mut Importer<'_, S>,
) -> Result<()> {
    let text = folder.read("index.json", MAX_MANIFEST_BYTES)?.unwrap_or_default();
    let index = match Document::parse(&text, Some(&MediaType::OCI_INDEX)) {
        Ok(index) => index,
        Err(error) => {
            importer.complain(format!("index.json: {error}"));
            return Ok(());
        }
    };
    let mut wanted = Wanted { manifests: BTreeMap::new() };
    for descriptor in index.manifests() {
        let tags: &mut Vec<Tag> = wanted.manifests.entry(descriptor.digest).or_default();
        let Some(name) = descriptor.annotations.get(REF_NAME) else { continue };
        match tag_of(name) {
            Some(tag) if !tags.contains(&tag) => tags.push(tag),
            Some(_) => {}
            None => importer.complain(format!(
                "{}: its name {name:?} has no tag; it is brought in without one",
                descriptor.digest
            )),
        }
    }
    importer.import(&Source::Layout(folder), repository, wanted).await
}

/// Returns the tag in the name of an image: the name itself, or what follows the
/// last colon of a whole reference.
fn tag_of(name: &str) -> Option<Tag> {
    name.parse().ok().or_else(|| name.rsplit_once(':')?.1.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_tags_or_whole_references() {
        for (name, tag) in [
            ("v1", Some("v1")),
            ("localhost:5000/team/app:v1", Some("v1")),
            ("localhost:5000/team/app", None),
            ("../x", None),
            ("", None),
        ] {
            assert_eq!(tag_of(name).as_ref().map(Tag::as_str), tag, "{name}");
        }
    }
}

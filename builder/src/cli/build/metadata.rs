//! `--metadata-file`: the result for programs, with the names that docker buildx gives it.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use oci::{Descriptor, Reference};
use serde_json::{Map, Value};

use crate::output::Finished;

/// Returns the content of the file.
fn content(finished: &Finished, image: &Descriptor, names: &[Reference]) -> Value {
    let mut map = Map::new();
    if let [only] = &finished.builds[..] {
        map.insert("containerimage.config.digest".to_owned(), only.image_id.to_string().into());
    }
    let descriptor = serde_json::to_value(image).unwrap_or_default();
    map.insert("containerimage.descriptor".to_owned(), descriptor);
    map.insert("containerimage.digest".to_owned(), image.digest.to_string().into());
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        map.insert("image.name".to_owned(), names.join(",").into());
    }
    Value::Object(map)
}

/// Writes the file; nobody finds half of it.
pub(super) fn write(
    path: &Path,
    finished: &Finished,
    image: &Descriptor,
    names: &[Reference],
) -> anyhow::Result<()> {
    let text = serde_json::to_vec_pretty(&content(finished, image, names))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let failed = || format!("cannot write {}", path.display());
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(directory.unwrap_or(Path::new(".")))
        .with_context(failed)?;
    file.write_all(&text).with_context(failed)?;
    file.persist(path).with_context(failed)?;
    Ok(())
}

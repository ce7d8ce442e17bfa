//! The storage folder of a distribution registry.
//!
//! ```text
//! docker/registry/v2/blobs/<alg>/<hh>/<hex>/data
//! docker/registry/v2/repositories/<name>/_layers/<alg>/<hex>/link
//! docker/registry/v2/repositories/<name>/_manifests/revisions/<alg>/<hex>/link
//! docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/current/link
//! ```

use std::collections::BTreeMap;

use oci::{Digest, Repository, Tag};

use super::Result;
use super::folder::Folder;
use super::importer::{Importer, Wanted};
use super::source::{Source, link};
use crate::storage::{MAX_REPOSITORY_BYTES, Storage};

/// Where the storage may begin: in the folder that the registry was given, in
/// what it has made there, or further in.
const ROOTS: [&str; 4] = ["docker/registry/v2", "registry/v2", "v2", "."];

/// Returns the path of the storage's `v2`, if this is one.
pub(super) fn find(folder: &Folder) -> Result<Option<&'static str>> {
    for root in ROOTS {
        // A layout has `blobs` too, but no `repositories`.
        if folder.directories(root)?.iter().any(|name| name == "repositories") {
            return Ok(Some(root));
        }
    }
    Ok(None)
}

/// Imports every repository.
pub(super) async fn import<S: Storage>(
    folder: &Folder,
    root: &'static str,
    importer: &mut Importer<'_, S>,
) -> Result<()> {
    // What is still to be looked into, the next one last.
    let mut waiting = vec![String::new()];
    while let Some(name) = waiting.pop() {
        let path = format!("{root}/repositories/{name}");
        let names = match folder.directories(path.trim_end_matches('/')) {
            Ok(names) => names,
            Err(error) => {
                importer.fail(&error);
                continue;
            }
        };
        if names.iter().any(|name| name == "_manifests") {
            repository(folder, root, &name, importer).await?;
        }
        for below in names.iter().rev().filter(|below| !below.starts_with('_')) {
            let name = match name.is_empty() {
                true => below.clone(),
                false => format!("{name}/{below}"),
            };
            if name.len() > MAX_REPOSITORY_BYTES {
                importer.complain(format!(
                    "repository {name:?}: its name is longer than {MAX_REPOSITORY_BYTES} bytes"
                ));
            } else {
                waiting.push(name);
            }
        }
    }
    Ok(())
}

async fn repository<S: Storage>(
    folder: &Folder,
    root: &'static str,
    name: &str,
    importer: &mut Importer<'_, S>,
) -> Result<()> {
    let repository: Repository = match name.parse() {
        Ok(repository) => repository,
        Err(error) => {
            importer.complain(format!("repository {name:?}: {error}"));
            return Ok(());
        }
    };
    let wanted = match wanted(folder, root, name, importer) {
        Ok(wanted) => wanted,
        Err(error) => {
            importer.fail(&error);
            return Ok(());
        }
    };
    let source = Source::Distribution { folder, root, repository: name };
    importer.import(&source, &repository, wanted).await
}

/// Returns what a repository lists.
fn wanted<S: Storage>(
    folder: &Folder,
    root: &str,
    name: &str,
    importer: &mut Importer<'_, S>,
) -> Result<Wanted> {
    let base = format!("{root}/repositories/{name}/_manifests");
    let mut wanted = Wanted { manifests: BTreeMap::new() };
    for algorithm in folder.directories(&format!("{base}/revisions"))? {
        for hex in folder.directories(&format!("{base}/revisions/{algorithm}"))? {
            // A deleted revision keeps its directory and loses its link.
            let path = format!("{base}/revisions/{algorithm}/{hex}/link");
            match format!("{algorithm}:{hex}").parse::<Digest>() {
                Ok(digest) if link(folder, &path)? == Some(digest) => {
                    wanted.manifests.insert(digest, Vec::new());
                }
                Ok(_) if folder.read(&path, usize::from(u8::MAX))?.is_none() => {}
                Ok(_) => importer.complain(format!("{name}: {path} does not name what it should")),
                Err(error) => importer.complain(format!("{name}: {error}")),
            }
        }
    }
    for tag in folder.directories(&format!("{base}/tags"))? {
        let tag: Tag = match tag.parse() {
            Ok(tag) => tag,
            Err(error) => {
                importer.complain(format!("{name}: tag {tag:?}: {error}"));
                continue;
            }
        };
        let path = format!("{base}/tags/{tag}/current/link");
        let Some(digest) = link(folder, &path)? else {
            // A tag that was deleted may leave its directory behind.
            if folder.read(&path, usize::from(u8::MAX))?.is_some() {
                importer.complain(format!("{name}:{tag} does not hold a digest"));
            }
            continue;
        };
        match wanted.manifests.get_mut(&digest) {
            Some(tags) => tags.push(tag),
            None => importer.complain(format!("{name}:{tag} names {digest}, which is not there")),
        }
    }
    Ok(wanted)
}

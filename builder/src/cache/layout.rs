//! A cache in a directory: an OCI image layout, as `docker buildx` and `skopeo` write them.
//!
//! Whoever filled the directory may have put anything there: only regular files of the size that was
//! promised are read, and what they hold is compared with the digest before it is believed.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use oci::{Descriptor, DiffId, Digest, Index, MAX_MANIFEST_BYTES, Manifest, Platform};
use store::Lease;

use crate::error::Result as BuildResult;

/// Why a blob cannot be had.
type Cause = Box<dyn std::error::Error + Send + Sync>;

const INDEX: &str = "index.json";
const VERSION: &str = "oci-layout";
/// image-spec, `image-layout.md`, "oci-layout file".
const VERSION_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// image-spec, `annotations.md`.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Copies blobs into the store, where they are verified, and unpacks those that are layers.
pub(crate) fn fetch(
    lease: &Lease,
    directory: &Path,
    blobs: &[(Descriptor, Option<DiffId>)],
) -> Result<(), Cause> {
    for (blob, diff_id) in blobs {
        let path = blob_path(directory, &blob.digest);
        let file = open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut ingest = lease.ingest_with(blob.digest.algorithm())?;
        // One byte more than promised is enough to see that there are too many.
        io::copy(&mut file.take(blob.size.saturating_add(1)), &mut ingest)?;
        ingest.commit(Some((blob.digest, blob.size)))?;
        if let Some(diff_id) = diff_id {
            lease.unpack(blob, *diff_id)?;
        }
    }
    Ok(())
}

/// Finds a manifest by its tag or digest; `None` where the layout or the tag does not exist.
pub(crate) fn find(
    directory: &Path,
    tag: &str,
    digest: Option<Digest>,
    platform: &Platform,
) -> Result<Option<Manifest>, String> {
    let Some(index) = index(directory)? else { return Ok(None) };
    let is_wanted = |entry: &&Descriptor| match digest {
        Some(digest) => entry.digest == digest,
        None => entry.annotations.get(REF_NAME).is_some_and(|name| name == tag),
    };
    let Some(entry) = index.manifests.iter().find(is_wanted) else { return Ok(None) };
    let mut bytes = read(directory, entry, MAX_MANIFEST_BYTES as u64)?;
    if entry.media_type.is_index() {
        let index = Index::parse(&bytes).map_err(|error| error.to_string())?;
        let Some(entry) = index.select(platform) else { return Ok(None) };
        bytes = read(directory, entry, MAX_MANIFEST_BYTES as u64)?;
    }
    Manifest::parse(&bytes).map(Some).map_err(|error| error.to_string())
}

/// Reads a small blob, and verifies it.
pub(crate) fn read(directory: &Path, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, String> {
    let path = blob_path(directory, &blob.digest);
    if blob.size > limit {
        return Err(format!("{} has {} bytes, more than {limit}", blob.digest, blob.size));
    }
    let bytes = bounded(&path, blob.size)
        .map_err(|error| format!("{}: {error}", path.display()))?
        .ok_or_else(|| format!("{} is not there", path.display()))?;
    if Digest::of(blob.digest.algorithm(), &bytes) != blob.digest {
        return Err(format!("{} is not what its name says", path.display()));
    }
    Ok(bytes)
}

/// Puts a cache into a layout, under a tag; what is there already is not written again.
pub(crate) fn write(
    lease: &Lease,
    directory: &Path,
    tag: &str,
    descriptor: &Descriptor,
    manifest: &Manifest,
    check: &dyn Fn() -> BuildResult<()>,
) -> Result<(), Cause> {
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| format!("cannot write {path}: {error}")
    };
    fs::create_dir_all(directory).map_err(named(directory))?;
    // Two builds may export to one directory at the same time: one after the other.
    let lock = File::open(directory).map_err(named(directory))?;
    lock.lock().map_err(named(directory))?;
    let blobs = manifest.layers.iter().chain([&manifest.config, descriptor]);
    for blob in blobs {
        check()?;
        let path = blob_path(directory, &blob.digest);
        if fs::symlink_metadata(&path)
            .is_ok_and(|found| found.is_file() && found.len() == blob.size)
        {
            continue;
        }
        let source = lease.store().blobs().open(&blob.digest)?;
        replace(&path, source).map_err(named(&path))?;
    }
    let mut index = index(directory)?.unwrap_or_else(|| Index::new(Vec::new()));
    index.manifests.retain(|entry| entry.annotations.get(REF_NAME).is_none_or(|name| name != tag));
    let mut entry = descriptor.clone();
    entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    index.manifests.push(entry);
    let path = directory.join(VERSION);
    if !path.exists() {
        replace(&path, VERSION_TEXT.as_bytes()).map_err(named(&path))?;
    }
    // Last: whoever finds a manifest finds what it lists.
    let path = directory.join(INDEX);
    replace(&path, &*index.to_bytes()).map_err(named(&path))?;
    Ok(())
}

fn index(directory: &Path) -> Result<Option<Index>, String> {
    let path = directory.join(INDEX);
    let bytes = bounded(&path, MAX_MANIFEST_BYTES as u64);
    let bytes = bytes.map_err(|error| format!("{}: {error}", path.display()))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let index = Index::parse(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Some(index))
}

/// Returns where a layout has a blob.
fn blob_path(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
}

/// Opens a regular file.
fn open(path: &Path) -> io::Result<File> {
    // A link could lead anywhere, and a pipe would wait for somebody to write into it.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file")),
    }
}

/// Reads a file that has at most so many bytes.
fn bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {limit} bytes"))),
        false => Ok(Some(bytes)),
    }
}

/// Writes a file so that readers see the old or the new one.
fn replace(path: &Path, mut content: impl io::Read) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)?;
    io::copy(&mut content, &mut file)?;
    file.flush()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

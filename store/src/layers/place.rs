//! Where unpacked layers and fix-ups are, and how they get there.
//!
//! A layer is made in the scratch directory of a lease and appears by one rename. Of several
//! processes that unpack one layer at the same time the first wins, and the others use its result.

use std::{
    fs,
    io::{self, Read},
    num::NonZero,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use oci::{Descriptor, DiffId, Digest};

use super::{
    active::is_ours, decode::decode, error::LayerError, index::LayerIndex, stamp, tar::Reader,
    unpack,
};
use crate::{
    Image, Lease, Store,
    durable::if_present,
    error::{Error, IoContext as _, Result},
    trash,
};

/// The directory inside a layer or fix-up that overlayfs stacks.
pub(crate) const TREE: &str = "fs";
const INDEX: &str = "index";
const STAMP: &str = "stamp";
/// How many bytes of a digest its short link has: names that nobody can make collide.
const LINK_BYTES: usize = 16;

/// Whether it is known that a stream is the layer it is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// It is a blob of the store that has the layer's own name.
    Blob,
    /// It must be hashed.
    Nobody,
}

impl Lease {
    /// Tells whether a layer is unpacked, and keeps it if it is.
    ///
    /// # Errors
    ///
    /// Fails if the store cannot be read.
    pub fn is_unpacked(&self, diff_id: DiffId) -> Result<bool> {
        self.pin(&diff_id.0)?;
        self.remember_unpacked(&diff_id.0, || is_layer_valid(self.store(), diff_id))
    }

    /// Unpacks a stored layer into its directory, unless that is there already.
    ///
    /// The blob's compression is told from its content. Several processes may do this at once.
    ///
    /// # Errors
    ///
    /// [`Error::BlobUnknown`] if the blob is not stored, [`Error::DigestMismatch`] if its content is
    /// not the layer `diff_id`, [`Error::Layer`] if it is no tar that a layer can be.
    pub fn unpack(&self, layer: &Descriptor, diff_id: DiffId) -> Result<()> {
        if self.is_unpacked(diff_id)? {
            return Ok(());
        }
        let blob = self.store().blobs().open(&layer.digest)?;
        // A plain tar is its own proof: a blob hashes to its name.
        let trust = if layer.digest == diff_id.0 { Trust::Blob } else { Trust::Nobody };
        self.unpack_missing(blob, diff_id, trust)
    }

    /// Unpacks a layer while it comes in; the stream is read to its end in any case of success.
    ///
    /// # Errors
    ///
    /// As [`unpack`](Self::unpack), and if the stream fails.
    pub fn unpack_stream(&self, stream: impl Read + Send, diff_id: DiffId) -> Result<()> {
        if !self.is_unpacked(diff_id)? {
            return self.unpack_missing(stream, diff_id, Trust::Nobody);
        }
        let mut stream = stream;
        let drained = io::copy(&mut stream, &mut io::sink());
        drained.map_err(|error| layer_error(diff_id, LayerError::Read(error)))?;
        Ok(())
    }

    /// Unpacks the layers of an image that are not unpacked yet, several at once.
    ///
    /// # Errors
    ///
    /// As [`unpack`](Self::unpack), for the first layer that fails.
    pub fn unpack_image(&self, image: &Image) -> Result<()> {
        let layers: Vec<_> = image.manifest.layers.iter().zip(image.diff_ids()).collect();
        if layers.len() != image.diff_ids().len() {
            let digest = image.manifest_descriptor.digest;
            let reason = "its manifest and its config differ in the number of layers".to_owned();
            return Err(Error::NotAnImage { digest, reason });
        }
        let mut missing = Vec::new();
        for (layer, diff_id) in layers {
            if !self.is_unpacked(*diff_id)? {
                missing.push((layer, *diff_id));
            }
        }
        let workers = thread::available_parallelism().map_or(1, NonZero::get).min(missing.len());
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some((layer, diff_id)) =
                        missing.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        if let Err(error) = self.unpack(layer, *diff_id) {
                            failure
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .get_or_insert(error);
                            // The others finish what they have begun and take nothing more.
                            next.store(missing.len(), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn unpack_missing(
        &self,
        stream: impl Read + Send,
        diff_id: DiffId,
        trust: Trust,
    ) -> Result<()> {
        let scratch = self.scratch("unpack")?;
        let result = self.unpack_into(&scratch, stream, diff_id, trust);
        // Also what entries replaced, and everything in case of an error.
        self.discard(&scratch);
        result
    }

    fn unpack_into(
        &self,
        scratch: &Path,
        stream: impl Read + Send,
        diff_id: DiffId,
        trust: Trust,
    ) -> Result<()> {
        let (layer, replaced) = (scratch.join("layer"), scratch.join("replaced"));
        let tree = layer.join(TREE);
        for directory in [&layer, &replaced, &tree] {
            fs::create_dir(directory).doing("create", directory)?;
        }
        let algorithm = (trust == Trust::Nobody).then(|| diff_id.0.algorithm());
        let (index, actual) = decode(stream, algorithm, |chunks| {
            unpack::apply(&mut Reader::new(chunks), &tree, &replaced)
        })
        .map_err(|error| layer_error(diff_id, error))?;
        if let Some(actual) = actual
            && actual != diff_id.0
        {
            return Err(Error::DigestMismatch { expected: diff_id.0, actual });
        }
        place_layer(self.store(), &layer, &index, diff_id)
    }
}

/// Completes a layer's directory and moves it to its place.
pub(crate) fn place_layer(
    store: &Store,
    layer: &Path,
    index: &LayerIndex,
    diff_id: DiffId,
) -> Result<()> {
    let path = layer.join(INDEX);
    fs::write(&path, index.to_text()).doing("write", &path)?;
    let path = layer.join(STAMP);
    fs::write(&path, stamp::of_this_boot()?).doing("write", &path)?;
    place(store, layer, &store.root().layer(&diff_id.0), |target| {
        stamp::is_file_valid(&target.join(STAMP))
    })?;
    ensure_link(store, &layer_link(diff_id), &store.root().layer(&diff_id.0))
}

/// Moves a finished directory to its place. One that is there and valid stays; one that is left
/// from before a crash of the machine makes way.
pub(crate) fn place(
    store: &Store,
    made: &Path,
    target: &Path,
    is_valid: impl Fn(&Path) -> Result<bool>,
) -> Result<()> {
    let rename = || match fs::rename(made, target) {
        Ok(()) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error).doing("rename into", target),
    };
    if rename()? {
        return Ok(());
    }
    {
        // Nobody else may decide the same meanwhile and remove what we are about to put there.
        let _exclusive = store.root().lock_exclusive()?;
        if is_valid(target)? {
            return Ok(());
        }
        trash::hide(store.root(), target)?;
        fs::rename(made, target).doing("rename into", target)?;
    }
    // What cannot be deleted now is deleted by the next gc.
    let _left_for_gc = trash::empty(store.root());
    Ok(())
}

/// Makes the short link to a layer or fix-up, if it is not there.
pub(crate) fn ensure_link(store: &Store, name: &str, directory: &Path) -> Result<()> {
    let link = store.root().links().join(name);
    let relative = directory.strip_prefix(store.root().path()).unwrap_or(directory);
    let target = Path::new("..").join(relative).join(TREE);
    // Garbage collection removes links that lead nowhere: not between a look and its use.
    let _shared = store.root().lock_shared()?;
    match symlink(target, &link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).doing("create", &link)
        }
        _ => Ok(()),
    }
}

/// The name of the short link to a layer. Options of `mount` hold a page of text, so the names are
/// short, and free of the characters that have a meaning there.
pub(crate) fn layer_link(diff_id: DiffId) -> String {
    short_link('L', &diff_id.0)
}

/// The name of the short link to a chain's fix-up.
pub(crate) fn chain_link(chain: &Digest) -> String {
    short_link('C', chain)
}

fn short_link(kind: char, digest: &Digest) -> String {
    format!("{kind}{}", URL_SAFE_NO_PAD.encode(&digest.as_bytes()[..LINK_BYTES]))
}

/// Tells whether a layer is there and can be trusted.
pub(crate) fn is_layer_valid(store: &Store, diff_id: DiffId) -> Result<bool> {
    stamp::is_file_valid(&store.root().layer(&diff_id.0).join(STAMP))
}

/// The tree of an unpacked layer.
pub(crate) fn layer_tree(store: &Store, diff_id: DiffId) -> PathBuf {
    store.root().layer(&diff_id.0).join(TREE)
}

/// Reads the index of an unpacked layer.
pub(crate) fn layer_index(store: &Store, diff_id: DiffId) -> Result<LayerIndex> {
    let path = store.root().layer(&diff_id.0).join(INDEX);
    let text = if_present(fs::read_to_string(&path)).doing("read", &path)?;
    let text = text.ok_or(Error::LayerMissing { diff_id })?;
    LayerIndex::parse(&text).map_err(|error| layer_error(diff_id, error))
}

/// Says which layer an error is about; a full disk stays a full disk.
pub(crate) fn layer_error(diff_id: DiffId, error: LayerError) -> Error {
    let full = |source: &io::Error| {
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    };
    match error {
        LayerError::Entry { action, path, source } if full(&source) => {
            Error::StorageFull { action, path, source }
        }
        // An error of the store that came through a stream is itself again.
        LayerError::Read(source) if source.get_ref().is_some_and(is_ours) => {
            source.downcast::<Error>().expect("it was looked at just before")
        }
        error => Error::Layer { diff_id, source: Box::new(error) },
    }
}

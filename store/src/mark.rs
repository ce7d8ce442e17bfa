//! What keeps what: from an image's descriptor or a pin to every digest that must stay.

use std::collections::BTreeSet;
use std::io::Read as _;

use oci::{
    ChainId, Descriptor, Digest, Document, ImageConfig, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES,
    Manifest,
};

use crate::blobs::Blob;
use crate::error::{Error, IoContext as _, Result};
use crate::store::Store;

/// The digests that must stay. Blobs, layers and fix-ups share one name space: a layer and the
/// plain tar it was unpacked from have the same digest, and go together.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    kept: BTreeSet<Digest>,
    /// Documents that were followed already.
    followed: BTreeSet<Digest>,
}

impl Marks {
    /// Tells whether something must stay.
    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.kept.contains(digest)
    }

    /// Keeps exactly these.
    pub(crate) fn extend(&mut self, digests: &[Digest]) {
        self.kept.extend(digests);
    }

    /// Keeps an image or index, and everything it lists.
    ///
    /// # Errors
    ///
    /// If it is not understood, since then what it needs is not known either.
    pub(crate) fn image(&mut self, store: &Store, descriptor: &Descriptor) -> Result<()> {
        match store.document(descriptor) {
            Ok(_) | Err(Error::BlobUnknown { .. }) => self.pin(store, &descriptor.digest),
            Err(error) => Err(error),
        }
    }

    /// Keeps whatever has this digest; if it is a manifest, index or config, all it lists too.
    ///
    /// Parts that are not stored are skipped: of an index, usually one platform is pulled.
    pub(crate) fn pin(&mut self, store: &Store, digest: &Digest) -> Result<()> {
        let mut queue = vec![*digest];
        while let Some(digest) = queue.pop() {
            self.kept.insert(digest);
            if !self.followed.insert(digest) {
                continue;
            }
            let Some(bytes) = read_json(store, &digest)? else { continue };
            match Document::parse(&bytes, None) {
                Ok(Document::Manifest(manifest)) => self.manifest(store, &manifest)?,
                Ok(Document::Index(index)) => {
                    queue.extend(index.manifests.iter().map(|manifest| manifest.digest));
                }
                Err(_) => self.config(&bytes),
            }
        }
        Ok(())
    }

    fn manifest(&mut self, store: &Store, manifest: &Manifest) -> Result<()> {
        self.kept.insert(manifest.config.digest);
        self.kept.extend(manifest.layers.iter().map(|layer| layer.digest));
        if let Some(bytes) = read_json(store, &manifest.config.digest)? {
            self.config(&bytes);
        }
        Ok(())
    }

    /// Keeps the layers of a config, and the fix-ups between them. Other documents list none.
    fn config(&mut self, bytes: &[u8]) {
        let Ok(config) = ImageConfig::parse(bytes) else { return };
        let mut chain: Option<ChainId> = None;
        for diff_id in config.rootfs_diff_ids {
            self.kept.insert(diff_id.0);
            let next = match chain {
                None => ChainId::base(diff_id),
                Some(below) => below.child(diff_id),
            };
            self.kept.insert(next.digest());
            chain = Some(next);
        }
    }
}

/// Reads a blob that may be a JSON document: small, and beginning like one.
fn read_json(store: &Store, digest: &Digest) -> Result<Option<Vec<u8>>> {
    let Blob { mut file, size } = match store.blobs().open(digest) {
        Ok(blob) => blob,
        Err(Error::BlobUnknown { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    if size > MAX_MANIFEST_BYTES.max(MAX_CONFIG_BYTES) as u64 {
        return Ok(None);
    }
    let path = store.root().blob(digest);
    let mut bytes = vec![0; 1];
    if file.read(&mut bytes).doing("read", &path)? == 0 || bytes != b"{" {
        // Documents are compact JSON, or have been made by a program that indents: both begin so.
        return Ok(None);
    }
    file.read_to_end(&mut bytes).doing("read", &path)?;
    Ok(Some(bytes))
}

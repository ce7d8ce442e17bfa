//! What the registry holds, and what may be done with it; no HTTP.
//!
//! ```text
//! Registry ── blobs      who may read which bytes; mount; delete
//!          ├─ uploads    receive, hash and store; resume; finish; expire
//!          ├─ manifests  check, pin, store, tag; read through a bounded cache
//!          ├─ tags       resolve, list, delete
//!          ├─ options    what the operator allows; tags that stay
//!          ├─ referrers  what refers to a subject
//!          └─ collection how requests and collectors keep out of each other's way
//! ```
//!
//! # Invariants
//!
//! - A repository's content is read only after its own mark for it was seen, on
//!   every request: bytes are stored once for all repositories, rights are not.
//! - Nothing is acknowledged before the storage said that it is durable.

mod blobs;
mod cache;
mod collection;
mod condition;
mod error;
mod links;
mod manifests;
mod options;
mod reading;
mod referrers;
mod stored;
mod tags;
mod uploads;

use std::fs::File;
use std::io::Read as _;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::storage::{self, Storage, UploadId};

use cache::ManifestCache;
pub(crate) use collection::{ANNOUNCEMENT_AGE, MAX_ANNOUNCED, MAX_ROUND, announcement};
pub use condition::{Conditions, EntityTags};
pub use error::{Error, Result};
pub(crate) use links::Links;
pub use manifests::{
    MAX_TAGS_PER_PUT, ManifestReference, PushedManifest, PutManifest, StoredManifest,
};
pub use options::{ImmutableTags, Options};
pub(crate) use reading::rehash;
pub use referrers::ReferrersPage;
pub(crate) use stored::{TagRecord, decode as decode_manifest, encode_entry};
pub use tags::{Page, PageRequest};
use uploads::Budget;
pub use uploads::{Chunks, MAX_UPLOAD_AGE, UploadRef};

/// Tells the time; a value, so that tests can choose it.
pub type Clock = fn() -> SystemTime;

/// The content of one storage.
#[derive(Debug)]
pub struct Registry<S> {
    storage: S,
    options: RwLock<Arc<Options>>,
    clock: Clock,
    cache: ManifestCache,
    budget: Budget,
    random: Mutex<File>,
}

impl<S: Storage> Registry<S> {
    /// Serves what `storage` holds.
    ///
    /// # Errors
    /// When the system has no source of random bytes.
    pub fn new(storage: S, options: Options, clock: Clock) -> Result<Self> {
        let random = File::open("/dev/urandom")
            .map_err(|source| storage::Error::from_io("open", "/dev/urandom", source))?;
        Ok(Self {
            storage,
            options: RwLock::new(Arc::new(options)),
            clock,
            cache: ManifestCache::default(),
            budget: Budget::default(),
            random: Mutex::new(random),
        })
    }

    /// Returns whether the storage answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check(&self) -> Result<()> {
        self.storage.list(&storage::Prefix::catalog(), None, 1).await?;
        Ok(())
    }

    /// Returns where the content is.
    pub(crate) fn storage(&self) -> &S {
        &self.storage
    }

    /// Returns the time in seconds since 1970.
    pub(crate) fn now_s(&self) -> u64 {
        (self.clock)().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    pub(crate) fn new_upload_id(&self) -> Result<UploadId> {
        let mut bytes = [0; 16];
        self.random
            .lock()
            .expect("nothing panics while it holds the lock")
            .read_exact(&mut bytes)
            .map_err(|source| storage::Error::from_io("read", "/dev/urandom", source))?;
        Ok(UploadId::from_random(bytes))
    }
}

//! A collection at every moment of a push, and a push at every moment of a
//! collection. Whatever a client is told is there stays, and what is acknowledged
//! is whole.
//!
//! In all of these, the content that is pushed was there before and is garbage by
//! now, two days old: the worst case.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use oci::{Digest, Repository};
use registry::content::{
    Conditions, Error, ManifestReference, Options, PutManifest, Registry, Result, UploadRef,
};
use registry::maintenance::{GcOptions, VerifyOptions, collect, verify};
use registry::storage::{self, Local, Storage};
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{age, now, root};
use crate::support::{index, manifest};
use crate::watched::{Watch, Watched, quick_dir};

const GC: GcOptions =
    GcOptions { grace: Duration::from_secs(3600), untagged: true, dry_run: false };
const CONFIG: &[u8] = b"{}";
const LAYER: &[u8] = b"layer";

/// Runs something before the k-th operation, of any kind.
struct Hook<F> {
    done: AtomicUsize,
    at: usize,
    action: F,
}

impl<F: Action> Hook<F> {
    fn before(at: usize, action: F) -> Arc<Self> {
        Arc::new(Self { done: AtomicUsize::new(0), at, action })
    }

    async fn step(&self) -> storage::Result<()> {
        if self.done.fetch_add(1, Ordering::SeqCst) == self.at {
            self.action.call().await;
        }
        Ok(())
    }
}

/// What a hook does.
trait Action: Send + Sync + 'static {
    fn call(&self) -> impl Future<Output = ()> + Send;
}

impl<F: Action> Watch for Hook<F> {
    async fn read(&self) -> storage::Result<()> {
        self.step().await
    }

    async fn write(&self) -> storage::Result<()> {
        self.step().await
    }

    fn lists_uploads(&self) -> bool {
        true
    }
}

fn open(root: &Path) -> Local {
    Local::open(root).unwrap()
}

fn registry<S: Storage>(storage: S) -> Registry<S> {
    Registry::new(storage, Options::default(), now).unwrap()
}

fn repository(text: &str) -> Repository {
    text.parse().unwrap()
}

async fn upload<S: Storage>(registry: &Registry<S>, to: &Repository, bytes: &[u8]) -> Result<()> {
    let id = registry.begin_upload(to, "", None).await?;
    let upload = UploadRef { id, repository: to, owner: "" };
    let chunk: std::result::Result<Bytes, Box<dyn std::error::Error + Send + Sync>> =
        Ok(Bytes::copy_from_slice(bytes));
    let mut body = futures_util::stream::iter([chunk]);
    registry.finish_upload(upload, &Digest::sha256(bytes), None, &mut body).await
}

async fn put<S: Storage>(
    registry: &Registry<S>,
    to: &Repository,
    reference: Option<&str>,
    manifest: &Value,
) -> Result<()> {
    let body = Bytes::from(manifest.to_string());
    let reference = match reference {
        Some(tag) => ManifestReference::Tag(tag.parse().unwrap()),
        None => ManifestReference::Digest(Digest::sha256(&body)),
    };
    let (tags, content_type, conditions) = (Vec::new(), None, Conditions::default());
    let put = PutManifest { reference, tags, content_type, conditions, may_move_tags: true, body };
    registry.put_manifest(to, put).await.map(drop)
}

/// How a client pushes.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Asks for each blob, and uploads what is not there.
    Asking,
    /// Uploads without asking.
    Uploading,
    /// Mounts blobs from where they were.
    Mounting,
    /// Asks for a manifest that an index is to list, and pushes it and what it
    /// needs only if it is not there.
    Listing,
}

async fn push_blobs<S: Storage>(registry: &Registry<S>, way: Way, to: &Repository) -> Result<()> {
    for bytes in [CONFIG, LAYER] {
        let digest = Digest::sha256(bytes);
        let is_there = match way {
            Way::Uploading => false,
            Way::Mounting => registry.mount(to, &digest, None, |_| true).await?,
            Way::Asking | Way::Listing => match registry.assure_blob(to, &digest).await {
                Ok(_) => true,
                Err(Error::BlobUnknown { .. }) => false,
                Err(error) => return Err(error),
            },
        };
        if !is_there {
            upload(registry, to, bytes).await?;
        }
    }
    Ok(())
}

async fn push<S: Storage>(registry: &Registry<S>, way: Way) -> Result<()> {
    let image = manifest(CONFIG, LAYER);
    let to = repository(if matches!(way, Way::Mounting) { "new" } else { "old" });
    if !matches!(way, Way::Listing) {
        push_blobs(registry, way, &to).await?;
        return put(registry, &to, Some("v1"), &image).await;
    }
    let reference = ManifestReference::Digest(Digest::sha256(image.to_string().as_bytes()));
    match registry.assure_manifest(&to, &reference).await {
        Ok(_) => {}
        Err(Error::ManifestUnknown { .. }) => {
            push_blobs(registry, way, &to).await?;
            put(registry, &to, None, &image).await?;
        }
        Err(error) => return Err(error),
    }
    put(registry, &to, Some("v1"), &index(&[&image])).await
}

/// Old garbage: an image that nothing names, or its blobs without a manifest.
async fn garbage(way: Way) -> (TempDir, Local) {
    let dir = quick_dir();
    let storage = open(&dir.path().join("root"));
    let (before, old) = (registry(storage.clone()), repository("old"));
    push_blobs(&before, Way::Uploading, &old).await.unwrap();
    let image = manifest(CONFIG, LAYER);
    put(&before, &old, None, &image).await.unwrap();
    if !matches!(way, Way::Listing) {
        let digest = Digest::sha256(image.to_string().as_bytes());
        before.delete_manifest(&old, &digest).await.unwrap();
    }
    for part in ["blob", "repo"] {
        age(&dir.path().join("root").join(part));
    }
    (dir, storage)
}

/// Asserts that all that was pushed is there and whole.
async fn is_whole(storage: &Local, way: Way, context: &str) {
    let registry = registry(storage.clone());
    let mut problems = Vec::new();
    let tell = &mut |finding: &registry::maintenance::Finding| {
        problems.push(finding.problem.to_string());
    };
    let report = verify(&registry, VerifyOptions::default(), tell).await.unwrap();
    assert_eq!(problems, [""; 0], "{context}");
    assert_eq!(report.blobs.count, 2, "{context}");
    assert_eq!(
        (report.tags, report.manifests),
        (1, 1 + u64::from(matches!(way, Way::Listing))),
        "{context}"
    );
    // It stays whole: what protected it while it was pushed is not needed any more.
    let later = GcOptions { grace: Duration::ZERO, ..GC };
    collect(&registry, &later, &mut |_| ()).await.unwrap();
    let tell = &mut |finding: &registry::maintenance::Finding| panic!("{context}: {finding:?}");
    let report = verify(&registry, VerifyOptions::default(), tell).await.unwrap();
    assert_eq!((report.blobs.count, report.tags), (2, 1), "{context}");
}

/// Collects on a storage of its own, as another replica would.
struct Collect(Local);

impl Action for Collect {
    async fn call(&self) {
        collect(&registry(self.0.clone()), &GC, &mut |_| ()).await.unwrap();
    }
}

/// Runs a law for each way to push: in parallel, because most of the time goes
/// into syncing files.
macro_rules! for_each_way {
    ($name:ident, $law:ident, $test:meta) => {
        mod $name {
            #[$test]
            async fn asking() {
                super::$law(super::Way::Asking).await;
            }

            #[$test]
            async fn uploading() {
                super::$law(super::Way::Uploading).await;
            }

            #[$test]
            async fn mounting() {
                super::$law(super::Way::Mounting).await;
            }

            #[$test]
            async fn listing() {
                super::$law(super::Way::Listing).await;
            }
        }
    };
}

for_each_way!(
    a_collection_at_any_moment_of_a_push_does_no_harm,
    collect_while_pushing,
    tokio::test
);

async fn collect_while_pushing(way: Way) {
    for at in 0.. {
        let (dir, storage) = garbage(way).await;
        let hook = Hook::before(at, Collect(open(&root(&dir))));
        let pushing = registry(Watched::new(storage.clone(), Arc::clone(&hook)));
        let context = format!("{way:?}, collected before operation {at}");
        push(&pushing, way).await.unwrap_or_else(|error| panic!("{context}: {error}"));
        is_whole(&storage, way, &context).await;
        if hook.done.load(Ordering::SeqCst) <= at {
            assert!(at > 15, "a push is only {at} operations");
            return;
        }
    }
}

/// Pushes on a storage of its own, as another replica would, and keeps what came
/// of it.
struct Push(Local, Way, tokio::sync::Mutex<Option<Result<()>>>);

impl Action for Push {
    async fn call(&self) {
        let result = push(&registry(self.0.clone()), self.1).await;
        *self.2.lock().await = Some(result);
    }
}

// A collector that stands still makes those wait who need what it looks at; they
// are told to come back. Time is the runtime's, so that nobody has to.
for_each_way!(
    a_push_at_any_moment_of_a_collection_loses_nothing,
    push_while_collecting,
    tokio::test(start_paused = true)
);

async fn push_while_collecting(way: Way) {
    let mut refused = 0;
    for at in 0.. {
        let (dir, storage) = garbage(way).await;
        let hook = Hook::before(at, Push(open(&root(&dir)), way, tokio::sync::Mutex::default()));
        let collecting = registry(Watched::new(storage.clone(), Arc::clone(&hook)));
        let context = format!("{way:?}, pushed before operation {at}");
        collect(&collecting, &GC, &mut |_| ()).await.unwrap();
        if hook.done.load(Ordering::SeqCst) <= at {
            assert!(at > 15, "a collection is only {at} operations");
            break;
        }
        match hook.action.2.lock().await.take().unwrap() {
            Ok(()) => {}
            Err(Error::Collecting) => {
                refused += 1;
                push(&registry(storage.clone()), way).await.unwrap();
            }
            Err(error) => panic!("{context}: {error}"),
        }
        is_whole(&storage, way, &context).await;
    }
    assert!(refused > 0, "nobody ever had to wait");
}

/// Two collectors at once are one.
#[tokio::test]
async fn collectors_do_not_disturb_each_other() {
    for at in 0.. {
        let (dir, storage) = garbage(Way::Asking).await;
        let hook = Hook::before(at, Collect(open(&root(&dir))));
        let collecting = registry(Watched::new(storage.clone(), Arc::clone(&hook)));
        collect(&collecting, &GC, &mut |_| ()).await.unwrap();
        let usage = registry::maintenance::usage(&registry(storage)).await.unwrap();
        assert_eq!((usage.blobs, usage.stored_bytes), (0, 0), "before operation {at}");
        if hook.done.load(Ordering::SeqCst) <= at {
            break;
        }
    }
}

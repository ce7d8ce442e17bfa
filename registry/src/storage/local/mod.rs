//! The storage of one machine: a directory, crash-safe, shared by any number of
//! processes.
//!
//! A key is a path below the root. Small records are written to `tmp/`, synced,
//! and renamed into place; blobs are received into their upload's directory,
//! synced and renamed; marks are empty files. After each of these the directory
//! that holds the new name is synced too, and so is, once per process, every
//! directory above it.
//!
//! ```text
//! <root>/version            "rregistry storage 1"; anything else is refused
//! <root>/blob repo cat/     the keys of the layout
//! <root>/up/<uuid>/lock     held (flock) by the request that writes
//! <root>/up/<uuid>/session  the upload's record
//! <root>/up/<uuid>/data     what has been received
//! <root>/tmp/               records being written; garbage after a crash, nothing else
//! ```
//!
//! Reads of records and `open` run on the caller's thread: they are a few
//! system calls on names the kernel has cached, cheaper than changing threads.
//! Everything that syncs, lists or moves data runs on blocking threads.

mod direct;
mod files;
mod list;
mod upload;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use oci::Digest;

use super::{Blob, Content, Error, Key, Opened, Prefix, Result, Stamp, Storage, Stray, UploadId};
use files::Root;
pub use upload::LocalWriter;

/// A storage in a directory of the local file system.
#[derive(Clone, Debug)]
pub struct Local {
    root: Arc<Root>,
}

impl Local {
    /// Opens the storage below `path`, which is created where it is missing.
    ///
    /// # Errors
    /// [`Error::Format`] for a storage this version cannot read; else when the
    /// directory cannot be created or written.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { root: Arc::new(Root::open(path)?) })
    }

    /// Runs `work` on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Root>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let root = Arc::clone(&self.root);
        on_blocking_thread(move || work(&root)).await
    }
}

/// Runs `work` on a thread that may block, and passes its panic on.
async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failure) => match failure.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => Err(Error::from_io(
                "finish",
                "a storage operation while the registry stops",
                std::io::Error::other(cancelled),
            )),
        },
    }
}

impl Storage for Local {
    type Writer = LocalWriter;

    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        self.root.read(key.as_str())
    }

    async fn stamp(&self, key: &Key) -> Result<Option<Stamp>> {
        self.root.stamp(key.as_str())
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<()> {
        let key = key.clone();
        self.blocking(move |root| root.replace(key.as_str(), &value)).await
    }

    async fn put_new(&self, key: &Key, value: Bytes) -> Result<bool> {
        let key = key.clone();
        self.blocking(move |root| root.create(key.as_str(), &value)).await
    }

    async fn mark(&self, keys: Vec<Key>) -> Result<()> {
        self.blocking(move |root| root.mark(&keys)).await
    }

    async fn delete(&self, key: &Key) -> Result<bool> {
        let key = key.clone();
        self.blocking(move |root| root.remove(key.as_str())).await
    }

    async fn delete_if(&self, key: &Key, expected: Bytes) -> Result<bool> {
        let key = key.clone();
        self.blocking(move |root| root.remove_if(key.as_str(), &expected)).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        let prefix = prefix.clone();
        let after = after.map(str::to_owned);
        self.blocking(move |root| list::list(root, prefix.as_str(), after.as_deref(), limit)).await
    }

    async fn blob(&self, digest: &Digest) -> Result<Option<Blob>> {
        let key = Key::data(digest);
        let Some(file) = self.root.open_file(key.as_str())? else { return Ok(None) };
        let file = File::from(file);
        let size = file
            .metadata()
            .map_err(|source| Error::from_io("examine", key.as_str(), source))?
            .len();
        Ok(Some(Blob { content: Content::File(Arc::new(file)), size }))
    }

    async fn remove_blob(&self, digest: &Digest) -> Result<bool> {
        self.delete(&Key::data(digest)).await
    }

    async fn begin_upload(&self, id: &UploadId, record: Bytes) -> Result<()> {
        let id = *id;
        self.blocking(move |root| upload::begin(root, id, &record)).await
    }

    async fn peek_upload(&self, id: &UploadId) -> Result<Option<(Bytes, u64)>> {
        upload::peek(&self.root, *id)
    }

    async fn open_upload(&self, id: &UploadId) -> Result<Option<Opened<LocalWriter>>> {
        upload::open(&self.root, *id).await
    }

    async fn uploads(&self) -> Result<Vec<UploadId>> {
        self.blocking(|root| upload::all(root)).await
    }

    async fn sweep(&self) -> Result<()> {
        self.blocking(|root| {
            root.sweep_temporary()?;
            upload::sweep(root)
        })
        .await
    }

    /// Bytes are in their upload's directory or are a blob: there are no others.
    async fn sweep_strays(&self, _written_before_s: u64, _dry_run: bool) -> Result<Stray> {
        Ok(Stray::default())
    }
}

#[cfg(test)]
mod tests {
    use oci::{Repository, Tag};

    use super::super::Writer as _;
    use super::*;

    fn storage() -> (tempfile::TempDir, Local) {
        let dir = tempfile::tempdir().unwrap();
        let local = Local::open(&dir.path().join("root")).unwrap();
        (dir, local)
    }

    fn repository(text: &str) -> Repository {
        text.parse().unwrap()
    }

    fn file(blob: &Blob) -> Arc<File> {
        match &blob.content {
            Content::File(file) => Arc::clone(file),
            Content::Segments(_) => panic!("a local blob is a file"),
        }
    }

    fn tag_key(tag: &str) -> Key {
        Key::tag(&repository("a/b"), &tag.parse::<Tag>().unwrap())
    }

    #[tokio::test]
    async fn records_are_replaced_whole_and_created_once() {
        let (dir, local) = storage();
        let key = tag_key("v1");
        assert_eq!(local.get(&key).await.unwrap(), None);
        assert_eq!(local.stamp(&key).await.unwrap(), None);
        local.put(&key, Bytes::from_static(b"one")).await.unwrap();
        let first = local.stamp(&key).await.unwrap();
        assert!(!local.put_new(&key, Bytes::from_static(b"two")).await.unwrap());
        assert_eq!(local.get(&key).await.unwrap().unwrap(), "one");
        assert_eq!(local.stamp(&key).await.unwrap(), first);
        local.put(&key, Bytes::from(vec![b'x'; 5000])).await.unwrap();
        assert_eq!(local.get(&key).await.unwrap().unwrap().len(), 5000);
        assert_ne!(local.stamp(&key).await.unwrap(), first);
        assert!(local.delete(&key).await.unwrap());
        assert!(!local.delete(&key).await.unwrap());
        assert!(local.put_new(&key, Bytes::new()).await.unwrap());
        assert_eq!(local.get(&key).await.unwrap().unwrap(), "");
        assert_eq!(dir.path().join("root/tmp").read_dir().unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_record_that_changed_is_not_removed() {
        let (dir, local) = storage();
        let key = tag_key("v1");
        assert!(!local.delete_if(&key, Bytes::new()).await.unwrap());
        local.put(&key, Bytes::from_static(b"new")).await.unwrap();
        assert!(!local.delete_if(&key, Bytes::from_static(b"old")).await.unwrap());
        assert_eq!(local.get(&key).await.unwrap().unwrap(), "new");
        assert!(local.delete_if(&key, Bytes::from_static(b"new")).await.unwrap());
        assert_eq!(local.get(&key).await.unwrap(), None);
        assert_eq!(dir.path().join("root/tmp").read_dir().unwrap().count(), 0);
    }

    #[tokio::test]
    async fn listings_are_sorted_and_start_after() {
        let (_dir, local) = storage();
        for tag in ["b", "a", "c", "B", "a.1", "a-1"] {
            local.put(&tag_key(tag), Bytes::new()).await.unwrap();
        }
        let tags = Prefix::tags(&repository("a/b"));
        let list = async |after, limit| local.list(&tags, after, limit).await.unwrap();
        assert_eq!(list(None, 100).await, ["B", "a", "a-1", "a.1", "b", "c"]);
        assert_eq!(list(Some("a-1"), 2).await, ["a.1", "b"]);
        assert_eq!(list(Some("a0"), 1).await, ["b"]);
        assert_eq!(list(Some("c"), 5).await, [""; 0]);
        assert_eq!(list(None, 0).await, [""; 0]);
    }

    #[tokio::test]
    async fn nested_listings_come_in_the_order_of_names() {
        let (_dir, local) = storage();
        let names = ["a", "a-b", "a/b", "a/b/c", "a.b", "b", "ab", "a/0"];
        local
            .mark(names.iter().map(|name| Key::catalog(&repository(name))).collect())
            .await
            .unwrap();
        let mut expected = names.to_vec();
        expected.sort_unstable();
        let page = |after: Option<&str>, limit| {
            let local = local.clone();
            let after = after.map(|after| format!("{after}!"));
            async move {
                let listed = local.list(&Prefix::catalog(), after.as_deref(), limit).await.unwrap();
                listed
                    .iter()
                    .map(|key| Prefix::repository_of(key).unwrap().to_string())
                    .collect::<Vec<_>>()
            }
        };
        assert_eq!(page(None, 100).await, expected);
        for (index, name) in expected.iter().enumerate() {
            assert_eq!(page(Some(name), 100).await, expected[index + 1..], "after {name}");
            let end = expected.len().min(index + 3);
            assert_eq!(page(Some(name), 2).await, expected[index + 1..end], "two after {name}");
        }
    }

    #[tokio::test]
    async fn an_upload_becomes_a_blob_and_ends() {
        let (dir, local) = storage();
        let id = UploadId::from_random([1; 16]);
        assert!(local.open_upload(&id).await.unwrap().is_none());
        local.begin_upload(&id, Bytes::from_static(b"record")).await.unwrap();
        let opened = local.open_upload(&id).await.unwrap().unwrap();
        assert_eq!((&opened.record[..], opened.size), (&b"record"[..], 0));
        let mut writer = opened.writer;
        writer.write(0, &[Bytes::from_static(b"hel"), Bytes::from_static(b"lo??")]).await.unwrap();
        writer.save(Bytes::from_static(b"second")).await.unwrap();
        drop(writer);
        assert_eq!(
            local.peek_upload(&id).await.unwrap().unwrap(),
            (Bytes::from_static(b"second"), 7)
        );
        let mut writer = local.open_upload(&id).await.unwrap().unwrap().writer;
        writer.write(5, &[Bytes::from_static(b"!")]).await.unwrap();
        let digest = Digest::sha256(b"hello!");
        writer.commit(&digest, 6).await.unwrap();
        let blob = local.blob(&digest).await.unwrap().unwrap();
        assert_eq!(blob.size, 6);
        assert_eq!(std::io::read_to_string(&*file(&blob)).unwrap(), "hello!");
        assert!(local.peek_upload(&id).await.unwrap().is_none());
        assert!(local.uploads().await.unwrap().is_empty());
        assert_eq!(dir.path().join("root/up").read_dir().unwrap().count(), 0);
    }

    #[tokio::test]
    async fn the_second_of_two_equal_blobs_gives_way() {
        let (_dir, local) = storage();
        let digest = Digest::sha256(b"x");
        let mut inodes = Vec::new();
        for seed in [1, 2] {
            let id = UploadId::from_random([seed; 16]);
            local.begin_upload(&id, Bytes::new()).await.unwrap();
            let mut writer = local.open_upload(&id).await.unwrap().unwrap().writer;
            writer.write(0, &[Bytes::from_static(b"x")]).await.unwrap();
            writer.commit(&digest, 1).await.unwrap();
            let file = file(&local.blob(&digest).await.unwrap().unwrap());
            inodes.push(std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap()));
        }
        assert_eq!(inodes[0], inodes[1]);
        assert!(local.uploads().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_upload_has_one_writer_at_a_time() {
        let (_dir, local) = storage();
        let other_process = local.clone();
        let id = UploadId::from_random([1; 16]);
        local.begin_upload(&id, Bytes::new()).await.unwrap();
        let first = local.open_upload(&id).await.unwrap().unwrap();
        assert!(matches!(other_process.open_upload(&id).await, Err(Error::Busy { .. })));
        first.writer.discard().await.unwrap();
        assert!(other_process.open_upload(&id).await.unwrap().is_none());
    }

    #[test]
    fn many_may_open_a_new_storage_at_once() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| Local::open(&dir.path().join("root")).unwrap());
                }
            });
        }
    }

    #[tokio::test]
    async fn foreign_and_newer_storages_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("version"), "rregistry storage 2\n").unwrap();
        let error = Local::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error}");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("photo.jpg"), "").unwrap();
        assert!(matches!(Local::open(dir.path()), Err(Error::Format { .. })));
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }
}

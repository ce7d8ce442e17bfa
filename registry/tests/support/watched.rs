//! A storage that somebody watches: before each operation, the watcher may do
//! something, or stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use oci::Digest;
use registry::storage::{
    Blob, Error, Key, Opened, Prefix, Result, Stamp, Storage, Stray, UploadId, Writer,
};

/// Who watches.
pub(crate) trait Watch: Send + Sync + 'static {
    /// Comes before each operation that only reads.
    fn read(&self) -> impl Future<Output = Result<()>> + Send;

    /// Comes before each operation that writes.
    fn write(&self) -> impl Future<Output = Result<()>> + Send;

    /// Whether uploads can be listed: a server looks at them on its own account.
    fn lists_uploads(&self) -> bool;
}

/// Allows so many writes, and fails everything after the last one.
pub(crate) struct Writes {
    done: AtomicUsize,
    allowed: usize,
    lists_uploads: bool,
}

impl Writes {
    pub(crate) fn allow(allowed: usize, lists_uploads: bool) -> Arc<Self> {
        Arc::new(Self { done: AtomicUsize::new(0), allowed, lists_uploads })
    }

    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    fn stopped() -> Error {
        Error::from_io("reach", "the storage", std::io::Error::other("it has stopped"))
    }
}

impl Watch for Writes {
    async fn read(&self) -> Result<()> {
        match self.done.load(Ordering::SeqCst) > self.allowed {
            true => Err(Self::stopped()),
            false => Ok(()),
        }
    }

    async fn write(&self) -> Result<()> {
        match self.done.fetch_add(1, Ordering::SeqCst) >= self.allowed {
            true => Err(Self::stopped()),
            false => Ok(()),
        }
    }

    fn lists_uploads(&self) -> bool {
        self.lists_uploads
    }
}

/// A directory in memory where the machine has one: laws about the order of
/// operations need no disk, and take hundreds of storages.
pub(crate) fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A storage that is watched.
pub(crate) struct Watched<S, W> {
    inner: S,
    watch: Arc<W>,
}

impl<S, W> Watched<S, W> {
    pub(crate) fn new(inner: S, watch: Arc<W>) -> Self {
        Self { inner, watch }
    }
}

pub(crate) struct WatchedWriter<S, W> {
    inner: S,
    watch: Arc<W>,
}

impl<S: Storage, W: Watch> Storage for Watched<S, W> {
    type Writer = WatchedWriter<S::Writer, W>;

    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        self.watch.read().await?;
        self.inner.get(key).await
    }

    async fn stamp(&self, key: &Key) -> Result<Option<Stamp>> {
        self.watch.read().await?;
        self.inner.stamp(key).await
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<()> {
        self.watch.write().await?;
        self.inner.put(key, value).await
    }

    async fn put_new(&self, key: &Key, value: Bytes) -> Result<bool> {
        self.watch.write().await?;
        self.inner.put_new(key, value).await
    }

    /// A bucket writes marks one by one: it may stop between any two.
    async fn mark(&self, keys: Vec<Key>) -> Result<()> {
        for key in keys {
            self.watch.write().await?;
            self.inner.mark(vec![key]).await?;
        }
        Ok(())
    }

    async fn delete(&self, key: &Key) -> Result<bool> {
        self.watch.write().await?;
        self.inner.delete(key).await
    }

    async fn delete_if(&self, key: &Key, expected: Bytes) -> Result<bool> {
        self.watch.write().await?;
        self.inner.delete_if(key, expected).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        self.watch.read().await?;
        self.inner.list(prefix, after, limit).await
    }

    async fn blob(&self, digest: &Digest) -> Result<Option<Blob>> {
        self.watch.read().await?;
        self.inner.blob(digest).await
    }

    async fn remove_blob(&self, digest: &Digest) -> Result<bool> {
        self.watch.write().await?;
        self.inner.remove_blob(digest).await
    }

    async fn begin_upload(&self, id: &UploadId, record: Bytes) -> Result<()> {
        self.watch.write().await?;
        self.inner.begin_upload(id, record).await
    }

    async fn peek_upload(&self, id: &UploadId) -> Result<Option<(Bytes, u64)>> {
        self.watch.read().await?;
        self.inner.peek_upload(id).await
    }

    async fn open_upload(&self, id: &UploadId) -> Result<Option<Opened<Self::Writer>>> {
        self.watch.read().await?;
        let opened = self.inner.open_upload(id).await?;
        Ok(opened.map(|Opened { record, size, writer }| {
            let writer = WatchedWriter { inner: writer, watch: Arc::clone(&self.watch) };
            Opened { record, size, writer }
        }))
    }

    async fn uploads(&self) -> Result<Vec<UploadId>> {
        match self.watch.lists_uploads() {
            true => {
                self.watch.read().await?;
                self.inner.uploads().await
            }
            false => Ok(Vec::new()),
        }
    }

    async fn sweep(&self) -> Result<()> {
        Ok(())
    }

    async fn sweep_strays(&self, written_before_s: u64, dry_run: bool) -> Result<Stray> {
        self.watch.write().await?;
        self.inner.sweep_strays(written_before_s, dry_run).await
    }
}

impl<S: Writer, W: Watch> Writer for WatchedWriter<S, W> {
    const CHECKPOINT_BYTES: u64 = S::CHECKPOINT_BYTES;

    async fn write(&mut self, offset: u64, chunks: &[Bytes]) -> Result<()> {
        self.watch.write().await?;
        self.inner.write(offset, chunks).await
    }

    async fn save(&mut self, record: Bytes) -> Result<()> {
        self.watch.write().await?;
        self.inner.save(record).await
    }

    async fn content(&mut self, size: u64) -> Result<Blob> {
        self.watch.read().await?;
        self.inner.content(size).await
    }

    async fn publish(&mut self, digest: &Digest, size: u64) -> Result<()> {
        self.watch.write().await?;
        self.inner.publish(digest, size).await
    }

    async fn end(self) -> Result<()> {
        self.watch.write().await?;
        self.inner.end().await
    }

    async fn discard(self) -> Result<()> {
        self.watch.write().await?;
        self.inner.discard().await
    }
}

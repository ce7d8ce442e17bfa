//! An object that grows in parts: all that one request brings, however much.
//!
//! Only the request that began it writes to it, and nobody sees it before it is finished. One that
//! is dropped is abandoned; a crash leaves parts that only the store knows of, which is what a
//! bucket's rule for incomplete multipart uploads is for.

use std::sync::Arc;

use bytes::Bytes;
use object_store::MultipartId;
use object_store::multipart::PartId;

use super::super::Result;
use super::objects::Objects;
use super::segments::Segment;

/// How long each part is but the last: the smallest that S3 takes. Some stores want all of them
/// to be equal.
pub(super) const PART_BYTES: usize = 5 << 20;

/// How many parts S3 allows: 48 GiB.
const MAX_PARTS: usize = 10_000;

#[derive(Debug)]
pub(super) struct Growing {
    objects: Arc<Objects>,
    key: String,
    segment: Segment,
    id: MultipartId,
    parts: Vec<PartId>,
    is_finished: bool,
}

impl Growing {
    /// Begins the object `key`, which will be the segment `name`.
    pub(super) async fn begin(objects: &Arc<Objects>, key: String, name: String) -> Result<Self> {
        let id = objects.begin_parts(&key).await?;
        Ok(Self {
            objects: Arc::clone(objects),
            key,
            segment: Segment { name, size: 0 },
            id,
            parts: Vec::new(),
            is_finished: false,
        })
    }

    /// Returns how many bytes there are.
    pub(super) fn size(&self) -> u64 {
        self.segment.size
    }

    /// Whether no part but the last may follow.
    pub(super) fn is_full(&self) -> bool {
        self.parts.len() + 1 >= MAX_PARTS
    }

    /// Adds a part of [`PART_BYTES`], or a shorter one as the last.
    pub(super) async fn push(&mut self, part: Bytes) -> Result<()> {
        let size = part.len() as u64;
        let stored = self.objects.put_part(&self.key, &self.id, self.parts.len(), part).await?;
        self.parts.push(stored);
        self.segment.size += size;
        Ok(())
    }

    /// Makes it an object.
    pub(super) async fn finish(mut self) -> Result<Segment> {
        let parts = std::mem::take(&mut self.parts);
        self.objects.complete_parts(&self.key, &self.id, parts).await?;
        self.is_finished = true;
        Ok(self.segment.clone())
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (objects, key, id) = (Arc::clone(&self.objects), self.key.clone(), self.id.clone());
        runtime.spawn(async move {
            if let Err(error) = objects.abandon_parts(&key, &id).await {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(key, error, "parts of an object are left");
            }
        });
    }
}

//! Content in segments: the pieces in which an upload arrived.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use url::Url;

use super::super::{Result, UploadId};
use super::objects::Objects;

/// How much of a segment is asked for at a time; a reader holds two of these.
/// A round trip for each mebibyte costs less than the network takes for it.
const READ_BYTES: u64 = 1 << 20;

/// A piece of content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Segment {
    /// The key below `seg/<upload>/`.
    pub(super) name: String,
    pub(super) size: u64,
}

/// What content is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SegmentList {
    pub(super) size: u64,
    /// The upload in which the segments came.
    upload: String,
    pub(super) segments: Vec<Segment>,
}

impl SegmentList {
    pub(super) fn new(upload: UploadId) -> Self {
        Self { size: 0, upload: upload.to_string(), segments: Vec::new() }
    }

    /// Reads a list, or returns `None` for anything else.
    pub(super) fn decode(text: &[u8]) -> Option<Self> {
        let list: Self = serde_json::from_slice(text).ok()?;
        list.upload.parse::<UploadId>().ok()?;
        let size = list.segments.iter().try_fold(0u64, |sum, next| sum.checked_add(next.size))?;
        (size == list.size).then_some(list)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers always serialize")
    }

    pub(super) fn push(&mut self, segment: Segment) {
        self.size += segment.size;
        self.segments.push(segment);
    }

    /// Whether the segments came in the same upload.
    pub(super) fn is_of(&self, upload: UploadId) -> bool {
        self.upload == upload.to_string()
    }

    /// Returns the upload in which the segments came.
    pub(super) fn upload(&self) -> Option<UploadId> {
        self.upload.parse().ok()
    }

    /// Returns the key of a segment.
    pub(super) fn key(&self, segment: &Segment) -> String {
        format!("seg/{}/{}", self.upload, segment.name)
    }

    /// Returns the requests that read `range`, in order: key and part of it.
    fn requests(&self, range: &Range<u64>) -> Vec<(String, Range<u64>)> {
        let mut requests = Vec::new();
        let mut begin = 0;
        for segment in &self.segments {
            let end = begin + segment.size;
            let mut from = range.start.max(begin);
            let last = range.end.min(end);
            while from < last {
                let to = last.min(from + READ_BYTES);
                requests.push((self.key(segment), from - begin..to - begin));
                from = to;
            }
            begin = end;
        }
        requests
    }
}

/// Content in a bucket, opened for reading.
#[derive(Clone, Debug)]
pub struct Segments {
    objects: Arc<Objects>,
    list: Arc<SegmentList>,
}

impl Segments {
    pub(super) fn new(objects: Arc<Objects>, list: SegmentList) -> Self {
        Self { objects, list: Arc::new(list) }
    }

    /// Returns where the client can fetch all of it, if it should.
    ///
    /// # Errors
    /// When the address cannot be signed.
    pub async fn redirect(&self) -> Result<Option<Url>> {
        match (self.objects.redirects(), &*self.list.segments) {
            (Some(redirects), [only]) if only.size >= redirects.from_bytes => {
                redirects.sign(&self.list.key(only)).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Reads a part, one piece ahead of the reader.
    pub fn read(&self, range: &Range<u64>) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let objects = Arc::clone(&self.objects);
        futures_util::stream::iter(self.list.requests(range))
            .map(move |(key, part)| {
                let objects = Arc::clone(&objects);
                async move { objects.range(&key, part).await }
            })
            .buffered(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_from_the_segments_it_touches() {
        let id = UploadId::from_random([0; 16]);
        let mut list = SegmentList::new(id);
        for (name, size) in [("a", 10), ("b", 0), ("c", READ_BYTES + 5)] {
            list.push(Segment { name: name.to_owned(), size });
        }
        let read = |range: Range<u64>| -> Vec<(String, Range<u64>)> {
            let requests = list.requests(&range);
            let name = |key: &str| key.rsplit('/').next().unwrap().to_owned();
            requests.into_iter().map(|(key, part)| (name(&key), part)).collect()
        };
        let piece = |name: &str, part: Range<u64>| (name.to_owned(), part);
        assert_eq!(read(0..10), [piece("a", 0..10)]);
        assert_eq!(read(9..11), [piece("a", 9..10), piece("c", 0..1)]);
        assert_eq!(
            read(10..list.size),
            [piece("c", 0..READ_BYTES), piece("c", READ_BYTES..READ_BYTES + 5)]
        );
        assert_eq!(read(5..5), []);
    }

    #[test]
    fn lists_that_contradict_themselves_are_refused() {
        let id = UploadId::from_random([0; 16]);
        let mut list = SegmentList::new(id);
        list.push(Segment { name: "a".to_owned(), size: 10 });
        assert!(SegmentList::decode(&list.encode()).is_some_and(|read| read.is_of(id)));
        list.size = 11;
        assert!(SegmentList::decode(&list.encode()).is_none());
        assert!(SegmentList::decode(b"{}").is_none());
    }
}

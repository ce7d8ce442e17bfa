//! Uploads in a bucket: bytes as segments, and a session that lists them.
//!
//! Within a process one request at a time has an upload open. Between replicas
//! the session decides: it is replaced only by who has seen its last version,
//! so that of two requests one fails before anything is acknowledged. On a
//! store that cannot do this the later session stays; its list and its hash
//! state belong together, so that content is right in any case. There nothing
//! that a session ever listed is deleted, because another may still list it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::{Error as StoreError, PutMode, UpdateVersion};
use oci::Digest;
use serde::{Deserialize, Serialize};

use super::super::{Blob, Error, Key, Opened, Result, UploadId, Writer};
use super::growing::{Growing, PART_BYTES};
use super::objects::{self, Objects};
use super::segments::{Segment, SegmentList};

/// What all uploads of a process may hold in memory before it is sent, in bytes.
const BUFFER_BYTES: usize = 32 << 20;

/// The smallest full segment, where there are too many uploads for parts: below
/// this the round trip takes longer than the bytes.
const MIN_SEGMENT_BYTES: usize = 512 << 10;

/// How many segments an upload may have. The list is read for each pull, and is
/// then half a mebibyte.
const MAX_SEGMENTS: usize = 8192;

/// How often a blob that was there is looked for again when it is gone.
const MAX_PUBLICATIONS: usize = 8;

/// How long a request waits for another one to let go of an upload.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often it looks.
const POLL: Duration = Duration::from_millis(20);

/// What stands on the first line of a session.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    list: SegmentList,
    /// This blob may be made of the segments already: they must not be deleted, nor
    /// may another blob be made of them.
    closing: Option<Digest>,
}

/// A session as it is stored.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) list: SegmentList,
    pub(super) record: Bytes,
    closing: Option<Digest>,
    version: UpdateVersion,
}

fn session_key(id: UploadId) -> String {
    format!("up/{id}/session")
}

fn encode(list: &SegmentList, closing: Option<Digest>, record: &[u8]) -> Bytes {
    let head = Head { list: list.clone(), closing };
    let mut text = serde_json::to_vec(&head).expect("text and numbers always serialize");
    text.push(b'\n');
    text.extend_from_slice(record);
    text.into()
}

pub(super) async fn begin(objects: &Objects, id: UploadId, record: &[u8]) -> Result<()> {
    let session = encode(&SegmentList::new(id), None, record);
    objects.put(&session_key(id), session, PutMode::Overwrite).await?;
    Ok(())
}

pub(super) async fn read(objects: &Objects, id: UploadId) -> Result<Option<Session>> {
    let key = session_key(id);
    let Some((text, version)) = objects.get(&key).await? else { return Ok(None) };
    let decoded = text.iter().position(|byte| *byte == b'\n').and_then(|end| {
        let head: Head = serde_json::from_slice(&text[..end]).ok()?;
        Some((head, text.slice(end + 1..)))
    });
    let (head, record) = decoded.ok_or_else(|| Error::Format {
        place: key,
        reason: "the session of an upload cannot be read".to_owned(),
    })?;
    Ok(Some(Session { list: head.list, record, closing: head.closing, version }))
}

type OpenUploads = Arc<Mutex<BTreeSet<UploadId>>>;

/// Marks an upload as open in this process until it is dropped.
#[derive(Debug)]
struct Claim {
    id: UploadId,
    open: OpenUploads,
}

impl Claim {
    async fn take(open: &OpenUploads, id: UploadId) -> Result<Self> {
        let mut patience = PATIENCE;
        while !open.lock().expect("nothing panics while it holds the lock").insert(id) {
            if patience.is_zero() {
                return Err(Error::Busy { id });
            }
            tokio::time::sleep(POLL).await;
            patience = patience.saturating_sub(POLL);
        }
        Ok(Self { id, open: Arc::clone(open) })
    }

    /// Returns how much may wait in memory beside the other uploads.
    fn buffer_bytes(&self) -> usize {
        let open = self.open.lock().expect("nothing panics while it holds the lock").len();
        (BUFFER_BYTES / open.max(1)).clamp(MIN_SEGMENT_BYTES, PART_BYTES)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.open.lock().expect("nothing panics while it holds the lock").remove(&self.id);
    }
}

pub(super) async fn open(
    objects: &Arc<Objects>,
    open: &OpenUploads,
    id: UploadId,
) -> Result<Option<Opened<BucketWriter>>> {
    let claim = Claim::take(open, id).await?;
    let Some(session) = read(objects, id).await? else { return Ok(None) };
    let size = session.list.size;
    let record = session.record.clone();
    let objects = Arc::clone(objects);
    let (buffer, growing, fate) = (BytesMut::new(), None, Fate::Open);
    let writer = BucketWriter { objects, claim, session, growing, buffer, fate };
    Ok(Some(Opened { record, size, writer }))
}

/// An upload that one request has opened.
#[derive(Debug)]
pub struct BucketWriter {
    objects: Arc<Objects>,
    claim: Claim,
    session: Session,
    /// The segment that this request makes.
    growing: Option<Growing>,
    /// What has come since the last segment or part.
    buffer: BytesMut,
    fate: Fate,
}

/// What became of an upload's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing yet.
    Open,
    /// There was a blob like them; an earlier request may still have made one of
    /// ours if it was closing the upload.
    Unknown { was_closing: bool },
    /// A blob was made of them earlier.
    Found,
    /// A blob was made of them just now: it is young, and no collector takes it.
    Made,
}

impl BucketWriter {
    /// Forgets what was received beyond `size`.
    ///
    /// Segments and parts are kept whole or not at all, so that an object has no
    /// more bytes than its list says.
    fn cut(&mut self, size: u64) -> Result<()> {
        let stored = self.session.list.size + self.growing.as_ref().map_or(0, Growing::size);
        if size >= stored {
            self.buffer.truncate(usize::try_from(size - stored).unwrap_or(usize::MAX));
            return Ok(());
        }
        self.buffer.clear();
        drop(self.growing.take());
        let list = &mut self.session.list;
        while list.size > size
            && let Some(last) = list.segments.pop()
        {
            list.size -= last.size;
        }
        match list.size == size {
            true => Ok(()),
            false => Err(self.cannot_continue(format!("byte {size} is within one of its pieces"))),
        }
    }

    fn cannot_continue(&self, reason: String) -> Error {
        let place = format!("upload {}", self.claim.id);
        Error::from_io("continue", place, std::io::Error::other(reason))
    }

    /// Returns a new segment without content, unless there are too many.
    fn new_segment(&self) -> Result<Segment> {
        if self.session.list.segments.len() >= MAX_SEGMENTS {
            let reason = format!("it comes in more than {MAX_SEGMENTS} pieces");
            return Err(self.cannot_continue(reason));
        }
        Ok(Segment { name: self.objects.unique_name(), size: 0 })
    }

    /// Stores a full buffer: as a part, where parts fit into memory.
    async fn spill(&mut self) -> Result<()> {
        if self.buffer.len() < PART_BYTES || self.growing.as_ref().is_some_and(Growing::is_full) {
            return self.flush().await;
        }
        let growing = match &mut self.growing {
            Some(growing) => growing,
            None => {
                let segment = self.new_segment()?;
                let key = self.session.list.key(&segment);
                let begun = Growing::begin(&self.objects, key, segment.name).await?;
                self.growing.insert(begun)
            }
        };
        growing.push(self.buffer.split().freeze()).await
    }

    /// Makes a segment of what has come since the last one.
    async fn flush(&mut self) -> Result<()> {
        let bytes = self.buffer.split().freeze();
        let segment = match self.growing.take() {
            Some(mut growing) => {
                if !bytes.is_empty() {
                    growing.push(bytes).await?;
                }
                growing.finish().await?
            }
            None if bytes.is_empty() => return Ok(()),
            None => {
                let segment = Segment { size: bytes.len() as u64, ..self.new_segment()? };
                let key = self.session.list.key(&segment);
                self.objects.put(&key, bytes, PutMode::Overwrite).await?;
                segment
            }
        };
        self.session.list.push(segment);
        Ok(())
    }

    /// Replaces the session, if nobody else has.
    async fn save_session(&mut self) -> Result<()> {
        let Session { list, record, closing, version } = &self.session;
        let mode = match self.objects.promises().put_if_unchanged {
            true => PutMode::Update(version.clone()),
            false => PutMode::Overwrite,
        };
        let key = session_key(self.claim.id);
        match self.objects.try_put(&key, encode(list, *closing, record), mode).await {
            Ok(version) => self.session.version = version,
            Err(StoreError::Precondition { .. } | StoreError::NotFound { .. }) => {
                return Err(Error::Busy { id: self.claim.id });
            }
            Err(source) => return Err(objects::fail("write", &key, source)),
        }
        Ok(())
    }

    /// Deletes segments, if nobody else can need them.
    async fn delete_segments(&self, list: &SegmentList, may_be_a_blob: bool) -> Result<()> {
        if may_be_a_blob || !self.objects.promises().put_if_unchanged {
            return Ok(());
        }
        for segment in &list.segments {
            self.objects.delete(&list.key(segment)).await?;
        }
        Ok(())
    }
}

impl Writer for BucketWriter {
    /// A checkpoint ends a segment, and a blob of one segment is worth more than
    /// what a crash costs: most clients begin anew after one in any case.
    const CHECKPOINT_BYTES: u64 = 16 << 30;

    async fn write(&mut self, offset: u64, chunks: &[Bytes]) -> Result<()> {
        self.cut(offset)?;
        for chunk in chunks {
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let limit = self.claim.buffer_bytes();
                let room = limit.saturating_sub(self.buffer.len()).min(rest.len());
                self.buffer.extend_from_slice(&rest[..room]);
                rest = &rest[room..];
                if self.buffer.len() >= limit {
                    self.spill().await?;
                }
            }
        }
        Ok(())
    }

    async fn save(&mut self, record: Bytes) -> Result<()> {
        self.flush().await?;
        self.session.record = record;
        self.save_session().await
    }

    async fn content(&mut self, size: u64) -> Result<Blob> {
        self.flush().await?;
        let blob = self.objects.blob(self.session.list.clone());
        Ok(Blob { size, ..blob })
    }

    async fn publish(&mut self, digest: &Digest, size: u64) -> Result<()> {
        let key = Key::data(digest);
        if self.fate == Fate::Made
            || (self.fate != Fate::Open && self.objects.stamp(key.as_str()).await?.is_some())
        {
            return Ok(());
        }
        if self.fate == Fate::Open {
            self.cut(size)?;
            self.flush().await?;
            let before = self.session.closing.replace(*digest);
            if let Some(other) = before.filter(|before| before != digest) {
                return Err(Error::Format {
                    place: format!("upload {}", self.claim.id),
                    reason: format!("{other} may have been made of it"),
                });
            }
            // From here on no other request can end the upload and drop its segments.
            self.save_session().await?;
            self.fate = Fate::Unknown { was_closing: before.is_some() };
        }
        for _ in 0..MAX_PUBLICATIONS {
            let list = self.session.list.encode();
            if self.objects.put_new(key.as_str(), list.into()).await? {
                self.fate = Fate::Made;
                return Ok(());
            }
            let Some((text, _)) = self.objects.get(key.as_str()).await? else { continue };
            // Ours may be there already: a request that crashed here before.
            let is_ours = SegmentList::decode(&text).is_none_or(|list| list.is_of(self.claim.id));
            if is_ours {
                self.fate = Fate::Found;
            }
            return Ok(());
        }
        Err(Error::Busy { id: self.claim.id })
    }

    async fn end(self) -> Result<()> {
        if let Fate::Unknown { was_closing } = self.fate {
            self.delete_segments(&self.session.list, was_closing).await?;
        }
        self.objects.delete(&session_key(self.claim.id)).await
    }

    async fn discard(mut self) -> Result<()> {
        // Without its segments the upload begins anew, should this be cut short.
        let empty = SegmentList::new(self.claim.id);
        let list = std::mem::replace(&mut self.session.list, empty);
        self.save_session().await?;
        self.delete_segments(&list, self.session.closing.is_some()).await?;
        self.objects.delete(&session_key(self.claim.id)).await
    }
}

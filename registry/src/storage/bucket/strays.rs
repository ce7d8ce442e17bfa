//! Segments that belong to no blob and no upload: what crashes leave, and what
//! cancelled uploads leave where a store ignores conditions.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _};

use super::super::{Mark, Result, Stray, UploadId};
use super::objects::{Found, Objects};
use super::segments::SegmentList;
use super::upload;
use crate::storage::Key;

/// How many keys are listed at a time: what one request to a store returns.
const KEYS_PER_LIST: usize = 1000;

/// How many uploads are looked at in one pass over the blobs. Each holds some
/// hundred bytes in memory; a storage with more takes several passes.
const UPLOADS_PER_PASS: usize = 100_000;

/// How many records are read at a time.
const PARALLEL_READS: usize = 16;

/// Removes stray segments written before `written_before_s`.
///
/// An upload's session goes only after the blob's record is there. So whoever
/// sees segments, then no session, and then no record, sees strays.
pub(super) async fn sweep(
    objects: &Objects,
    written_before_s: u64,
    dry_run: bool,
) -> Result<Stray> {
    let mut total = Stray::default();
    let mut after = String::new();
    loop {
        let mut uploads = BTreeMap::new();
        after = ended_uploads(objects, written_before_s, after, &mut uploads).await?;
        if !uploads.is_empty() {
            forget_blobs(objects, &mut uploads).await?;
            remove(objects, &uploads, written_before_s, dry_run, &mut total).await?;
        }
        if after.is_empty() {
            return Ok(total);
        }
    }
}

/// What is known of an upload that has ended: segments that are not stray.
#[derive(Default)]
struct Ended {
    segments: u64,
    in_use: BTreeSet<String>,
}

fn upload_of(found: &Found) -> Option<UploadId> {
    found.key.split_once('/')?.0.parse().ok()
}

/// Finds uploads without a session that have old segments, and returns the key
/// after which to go on, empty at the end.
async fn ended_uploads(
    objects: &Objects,
    written_before_s: u64,
    mut after: String,
    uploads: &mut BTreeMap<UploadId, Ended>,
) -> Result<String> {
    let mut running = None;
    loop {
        let listed = objects.found("seg/", &after, KEYS_PER_LIST).await?;
        for found in &listed {
            let Some(id) = upload_of(found) else { continue };
            if let Some(ended) = uploads.get_mut(&id) {
                ended.segments += 1;
            } else if running != Some(id) && found.written_s < written_before_s {
                match upload::read(objects, id).await {
                    Ok(None) => drop(uploads.insert(id, Ended { segments: 1, ..Ended::default() })),
                    // A session that cannot be read expires by itself.
                    Ok(Some(_)) | Err(_) => running = Some(id),
                }
            }
        }
        match listed.last() {
            Some(last) if listed.len() == KEYS_PER_LIST => after.clone_from(&last.key),
            _ => return Ok(String::new()),
        }
        if uploads.len() >= UPLOADS_PER_PASS {
            return Ok(after);
        }
    }
}

/// Finds out which segments blobs are made of.
async fn forget_blobs(objects: &Objects, uploads: &mut BTreeMap<UploadId, Ended>) -> Result<()> {
    let mut after = String::new();
    loop {
        let listed = objects.list("blob/", &after, KEYS_PER_LIST).await?;
        let mut keys = Vec::new();
        for listed in &listed {
            if let Some((digest, Mark::Data)) = Mark::of(listed) {
                keys.push(Key::data(&digest));
            }
        }
        let records: Vec<_> = futures_util::stream::iter(keys)
            .map(async |key| objects.get(key.as_str()).await)
            .buffer_unordered(PARALLEL_READS)
            .try_collect()
            .await?;
        for (record, _) in records.into_iter().flatten() {
            let Some(list) = SegmentList::decode(&record) else { continue };
            let Some(id) = list.upload() else { continue };
            let Some(ended) = uploads.get_mut(&id) else { continue };
            if ended.segments == list.segments.len() as u64 {
                uploads.remove(&id); // all of them are in use, as nearly always
            } else {
                ended.in_use.extend(list.segments.into_iter().map(|segment| segment.name));
            }
        }
        match listed.into_iter().next_back() {
            Some(last) => after = last,
            None => return Ok(()),
        }
    }
}

async fn remove(
    objects: &Objects,
    uploads: &BTreeMap<UploadId, Ended>,
    written_before_s: u64,
    dry_run: bool,
    total: &mut Stray,
) -> Result<()> {
    for (id, ended) in uploads {
        let prefix = format!("seg/{id}/");
        for found in objects.found(&prefix, "", usize::MAX).await? {
            if ended.in_use.contains(&found.key) || found.written_s >= written_before_s {
                continue;
            }
            if !dry_run {
                objects.delete(&format!("{prefix}{}", found.key)).await?;
            }
            total.count += 1;
            total.bytes += found.size;
        }
    }
    Ok(())
}

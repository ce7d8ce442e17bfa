//! Blobs: read, and compared with their names.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use futures_util::StreamExt as _;
use oci::Digest;

use super::super::KEYS_PER_LIST;
use super::super::round::Round;
use super::{Check, MAX_DAMAGED, Problem};
use crate::content::{Result, rehash};
use crate::storage::{self, Key, Mark, Prefix, Storage};

/// How many blobs are read at the same time.
const PARALLEL: usize = 4;

/// What reading a blob has shown.
enum Verdict {
    Sound(u64),
    Gone,
    Damaged(String),
    Unreadable(String),
}

impl<S: Storage> Check<'_, S> {
    /// Reads every blob.
    pub(super) async fn blobs(&mut self) -> Result<()> {
        let mut after: Option<String> = None;
        loop {
            let storage = self.registry.storage();
            let listed = storage.list(&Prefix::blobs(), after.as_deref(), KEYS_PER_LIST).await?;
            let digests: Vec<Digest> = listed
                .iter()
                .filter_map(|listed| match Mark::of(listed)? {
                    (digest, Mark::Data) => Some(digest),
                    _ => None,
                })
                .collect();
            let mut verdicts = futures_util::stream::iter(digests)
                .map(async |digest| (digest, judge(storage, &digest).await))
                .buffered(PARALLEL);
            while let Some((digest, verdict)) = verdicts.next().await {
                self.conclude(digest, verdict?).await?;
            }
            match listed.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    async fn conclude(&mut self, digest: Digest, verdict: Verdict) -> Result<()> {
        let reason = match verdict {
            Verdict::Gone => return Ok(()),
            Verdict::Sound(bytes) => {
                self.report.blobs.add(bytes);
                return Ok(());
            }
            Verdict::Unreadable(reason) => {
                self.lost(Problem::BlobUnreadable { digest, reason }, None);
                return Ok(());
            }
            Verdict::Damaged(reason) => reason,
        };
        if self.damaged.len() < MAX_DAMAGED {
            self.damaged.insert(digest);
        }
        let repair = if self.options.repair {
            // Pushes that bring it back right now must see it gone.
            let round = Round::begin(self.registry, &BTreeSet::from([digest])).await?;
            let removed = self.registry.storage().remove_blob(&digest).await?;
            round.end().await?;
            removed.then_some("removed: push it again")
        } else {
            None
        };
        self.lost(Problem::BlobDamaged { digest, reason }, repair);
        Ok(())
    }
}

async fn judge<S: Storage>(storage: &S, digest: &Digest) -> Result<Verdict> {
    let place = Key::data(digest).to_string();
    let blob = match storage.blob(digest).await {
        Ok(Some(blob)) => blob,
        Ok(None) => return Ok(Verdict::Gone),
        Err(storage::Error::Format { reason, .. }) => return Ok(Verdict::Damaged(reason)),
        Err(storage::Error::Io { source, .. }) => {
            return Ok(Verdict::Unreadable(source.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    let size = blob.size;
    match rehash(blob, digest.algorithm(), &place).await {
        Ok(actual) if actual == *digest => Ok(Verdict::Sound(size)),
        Ok(actual) => Ok(Verdict::Damaged(format!("its {size} bytes are {actual}"))),
        Err(error) => match &error {
            storage::Error::Io { source, .. } => match source.kind() {
                // A part is gone, or the whole: a collector may have come by.
                ErrorKind::NotFound | ErrorKind::UnexpectedEof => {
                    match storage.blob(digest).await {
                        Ok(None) => Ok(Verdict::Gone),
                        _ => Ok(Verdict::Damaged("a part of it is gone".to_owned())),
                    }
                }
                _ => Ok(Verdict::Unreadable(source.to_string())),
            },
            _ => Err(error.into()),
        },
    }
}

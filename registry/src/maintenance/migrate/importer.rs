//! Bringing the content of one repository in, bottom up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use oci::{Digest, Document, Repository, Tag};

use super::source::Source;
use super::{Error, MigrateReport, Result};
use crate::content::{
    self, Conditions, Links, MAX_TAGS_PER_PUT, ManifestReference, PutManifest, Registry, TagRecord,
    UploadRef,
};
use crate::storage::{Key, Storage};

/// How much of a blob is read at a time.
const READ_BYTES: usize = 512 << 10;

/// How deep indexes may lie within each other.
const MAX_DEPTH: usize = 16;

/// How many blobs are remembered as read, so that the next repository that has
/// one need not read it again; about 20 MiB of names.
const MAX_REMEMBERED: usize = 200_000;

/// What a repository lists: manifests, and the tags of each.
pub(super) struct Wanted {
    pub(super) manifests: BTreeMap<Digest, Vec<Tag>>,
}

/// What became of a manifest.
enum Step {
    /// It is in, or can never be.
    Done,
    /// It lists these, which must come first.
    After(Vec<Digest>),
}

/// Brings content into a registry and keeps count.
pub(super) struct Importer<'a, S> {
    registry: &'a Registry<S>,
    report: MigrateReport,
    /// Blobs of the folder that were read and are what their names say.
    read: BTreeSet<Digest>,
    tell: &'a mut (dyn FnMut(String) + Send + Sync),
}

impl<'a, S: Storage> Importer<'a, S> {
    pub(super) fn new(
        registry: &'a Registry<S>,
        tell: &'a mut (dyn FnMut(String) + Send + Sync),
    ) -> Self {
        Self { registry, report: MigrateReport::default(), read: BTreeSet::new(), tell }
    }

    pub(super) fn report(self) -> MigrateReport {
        self.report
    }

    /// Says that something cannot be brought in.
    pub(super) fn complain(&mut self, what: String) {
        self.report.problems += 1;
        (self.tell)(what);
    }

    /// Says that something cannot be read.
    pub(super) fn fail(&mut self, error: &Error) {
        let cause = std::error::Error::source(error);
        self.complain(match cause {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        });
    }

    /// Brings in what a repository lists: children before the index that lists
    /// them.
    pub(super) async fn import(
        &mut self,
        source: &Source<'_>,
        repository: &Repository,
        wanted: Wanted,
    ) -> Result<()> {
        self.report.repositories += 1;
        let tags = wanted.manifests;
        let mut ended = BTreeSet::new();
        for digest in tags.keys() {
            // What is above must come before, with how deep it lies.
            let mut stack = vec![(*digest, 0)];
            while let Some((next, depth)) = stack.last().copied() {
                if ended.contains(&next) {
                    stack.pop();
                    continue;
                }
                let names = tags.get(&next).map_or(&[][..], Vec::as_slice);
                match self.manifest(source, repository, &next, names, &ended).await? {
                    Step::After(children) if depth < MAX_DEPTH => {
                        stack.extend(children.into_iter().map(|child| (child, depth + 1)));
                    }
                    Step::After(_) => {
                        self.complain(format!("{repository}@{next} lies too deep in indexes"));
                        ended.insert(next);
                    }
                    Step::Done => drop(ended.insert(next)),
                }
            }
        }
        Ok(())
    }

    /// Brings in a manifest, if all that must come before it has `ended`.
    async fn manifest(
        &mut self,
        source: &Source<'_>,
        repository: &Repository,
        digest: &Digest,
        tags: &[Tag],
        ended: &BTreeSet<Digest>,
    ) -> Result<Step> {
        let name = format!("{repository}@{digest}");
        let body = match source.manifest(digest) {
            Ok(Some(body)) => body,
            Ok(None) => {
                self.complain(format!("{name} is not in the folder"));
                return Ok(Step::Done);
            }
            Err(error) => {
                self.fail(&error);
                return Ok(Step::Done);
            }
        };
        let actual = Digest::of(digest.algorithm(), &body);
        if actual != *digest {
            self.complain(format!("{name} is damaged: its content is {actual}"));
            return Ok(Step::Done);
        }
        let document = match Document::parse(&body, None) {
            Ok(document) => document,
            Err(error) => {
                self.complain(format!("{name}: {error}"));
                return Ok(Step::Done);
            }
        };
        let is_manifest = |child: &&oci::Descriptor| {
            child.media_type.is_manifest() || child.media_type.is_index()
        };
        let first: Vec<Digest> = document
            .manifests()
            .iter()
            .filter(is_manifest)
            .map(|child| child.digest)
            .filter(|child| !ended.contains(child) && source.has_manifest(child))
            .collect();
        if !first.is_empty() {
            return Ok(Step::After(first));
        }
        let manifests: BTreeSet<Digest> =
            document.manifests().iter().filter(is_manifest).map(|child| child.digest).collect();
        let links = Links::of(document);
        for blob in links.needed.iter().filter(|needed| !manifests.contains(needed)) {
            self.blob(source, repository, blob).await?;
        }
        self.put(repository, digest, body.into(), tags).await?;
        Ok(Step::Done)
    }

    /// Brings in a blob. What fails is said; whether a manifest can do without is
    /// decided when that is pushed.
    async fn blob(
        &mut self,
        source: &Source<'_>,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<()> {
        match self.registry.assure_blob(repository, digest).await {
            Ok(_) => {
                self.report.present += 1;
                return Ok(());
            }
            Err(content::Error::BlobUnknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let file = match source.blob(digest) {
            Ok(Some(file)) => file,
            Ok(None) => {
                self.complain(format!("{repository}: blob {digest} is not in the folder"));
                return Ok(());
            }
            Err(error) => {
                self.fail(&error);
                return Ok(());
            }
        };
        // Only a folder that has the bytes may have them for another repository.
        if self.read.contains(digest)
            && self.registry.mount(repository, digest, None, |_| true).await?
        {
            self.report.shared += 1;
            return Ok(());
        }
        self.copy(repository, digest, file).await
    }

    async fn copy(&mut self, repository: &Repository, digest: &Digest, file: File) -> Result<()> {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let owner = "";
        let id = self.registry.begin_upload(repository, owner, Some(digest.algorithm())).await?;
        let upload = UploadRef { id, repository, owner };
        let mut bytes = Box::pin(chunks(file));
        match self.registry.finish_upload(upload, digest, None, &mut bytes).await {
            Ok(()) => {
                self.report.blobs.add(length);
                if self.read.len() < MAX_REMEMBERED {
                    self.read.insert(*digest);
                }
                Ok(())
            }
            Err(content::Error::DigestMismatch { actual, .. }) => {
                self.complain(format!(
                    "{repository}: blob {digest} is damaged: its content is {actual}"
                ));
                Ok(())
            }
            Err(content::Error::Interrupted { source, .. }) => {
                // What came is of no use: the next run reads from the start.
                self.registry.cancel_upload(upload).await?;
                self.complain(format!("{repository}: blob {digest} cannot be read: {source}"));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Pushes a manifest and those of its tags that name nothing else.
    async fn put(
        &mut self,
        repository: &Repository,
        digest: &Digest,
        body: Bytes,
        tags: &[Tag],
    ) -> Result<()> {
        let storage = self.registry.storage();
        let is_new = storage
            .stamp(&Key::manifest(repository, digest))
            .await
            .map_err(content::Error::from)?
            .is_none();
        let tags = self.free_tags(repository, digest, tags).await?;
        if !is_new {
            self.report.present += 1;
            if tags.is_empty() {
                return Ok(());
            }
        }
        // At least once, for a manifest without tags.
        let mut rest = &tags[..];
        loop {
            let (now, later) = rest.split_at(rest.len().min(MAX_TAGS_PER_PUT));
            let put = PutManifest {
                reference: ManifestReference::Digest(*digest),
                tags: now.to_vec(),
                content_type: None,
                conditions: Conditions::default(),
                may_move_tags: false,
                body: body.clone(),
            };
            match self.registry.put_manifest(repository, put).await {
                Ok(_) => self.report.tags += now.len() as u64,
                Err(error @ content::Error::Storage(_)) => return Err(error.into()),
                Err(error) => {
                    self.complain(format!("{repository}@{digest}: {error}"));
                    return Ok(());
                }
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        self.report.manifests += u64::from(is_new);
        Ok(())
    }

    /// Returns the tags that are to be set. One that names something else by now
    /// was moved after an earlier run, and is left alone.
    async fn free_tags(
        &mut self,
        repository: &Repository,
        digest: &Digest,
        tags: &[Tag],
    ) -> Result<Vec<Tag>> {
        let mut free = Vec::new();
        for tag in tags {
            let key = Key::tag(repository, tag);
            let text = self.registry.storage().get(&key).await.map_err(content::Error::from)?;
            let named = text.and_then(|text| serde_json::from_slice::<TagRecord>(&text).ok());
            match named.map(|named| named.digest) {
                None => free.push(tag.clone()),
                Some(named) if named == *digest => self.report.present += 1,
                Some(named) => {
                    self.report.kept_tags += 1;
                    (self.tell)(format!("{repository}:{tag} names {named} by now, and keeps it"));
                }
            }
        }
        Ok(free)
    }
}

/// Reads a file piece by piece, on threads that may block.
fn chunks(
    file: File,
) -> impl Stream<Item = std::result::Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> + Send
{
    futures_util::stream::unfold(Some(file), |file| async {
        let mut file = file?;
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; READ_BYTES];
            let count = file.read(&mut bytes)?;
            bytes.truncate(count);
            Ok::<_, std::io::Error>((Bytes::from(bytes), file))
        })
        .await;
        match read {
            Ok(Ok((bytes, _))) if bytes.is_empty() => None,
            Ok(Ok((bytes, file))) => Some((Ok(bytes), Some(file))),
            Ok(Err(error)) => Some((Err(error.into()), None)),
            Err(failure) => Some((Err(failure.into()), None)),
        }
    })
    .fuse()
}

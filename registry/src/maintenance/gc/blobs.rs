//! Shares and blobs that no manifest needs.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, TryStreamExt as _};
use oci::{Digest, Repository};

use super::{KEYS_PER_LIST, PARALLEL, Removal, Round, Run};
use crate::content::{MAX_ANNOUNCED, Result};
use crate::storage::{self, Key, Mark, Prefix, Storage};

/// How many marks of one digest go in one run. The empty config `{}` may be
/// pinned by every manifest there ever was; what is left goes in the next run.
/// In a round of blobs like that, these are 32 MiB.
const MAX_MARKS: usize = 1024;

/// What of a blob goes.
#[derive(Debug, Default)]
struct Plan {
    /// Repositories that lose their share.
    shares: Vec<Repository>,
    /// Marks that mean nothing any more.
    marks: Vec<Key>,
    /// Whether the bytes go.
    data: bool,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.shares.is_empty() && self.marks.is_empty() && !self.data
    }

    fn is_full(&self) -> bool {
        self.shares.len() + self.marks.len() >= MAX_MARKS
    }
}

/// What the marks that a listing shows of one digest suggest.
#[derive(Default)]
struct Glance {
    digest: Option<Digest>,
    has_data: bool,
    has_owner: bool,
    is_candidate: bool,
    repository: Option<Repository>,
    owns: bool,
    is_pinned: bool,
}

impl Glance {
    /// Ends a repository's marks.
    fn close(&mut self) {
        self.is_candidate |= self.owns && !self.is_pinned;
        self.has_owner |= self.owns;
        (self.owns, self.is_pinned, self.repository) = (false, false, None);
    }

    /// Ends a digest, and returns it if something of it may go.
    fn end(&mut self) -> Option<Digest> {
        self.close();
        let is_candidate = self.is_candidate || (self.has_data && !self.has_owner);
        let digest = self.digest;
        *self = Self::default();
        digest.filter(|_| is_candidate)
    }

    fn enter(&mut self, repository: &Repository) {
        if self.repository.as_ref() != Some(repository) {
            self.close();
            self.repository = Some(repository.clone());
        }
    }
}

impl<S: Storage> Run<'_, S> {
    /// Collects shares and blobs.
    pub(super) async fn blobs(&mut self) -> Result<()> {
        let mut candidates = BTreeSet::new();
        let mut glance = Glance::default();
        let mut after: Option<String> = None;
        loop {
            let storage = self.registry.storage();
            let listed = storage.list(&Prefix::blobs(), after.as_deref(), KEYS_PER_LIST).await?;
            for (digest, mark) in listed.iter().filter_map(|listed| Mark::of(listed)) {
                if glance.digest != Some(digest) {
                    candidates.extend(glance.end());
                    glance.digest = Some(digest);
                }
                self.glance_at(&mut glance, &mark).await?;
                if candidates.len() >= MAX_ANNOUNCED {
                    self.decide(&std::mem::take(&mut candidates)).await?;
                }
            }
            match listed.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        candidates.extend(glance.end());
        self.decide(&candidates).await
    }

    async fn glance_at(&self, glance: &mut Glance, mark: &Mark) -> Result<()> {
        match mark {
            Mark::Data => glance.has_data = true,
            Mark::Owner(repository) => {
                glance.enter(repository);
                glance.owns = true;
            }
            Mark::Pin(repository, manifest) => {
                glance.enter(repository);
                match self.liveness.seems_live(repository, manifest).await? {
                    true => glance.is_pinned = true,
                    false => glance.is_candidate = true,
                }
            }
            Mark::Seen(repository) => {
                glance.enter(repository);
                glance.is_candidate |= !glance.owns;
            }
        }
        Ok(())
    }

    /// Looks at candidates, and removes of them what must not stay.
    async fn decide(&mut self, candidates: &BTreeSet<Digest>) -> Result<()> {
        let plans = self.plans(candidates).await?;
        if self.options.dry_run {
            for (digest, plan) in &plans {
                self.report.records += plan.marks.len() as u64;
                self.account(*digest, plan).await?;
            }
            return Ok(());
        }
        let digests: BTreeSet<Digest> = plans.iter().map(|(digest, _)| *digest).collect();
        if digests.is_empty() {
            return Ok(());
        }
        let round = Round::begin(self.registry, &digests).await?;
        for (digest, plan) in self.plans(&digests).await? {
            self.carry_out(&round, digest, &plan).await?;
        }
        round.end().await
    }

    /// Returns what goes of each of `digests`, where something does.
    async fn plans(&self, digests: &BTreeSet<Digest>) -> Result<Vec<(Digest, Plan)>> {
        let plans: Vec<_> = digests.iter().map(|digest| self.plan(*digest)).collect();
        futures_util::stream::iter(plans)
            .buffered(PARALLEL)
            .try_filter(|(_, plan)| std::future::ready(!plan.is_empty()))
            .try_collect()
            .await
    }

    async fn plan(&self, digest: Digest) -> Result<(Digest, Plan)> {
        let digest = &digest;
        let storage = self.registry.storage();
        let mut plan = Plan::default();
        let mut has_data = false;
        let mut has_owner = false;
        let mut share: Option<Share> = None;
        let mut after: Option<String> = None;
        loop {
            let listed =
                storage.list(&Prefix::owners(digest), after.as_deref(), KEYS_PER_LIST).await?;
            for mark in listed.iter().filter_map(|listed| Mark::of_blob(listed)) {
                let repository = match &mark {
                    Mark::Data => {
                        has_data = true;
                        continue;
                    }
                    Mark::Owner(repository) | Mark::Pin(repository, _) | Mark::Seen(repository) => {
                        repository
                    }
                };
                if share.as_ref().is_none_or(|share| share.repository != *repository)
                    && let Some(share) = share.replace(Share::new(repository.clone()))
                {
                    has_owner |= self.judge(digest, share, &mut plan).await?;
                }
                let share = share.as_mut().expect("it was put there above");
                self.look_at(digest, share, &mark, &mut plan).await?;
            }
            match listed.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        if let Some(share) = share {
            has_owner |= self.judge(digest, share, &mut plan).await?;
        }
        plan.data = has_data && !has_owner && self.is_old(&Key::data(digest)).await? == Some(true);
        Ok((*digest, plan))
    }

    async fn look_at(
        &self,
        digest: &Digest,
        share: &mut Share,
        mark: &Mark,
        plan: &mut Plan,
    ) -> Result<()> {
        match mark {
            Mark::Data => {}
            Mark::Owner(_) => share.owns = true,
            Mark::Seen(_) => share.is_seen = true,
            Mark::Pin(repository, manifest) => {
                if self.liveness.is_live(repository, manifest).await? {
                    share.is_needed = true;
                    return Ok(());
                }
                // A young pin is of a manifest that is being pushed.
                let pin = Key::pin(digest, repository, manifest);
                match self.is_old(&pin).await? {
                    Some(true) if !plan.is_full() => plan.marks.push(pin),
                    Some(true) | None => {}
                    Some(false) => share.is_needed = true,
                }
            }
        }
        Ok(())
    }

    /// Ends a repository's share, and returns whether it keeps the blob.
    async fn judge(&self, digest: &Digest, share: Share, plan: &mut Plan) -> Result<bool> {
        let Share { repository, owns, is_needed, is_seen } = share;
        let seen = Key::seen(digest, &repository);
        let was_seen_of_late = is_seen && self.is_old(&seen).await? == Some(false);
        if !owns {
            if is_seen && !was_seen_of_late && !plan.is_full() {
                plan.marks.push(seen);
            }
            return Ok(false);
        }
        let owner = Key::owner(digest, &repository);
        if is_needed
            || was_seen_of_late
            || plan.is_full()
            || self.is_old(&owner).await? != Some(true)
        {
            return Ok(true);
        }
        if is_seen {
            plan.marks.push(seen);
        }
        plan.shares.push(repository);
        Ok(false)
    }

    /// Names before what they name.
    async fn carry_out(&mut self, round: &Round<'_, S>, digest: Digest, plan: &Plan) -> Result<()> {
        let storage = self.registry.storage();
        let bytes = if plan.data { self.size_of(&digest).await? } else { 0 };
        for repository in &plan.shares {
            if round.remove(&Key::owner(&digest, repository)).await? {
                self.note(&Removal::Share { repository: repository.clone(), digest });
            }
        }
        for mark in &plan.marks {
            self.report.records += u64::from(round.remove(mark).await?);
        }
        if plan.data && !round.is_over() && storage.remove_blob(&digest).await? {
            self.note(&Removal::Blob { digest, bytes });
        }
        Ok(())
    }

    async fn account(&mut self, digest: Digest, plan: &Plan) -> Result<()> {
        for repository in &plan.shares {
            self.note(&Removal::Share { repository: repository.clone(), digest });
        }
        if plan.data {
            let bytes = self.size_of(&digest).await?;
            self.note(&Removal::Blob { digest, bytes });
        }
        Ok(())
    }

    async fn size_of(&self, digest: &Digest) -> Result<u64> {
        match self.registry.storage().blob(digest).await {
            Ok(blob) => Ok(blob.map_or(0, |blob| blob.size)),
            // A record that cannot be read can go all the same.
            Err(storage::Error::Format { .. }) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a repository has to do with a blob.
struct Share {
    repository: Repository,
    owns: bool,
    is_needed: bool,
    is_seen: bool,
}

impl Share {
    fn new(repository: Repository) -> Self {
        Self { repository, owns: false, is_needed: false, is_seen: false }
    }
}

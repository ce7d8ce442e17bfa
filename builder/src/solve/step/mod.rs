//! One step: its key, its record, or its execution.

mod action;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use oci::{DiffId, Digest, MediaType};
use store::layers::Snapshot;
use store::{Lease, StepRecord};

use self::action::Doing;
use super::assemble::{Layer, timestamp};
use super::build::Request;
use super::copy::{self, Scan};
use super::images::Images;
use super::isolation::Roots;
use super::last::Builds;
use super::report::{Change, Known, Last, Outcome};
use super::run;
use super::view::{Packed, Stacked, View};
use crate::cache::{Imports, Made, Trail};
use crate::context::SharedTree;
use crate::copy::Written;
use crate::error::Result;
use crate::event::{Event, Why};
use crate::key::{self, Parts};
use crate::plan::{self, Action, Origin};
use crate::tree::{Empty, Mtime, Tree};

/// Does the steps of one build.
pub(super) struct Steps<'a> {
    request: &'a Request<'a>,
    lease: &'a Lease,
    images: &'a Images<'a>,
    imports: &'a Imports<'a>,
    builds: &'a Builds,
    previous: &'a Last,
    /// The stages whose layers are the image's.
    targets: Vec<usize>,
    /// The keys being executed, so that equal steps of a build are executed once.
    running: Mutex<BTreeMap<Digest, Option<StepRecord>>>,
    finished: Condvar,
    /// The parts of the keys of all steps so far.
    known: Mutex<BTreeMap<(usize, usize), Known>>,
    /// What the steps came to, for caches that are exported.
    trail: Mutex<Trail>,
    /// What was found in imported caches: recorded here once the layers are.
    imported: Mutex<Vec<(Digest, StepRecord)>>,
    /// What the RUN steps have in common.
    shared: run::Shared,
    views: Mutex<BTreeMap<String, Arc<View>>>,
    /// Where processes run without namespaces.
    roots: Roots,
}

/// The layers of a finished stage, by its index.
type StageLayers<'a> = &'a dyn Fn(usize) -> Vec<Layer>;

impl<'a> Steps<'a> {
    pub(super) fn new(
        request: &'a Request<'a>,
        lease: &'a Lease,
        images: &'a Images<'a>,
        imports: &'a Imports<'a>,
        builds: &'a Builds,
        previous: &'a Last,
        targets: Vec<usize>,
    ) -> Self {
        Self {
            request,
            lease,
            images,
            imports,
            builds,
            previous,
            targets,
            running: Mutex::default(),
            finished: Condvar::new(),
            known: Mutex::default(),
            trail: Mutex::default(),
            imported: Mutex::default(),
            shared: run::Shared::default(),
            views: Mutex::default(),
            roots: Roots::default(),
        }
    }

    /// Returns the key parts of the steps that were looked at.
    pub(super) fn known(&self) -> BTreeMap<(usize, usize), Known> {
        lock(&self.known).clone()
    }

    /// Finds and digests what a step takes from the build context.
    pub(super) fn scan(&self, step: &plan::Step) -> Result<Scan> {
        let Request { contexts, threads, .. } = *self.request;
        match &step.action {
            Action::Copy(copy) => {
                let tree = self.context(&copy.origin)?;
                copy::scan(copy, &*tree, Some(contexts.fetcher()), threads)
            }
            Action::Run(run) => run::scan(run, |origin| self.tree(origin), threads),
            Action::Workdir(_) => unreachable!("a WORKDIR takes no files from the context"),
        }
    }

    /// Returns the files of an origin that is a build context.
    fn tree(&self, origin: &Origin) -> Result<Option<SharedTree>> {
        match origin {
            Origin::Context | Origin::Named(_) => self.context(origin).map(Some),
            Origin::Stage(_) | Origin::Image(_) => Ok(None),
        }
    }

    /// Returns the build context, or the named one that `origin` names.
    fn context(&self, origin: &Origin) -> Result<SharedTree> {
        match origin {
            Origin::Named(name) => self.request.contexts.named(name),
            Origin::Context | Origin::Stage(_) | Origin::Image(_) => {
                Ok(self.request.contexts.main())
            }
        }
    }

    /// Does a step on top of `before`; returns its layer, and whether it was recorded.
    pub(super) fn step(
        &self,
        number: usize,
        stage: &plan::Stage,
        step: usize,
        before: &[Layer],
        scan: Option<&Scan>,
        stages: StageLayers<'_>,
    ) -> Result<(Layer, bool)> {
        self.request.cancel.check()?;
        let is_refreshed = self.request.cache.refresh.includes(stage.label.as_deref());
        let at = (stage.index, step);
        let before_now = |parts: &Parts| {
            let before = self.previous.before(stage, at.1);
            let text = &stage.steps[at.1].text;
            (before, self.builds.changes(self.previous, before, (text, parts)))
        };
        let name = stage.step_name(step);
        let step = &stage.steps[step];
        let done = |layer: Layer, is_cached: bool, key: Digest| {
            self.note(key, &layer);
            Ok((layer, is_cached))
        };
        let doing = Doing { steps: self, number, step, before, scan, stages };
        let parts = doing.parts()?;
        let key = parts.digest();
        let known = Known {
            stage: at.0,
            step: at.1,
            name,
            text: step.text.clone(),
            key,
            parts: parts.clone(),
            outcome: Outcome::Reused,
        };
        lock(&self.known).insert(at, known);
        let executed = self.request.sharing.executed;
        let is_fresh = executed.is_some_and(|executed| executed.contains(&key));
        if (!is_refreshed || is_fresh)
            && let Some(layer) = self.recorded(&key, stage.index)?
        {
            self.tell(Event::Cached { step: number });
            return done(layer, true, key);
        }
        if let Some(layer) = self.claim(&key) {
            self.tell(Event::Cached { step: number });
            return done(layer, true, key);
        }
        if let Some(scan) = scan {
            self.keep_list(scan);
        }
        let (why, changes) = if is_refreshed {
            (Why::NoCache, vec![Change::NoCache])
        } else {
            let (before, changes) = before_now(&parts);
            let why = match changes.as_slice() {
                [Change::FailedBefore] => Why::FailedBefore,
                _ => self.builds.why(before.map(|known| &known.parts), &parts),
            };
            (why, changes)
        };
        self.set_outcome(at, Outcome::Failed { changes: changes.clone() });
        let start = Instant::now();
        self.tell(Event::Running { step: number, why });
        let claim = Claim { steps: self, key, record: None };
        let Written { diff_id, blob, changed } = doing.execute(&key)?;
        let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.set_outcome(at, Outcome::Ran { changes, ms });
        let created = timestamp((self.request.clock)(), self.request.clamp);
        let record = StepRecord::of_layer(diff_id, blob, created.into());
        let layer = layer(&record).expect("the record was made with a layer");
        if let Some(path) = changed {
            let message =
                format!("{} changed during the build: the step is not remembered", path.display());
            self.tell(Event::Warning { step: Some(number), message });
        } else {
            self.lease.store().steps().put(self.lease, &key, &record)?;
            claim.finish(record);
            if let Some(executed) = executed {
                executed.add(&key);
            }
        }
        done(layer, false, key)
    }

    fn set_outcome(&self, at: (usize, usize), outcome: Outcome) {
        if let Some(known) = lock(&self.known).get_mut(&at) {
            known.outcome = outcome;
        }
    }

    /// Keeps the list of copied files, to tell the next build which of them changed.
    fn keep_list(&self, scan: &Scan) {
        if let Err(error) = self.builds.set_files(&scan.content.digest, &scan.files()) {
            tracing::debug!(%error, "the next build cannot say which files changed");
        }
    }

    fn tell(&self, event: Event) {
        (self.request.events)(event);
    }

    /// Looks a step up, here and in the imported caches.
    fn recorded(&self, key: &Digest, stage: usize) -> Result<Option<Layer>> {
        let record = self.lease.store().steps().get(self.lease, key)?;
        if let Some(layer) = record.as_ref().and_then(layer) {
            return Ok(Some(layer));
        }
        let is_needed = self.targets.contains(&stage);
        let Some(made) = self.imports.step(key, is_needed)? else { return Ok(None) };
        let layer = Layer::imported(made.diff_id, made.blob.as_ref(), made.created);
        if layer.is_anywhere() {
            let blob = layer.blob.clone();
            let created = layer.created.clone().into();
            let record = StepRecord::of_layer(layer.diff_id, blob, created);
            lock(&self.imported).push((*key, record));
            self.images.note_origin(&layer)?;
        }
        Ok(Some(layer))
    }

    /// Notes what a step came to.
    fn note(&self, key: Digest, layer: &Layer) {
        let blob = layer.is_anywhere().then(|| layer.blob.clone());
        let made = Made { diff_id: layer.diff_id, blob, created: layer.created.clone() };
        lock(&self.trail).steps.insert(key, made);
    }

    /// Returns what the steps came to.
    pub(super) fn trail(&self, image: Vec<DiffId>) -> Trail {
        Trail { image, ..lock(&self.trail).clone() }
    }

    /// Records what was found in imported caches, as far as the layers are here by now.
    pub(super) fn keep_imported(&self) -> Result<()> {
        let store = self.lease.store();
        for (key, record) in lock(&self.imported).drain(..) {
            let is_here = |blob: &Digest| store.blobs().contains(blob);
            if let Some((_, blob)) = &record.layer
                && is_here(&blob.digest)?
            {
                store.steps().put(self.lease, &key, &record)?;
            }
        }
        Ok(())
    }

    /// Waits while another thread executes the same key. Returns its result, or `None`
    /// when the key is the caller's to execute.
    fn claim(&self, key: &Digest) -> Option<Layer> {
        let mut running = lock(&self.running);
        loop {
            match running.get(key) {
                None => {
                    running.insert(*key, None);
                    return None;
                }
                Some(Some(record)) => return layer(record),
                Some(None) => {
                    running = self.finished.wait(running).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Returns the files of a stack of layers.
    fn view(&self, layers: &[Layer]) -> Result<Arc<dyn Tree + Send>> {
        if layers.is_empty() {
            return Ok(Arc::new(Empty));
        }
        let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
        let name = key::state(&diff_ids);
        if let Some(view) = lock(&self.views).get(&name) {
            return Ok(Arc::clone(view) as Arc<dyn Tree + Send>);
        }
        let view = Arc::new(View(self.snapshot(layers)?));
        lock(&self.views).insert(name, Arc::clone(&view));
        Ok(view)
    }

    /// Returns what is where in a stack of layers, without unpacking those that a COPY has
    /// just made: that is left to a RUN that needs them.
    fn look(&self, layers: &[Layer]) -> Result<Arc<dyn Tree + Send>> {
        let mut unpacked = 0;
        while unpacked < layers.len() && self.lease.is_unpacked(layers[unpacked].diff_id)? {
            unpacked += 1;
        }
        let (below, above) = layers.split_at(unpacked);
        let is_tar = |layer: &Layer| layer.blob.media_type == MediaType::OCI_LAYER_TAR;
        let blobs = self.lease.store().blobs();
        let mut is_readable = !above.is_empty() && above.iter().all(is_tar);
        for layer in above {
            is_readable = is_readable && blobs.contains(&layer.blob.digest)?;
        }
        if !is_readable {
            return self.view(layers);
        }
        let mut packed = Vec::new();
        for layer in above {
            let path = self.lease.store().root().blob(&layer.blob.digest);
            let blob = blobs.open(&layer.blob.digest)?;
            match Packed::read(blob.file, &path)? {
                Some(layer) => packed.push(layer),
                None => return self.view(layers),
            }
        }
        let below = if below.is_empty() { None } else { Some(View(self.snapshot(below)?)) };
        Ok(Arc::new(Stacked { below, above: packed }))
    }

    /// Returns the layers as directories to stack, unpacking those that are not yet.
    fn snapshot(&self, layers: &[Layer]) -> Result<Snapshot> {
        let mut missing = Vec::new();
        for layer in layers {
            if !self.lease.is_unpacked(layer.diff_id)? {
                missing.push(layer.clone());
            }
        }
        self.images.fetch(&missing, self.request.cancel)?;
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            while let Some(layer) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.request.cancel.check()?;
                self.lease.unpack(&layer.blob, layer.diff_id)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let helpers = self.request.threads.min(missing.len()).saturating_sub(1);
            let helpers: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
            let own = work();
            let joined = helpers.into_iter().map(std::thread::ScopedJoinHandle::join);
            joined.fold(own, |result, helper| {
                result.and(helper.expect("unpacking returns its errors"))
            })
        })?;
        let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
        Ok(self.lease.snapshot(&diff_ids)?)
    }

    fn now(&self) -> Mtime {
        let since =
            (self.request.clock)().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        Mtime { seconds: self.request.clamp.unwrap_or(seconds), nanoseconds: 0 }
    }
}

/// A key that this thread executes; given back when it fails.
struct Claim<'a> {
    steps: &'a Steps<'a>,
    key: Digest,
    record: Option<StepRecord>,
}

impl Claim<'_> {
    fn finish(mut self, record: StepRecord) {
        self.record = Some(record);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut running = lock(&self.steps.running);
        match self.record.take() {
            Some(record) => {
                running.insert(self.key, Some(record));
            }
            None => {
                running.remove(&self.key);
            }
        }
        self.steps.finished.notify_all();
    }
}

fn layer(record: &StepRecord) -> Option<Layer> {
    let (diff_id, blob) = record.layer.clone()?;
    let created = record.extra.as_str().map(str::to_owned);
    Some(Layer { diff_id, blob, created })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

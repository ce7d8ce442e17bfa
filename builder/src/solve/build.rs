//! One build from a parsed Dockerfile to an image in the store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use oci::{Descriptor, Digest, Platform};
use store::Lease;

use super::assemble::{Layer, State, assemble, timestamp};
use super::cancel::Cancel;
use super::copy::Scan;
use super::emulate;
use super::images::{Images, Pull, Sources};
use super::isolation::Isolation;
use super::last::Builds;
use super::report::{Known, Last, Outcome};
use super::run::RunOptions;
use super::schedule::Tasks;
use super::step::Steps;
use crate::cache::{Caching, Importing, Imports, Target, Trail};
use crate::context::Contexts;
use crate::dockerfile::Dockerfile;
use crate::error::{Error, Result};
use crate::event::{Event, Sink};
use crate::output::{FinishedLayer, Sharing};
use crate::plan::{self, Base, Options, Origin, Plan, Planned};

/// What to build, and with what.
#[derive(Clone)]
pub struct Request<'a> {
    /// The Dockerfile.
    pub file: &'a Dockerfile,
    /// Arguments, target, labels, platform.
    pub options: Options,
    /// Where files come from.
    pub contexts: &'a Contexts<'a>,
    /// What tells this build from others, to compare it with the one before.
    pub identity: String,
    /// What it takes over from earlier builds.
    pub cache: Caching,
    /// What its RUN steps find around them.
    pub run: RunOptions,
    /// How the processes of RUN are kept apart from the machine.
    pub isolation: Isolation,
    /// The latest time in new layers and configs, in seconds since 1970.
    pub clamp: Option<i64>,
    /// How many things may happen at once.
    pub threads: usize,
    /// What time it is.
    pub clock: &'a (dyn Fn() -> SystemTime + Sync),
    /// How to get images and layers.
    pub pull: Pull<'a>,
    /// Who is told.
    pub events: Sink<'a>,
    /// What the builds of one command share, and what follows this one while it goes on.
    pub sharing: Sharing<'a>,
    /// The number of the next step in events, shared with the pulls before the first step.
    pub numbers: &'a AtomicUsize,
    /// How the build is stopped.
    pub cancel: &'a Cancel,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// A finished build.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image's manifest.
    pub manifest: Descriptor,
    /// What it runs on.
    pub platform: Platform,
    /// The digest of its config, which users know as the image ID.
    pub image_id: Digest,
    /// The bytes of its layers as they are stored.
    pub size: u64,
    /// Where its layers can be had that are not in the store, if it may be partial.
    pub sources: Arc<Sources>,
    /// What its steps came to, for caches that are exported.
    pub trail: Trail,
}

/// Builds the target; what it needs stays as long as `lease` does.
///
/// # Errors
/// Returns the first failure. Nothing half-done remains, and what was finished before it
/// is found by the next build.
pub fn build(request: &Request<'_>, lease: &Lease) -> Result<Built> {
    let mut images = Images::new(lease, &request.cache, request.pull);
    let plan = planned(request, &mut images)?;
    for warning in &plan.warnings {
        (request.events)(Event::Warning { step: None, message: warning.clone() });
    }
    let imports = Imports::new(
        &request.cache.import,
        Importing {
            lease,
            platform: &request.options.platform,
            sources: Arc::clone(&images.sources),
            pull: request.pull,
            events: request.events,
            cancel: request.cancel,
        },
    );
    let numbers = Numbers::new(&plan, request.numbers);
    let known = Found { images: &images, imports: &imports, numbers: &numbers };
    if request.cache.import.is_empty() {
        return attempt(request, lease, &plan, known);
    }
    loop {
        // A failed attempt stops what belongs to it, and not the build.
        let cancel = Arc::new(Cancel::new());
        let stopped = Arc::clone(&cancel);
        let _stop = request.cancel.on_stop(move || stopped.stop());
        let request = Request { cancel: &cancel, ..request.clone() };
        match attempt(&request, lease, &plan, known) {
            // What was executed before the failure is recorded.
            Err(error) if imports.distrust(&error) => {}
            result => return result,
        }
    }
}

/// What is found out before the first step.
#[derive(Clone, Copy)]
struct Found<'a> {
    images: &'a Images<'a>,
    imports: &'a Imports<'a>,
    numbers: &'a Numbers,
}

/// Builds once, believing what the imported caches say.
fn attempt(request: &Request<'_>, lease: &Lease, plan: &Plan, found: Found<'_>) -> Result<Built> {
    let Found { images, imports, numbers } = found;
    let builds = Builds::new(lease.store().root().path());
    let previous = builds.last(&request.identity).unwrap_or_default();
    let layout = Layout::new(plan);
    let tasks = layout.list.len();
    let targets = plan.lineage(plan.target);
    let solver = Solver {
        numbers,
        steps: Steps::new(request, lease, images, imports, &builds, &previous, targets),
        request,
        plan,
        images,
        states: std::iter::repeat_with(OnceLock::new).take(tasks).collect(),
        layout,
        scans: std::iter::repeat_with(OnceLock::new).take(tasks).collect(),
    };
    let result = solver.solve();
    // What is known now explains the next build, whether this one succeeded or not.
    let mut known = solver.steps.known();
    if result.is_err() {
        for step in &previous.steps {
            let not_reached = || Known { outcome: Outcome::NotReached, ..step.clone() };
            known.entry((step.stage, step.step)).or_insert_with(not_reached);
        }
    }
    let bases = plan.stages.values().filter_map(|stage| {
        let Base::Image(name) = &stage.base else { return None };
        let image = &images.images[name];
        Some((stage, stage.from_name(name), image.manifest_descriptor.digest))
    });
    let known = Last { bases: previous.bases(bases), steps: known.into_values().collect() };
    if known == previous {
        builds.touch_last(&request.identity);
    } else if let Err(error) = builds.set_last(&request.identity, &known) {
        tracing::debug!(%error, "the next build cannot say why its steps run");
    }
    let state = result?;
    if !request.cache.may_be_partial {
        images.complete(&state.layers, request.cancel)?;
    }
    solver.steps.keep_imported()?;
    let now = timestamp((request.clock)(), request.clamp);
    let target = &plan.stages[&plan.target];
    let trail = solver.steps.trail(state.diff_ids());
    let inline = request.cache.export.iter().any(|export| export.to == Target::Inline);
    let inline = inline.then_some(&trail);
    let (manifest, image_id) = assemble(lease, &target.config, &state, &now, inline)?;
    let size = state.layers.iter().map(|layer| layer.blob.size).sum();
    let platform = target.config.platform.normalized();
    let sources = Arc::clone(&images.sources);
    Ok(Built { manifest, platform, image_id, size, sources, trail })
}

/// Plans, and gets the images the plan asks for, until it is complete.
fn planned(request: &Request<'_>, images: &mut Images<'_>) -> Result<Plan> {
    let resolve = |uses: &[plan::ImageUse], images: &mut Images<'_>| {
        let resolved = images.resolve(uses, &request.options.platform);
        // A pull that was stopped says that it was interrupted.
        resolved.map_err(|error| request.cancel.check().err().unwrap_or(error))
    };
    loop {
        request.cancel.check()?;
        let known = &images.images;
        let configs =
            known.iter().map(|(name, image)| (name.clone(), image.config.clone())).collect();
        match plan::plan(request.file, &request.options, &configs)? {
            Planned::NeedsImages(uses) => resolve(&uses, images)?,
            Planned::Ready(plan) => {
                let uses: Vec<plan::ImageUse> = plan.images.values().cloned().collect();
                resolve(&uses, images)?;
                return Ok(*plan);
            }
        }
    }
}

/// One task of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// Digests what a COPY takes from the build context.
    Scan { stage: usize, step: usize },
    /// Begins a stage with the state of its base.
    Begin { stage: usize },
    /// Does a step.
    Step { stage: usize, step: usize },
}

/// Which task is what, and what it waits for.
struct Layout {
    list: Vec<Task>,
    schedule: Tasks,
    /// The task after which a stage is finished.
    ends: BTreeMap<usize, usize>,
}

impl Layout {
    fn new(plan: &Plan) -> Self {
        let mut list = Vec::new();
        let mut schedule = Tasks::default();
        let mut ends: BTreeMap<usize, usize> = BTreeMap::new();
        let mut add = |task: Task, before: Vec<usize>, list: &mut Vec<Task>| {
            list.push(task);
            schedule.add(before)
        };
        for (&index, stage) in &plan.stages {
            let base = match &stage.base {
                Base::Stage(parent) => ends.get(parent).copied(),
                Base::Scratch | Base::Image(_) => None,
            };
            let mut last = add(Task::Begin { stage: index }, base.into_iter().collect(), &mut list);
            for (number, step) in stage.steps.iter().enumerate() {
                let mut before = vec![last];
                let mut has_scan = false;
                for origin in step.origins() {
                    match origin {
                        Origin::Stage(stage) => before.extend(ends.get(stage)),
                        // One scan finds all that a step takes from contexts.
                        Origin::Context | Origin::Named(_) if has_scan => {}
                        Origin::Context | Origin::Named(_) => {
                            has_scan = true;
                            let scan = Task::Scan { stage: index, step: number };
                            before.push(add(scan, Vec::new(), &mut list));
                        }
                        Origin::Image(_) => {}
                    }
                }
                last = add(Task::Step { stage: index, step: number }, before, &mut list);
            }
            ends.insert(index, last);
        }
        Self { list, schedule, ends }
    }
}

/// The numbers under which steps appear in events, from 1.
struct Numbers {
    from: BTreeMap<usize, usize>,
    steps: BTreeMap<(usize, usize), usize>,
}

impl Numbers {
    fn new(plan: &Plan, numbers: &AtomicUsize) -> Self {
        let number = || numbers.fetch_add(1, Ordering::Relaxed);
        let (mut from, mut steps) = (BTreeMap::new(), BTreeMap::new());
        for (&index, stage) in &plan.stages {
            if matches!(stage.base, Base::Image(_)) {
                from.insert(index, number());
            }
            for step in 0..stage.steps.len() {
                steps.insert((index, step), number());
            }
        }
        Self { from, steps }
    }
}

struct Solver<'a> {
    request: &'a Request<'a>,
    plan: &'a Plan,
    images: &'a Images<'a>,
    layout: Layout,
    numbers: &'a Numbers,
    steps: Steps<'a>,
    /// What each task came to, by its number.
    states: Vec<OnceLock<State>>,
    scans: Vec<OnceLock<Scan>>,
}

impl Solver<'_> {
    fn solve(&self) -> Result<State> {
        let Request { threads, cancel, .. } = *self.request;
        self.layout.schedule.run(threads, cancel, &|task| self.task(task))?;
        Ok(self.finished(self.plan.target))
    }

    fn task(&self, number: usize) -> Result<()> {
        let state = match self.layout.list[number] {
            Task::Scan { stage, step } => {
                let named = |error| self.in_step(stage, step, error);
                let scan = self.steps.scan(&self.plan.stages[&stage].steps[step]).map_err(named)?;
                let _first = self.scans[number].set(scan);
                return Ok(());
            }
            Task::Begin { stage } => self.begin(stage),
            Task::Step { stage, step } => self.step(number, stage, step)?,
        };
        let _first = self.states[number].set(state);
        Ok(())
    }

    fn begin(&self, stage: usize) -> State {
        let written = &self.plan.stages[&stage];
        match &written.base {
            Base::Scratch => State::default(),
            Base::Stage(parent) => self.finished(*parent),
            Base::Image(name) => {
                let step = self.numbers.from[&stage];
                (self.request.events)(Event::Started { step, name: written.from_name(name) });
                (self.request.events)(Event::Done { step, took: Duration::ZERO });
                let state = State::of_image(&self.images.images[name]);
                state.layers.iter().for_each(|layer| self.pass_on(stage, layer));
                state
            }
        }
    }

    fn step(&self, number: usize, stage: usize, step: usize) -> Result<State> {
        let written = &self.plan.stages[&stage];
        // The tasks of one stage follow each other, with the scans between.
        let before = self.states[..number]
            .iter()
            .rev()
            .find_map(OnceLock::get)
            .expect("the schedule runs a step after the one before it");
        let scan = number.checked_sub(1).and_then(|scan| self.scans[scan].get());
        let event_number = self.numbers.steps[&(stage, step)];
        let events = self.request.events;
        events(Event::Started { step: event_number, name: written.step_name(step) });
        let start = Instant::now();
        let result = self.steps.step(event_number, written, step, &before.layers, scan, &|stage| {
            self.finished(stage).layers
        });
        match result {
            Ok((layer, is_cached)) => {
                if !is_cached {
                    events(Event::Done { step: event_number, took: start.elapsed() });
                }
                self.pass_on(stage, &layer);
                let mut state = before.clone();
                state.layers.push(layer);
                Ok(state)
            }
            Err(error) if error.is_cancelled() => {
                events(Event::Cancelled { step: event_number });
                Err(error)
            }
            Err(error) => {
                let error = emulate::explained(error, &written.platform);
                events(Event::Failed { step: event_number, message: error.to_string() });
                Err(self.in_step(stage, step, error))
            }
        }
    }

    /// Gives a layer of the image to be to those who wait for it.
    fn pass_on(&self, stage: usize, layer: &Layer) {
        if let Some(take) = self.request.sharing.layer
            && self.plan.lineage(self.plan.target).contains(&stage)
        {
            take(&FinishedLayer { diff_id: layer.diff_id, blob: layer.blob.clone() });
        }
    }

    /// Returns a stage's layers and complete history, once its last task is done.
    fn finished(&self, stage: usize) -> State {
        let end = self.layout.ends[&stage];
        let mut state = self.states[end].get().cloned().unwrap_or_default();
        let written = &self.plan.stages[&stage];
        let own = state.layers.len() - written.steps.len();
        let made = state.layers[own..].to_vec();
        let start =
            self.request.clamp.map(|_| timestamp(SystemTime::UNIX_EPOCH, self.request.clamp));
        state.add_history(written, &made, start.as_deref());
        state
    }

    fn in_step(&self, stage: usize, step: usize, source: Error) -> Error {
        let written = &self.plan.stages[&stage];
        let lines = written.steps[step].span.map(|span| (span.line, span.end_line));
        Error::Step { name: written.step_name(step), lines, source: Box::new(source) }
    }
}

//! What a step does: the parts of its key, and its execution.

use std::sync::Arc;

use oci::{DiffId, Digest};
use store::StepRecord;
use store::layers::{LayerOptions, Snapshot};

use super::{StageLayers, Steps, lock};
use crate::copy::Written;
use crate::error::Result;
use crate::key::{self, Around, Parts};
use crate::plan::{self, Action, Origin};
use crate::solve::assemble::{Layer, State};
use crate::solve::caches::Caches;
use crate::solve::copy::{self, Scan, Site};
use crate::solve::isolation::{Isolation, PlainRoot};
use crate::solve::run::{self, Place, Source};
use crate::tree::{Empty, Tree};

/// One step on its way.
pub(super) struct Doing<'a> {
    pub(super) steps: &'a Steps<'a>,
    pub(super) number: usize,
    pub(super) step: &'a plan::Step,
    pub(super) before: &'a [Layer],
    pub(super) scan: Option<&'a Scan>,
    pub(super) stages: StageLayers<'a>,
}

impl Doing<'_> {
    /// Returns everything that the step's result depends on.
    pub(super) fn parts(&self) -> Result<Parts> {
        let base: Vec<DiffId> = self.before.iter().map(|layer| layer.diff_id).collect();
        let clamp = self.steps.request.clamp;
        Ok(match &self.step.action {
            Action::Run(run) => {
                let mounted: Vec<String> = self.mounted(run)?.into_iter().flatten().collect();
                let settings = self.steps.request.run.key();
                let files = self.scan.map(|scan| &scan.content.digest);
                let around = Around { mounted: &mounted, files, settings: &settings };
                key::run(run, &base, around, clamp)
            }
            Action::Workdir(workdir) => key::workdir(workdir, &base, clamp),
            Action::Copy(copy) => {
                let files = match self.scan {
                    Some(scan) => scan.content.digest,
                    None => self.content(copy)?,
                };
                key::copy(copy, &base, Some(&files), clamp)
            }
        })
    }

    /// Returns the layers that files are taken from.
    fn layers(&self, origin: &Origin) -> Vec<Layer> {
        match origin {
            Origin::Context | Origin::Named(_) => Vec::new(),
            Origin::Stage(stage) => (self.stages)(*stage),
            Origin::Image(name) => State::of_image(&self.steps.images.images[name]).layers,
        }
    }

    /// Returns the content digest of files of a stage or image, which are read only once.
    fn content(&self, copy: &plan::Copy) -> Result<Digest> {
        let Steps { lease, request, .. } = self.steps;
        let layers = self.layers(&copy.origin);
        let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
        let memo = copy::content_key(copy, &diff_ids);
        let known = lease.store().steps().get(lease, &memo)?;
        let known = known.and_then(|record| record.extra.as_str()?.parse().ok());
        let known = match known {
            Some(known) => Some(known),
            None => self.steps.imports.content(&memo)?,
        };
        if let Some(known) = known {
            lock(&self.steps.trail).contents.insert(memo, known);
            return Ok(known);
        }
        let view = self.steps.view(&layers)?;
        let scan = copy::scan(copy, &*view, None, request.threads)?;
        let digest = scan.content.digest;
        let record = StepRecord::note(digest.to_string().into());
        lease.store().steps().put(lease, &memo, &record)?;
        self.steps.keep_list(&scan);
        lock(&self.steps.trail).contents.insert(memo, digest);
        Ok(digest)
    }

    /// Does it, and returns the layer.
    pub(super) fn execute(&self, key: &Digest) -> Result<Written> {
        match &self.step.action {
            Action::Run(run) => self.run(run, key),
            Action::Copy(copy) => self.copy(copy),
            Action::Workdir(workdir) => {
                let base = self.steps.look(self.before)?;
                copy::workdir(workdir, &self.site(&*base))
            }
        }
    }

    fn site<'s>(&'s self, base: &'s dyn Tree) -> Site<'s> {
        let Steps { lease, request, .. } = self.steps;
        Site {
            lease,
            base,
            now: self.steps.now(),
            clamp: request.clamp,
            step: self.number,
            events: request.events,
            cancel: request.cancel,
        }
    }

    fn copy(&self, copy: &plan::Copy) -> Result<Written> {
        let base = if copy.link { Arc::new(Empty) } else { self.steps.look(self.before)? };
        let site = self.site(&*base);
        if let Some(scan) = self.scan {
            let source = self.steps.context(&copy.origin)?;
            let fetcher = self.steps.request.contexts.fetcher();
            return copy::execute(copy, scan, &*source, Some(fetcher), &site);
        }
        let source = self.steps.view(&self.layers(&copy.origin))?;
        let scan = copy::scan(copy, &*source, None, self.steps.request.threads)?;
        copy::execute(copy, &scan, &*source, None, &site)
    }

    /// Returns the plain directory for a RUN that is isolated by it alone.
    fn plain_root(&self, snapshot: &Snapshot) -> Result<Option<PlainRoot>> {
        let Steps { lease, request, roots, .. } = self.steps;
        match request.isolation {
            Isolation::Namespaces => Ok(None),
            Isolation::Chroot => {
                let layers: Vec<DiffId> = self.before.iter().map(|layer| layer.diff_id).collect();
                roots.take(lease, snapshot, &layers).map(Some)
            }
        }
    }

    fn run(&self, run: &plan::Run, key: &Digest) -> Result<Written> {
        let Steps { lease, request, builds, .. } = self.steps;
        let snapshot = self.steps.snapshot(self.before)?;
        let active = lease.active(&snapshot)?;
        let plain = self.plain_root(&snapshot)?;
        let place = Place {
            plain: plain.as_ref(),
            lease,
            options: &request.run,
            shared: &self.steps.shared,
            lowers: active.lowers().to_vec(),
            upper: active.upper(),
            work: active.work(),
            log: builds.log(key),
            caches: Caches::new(builds.root()),
            sources: &self.sources(run)?,
            contents: &self.mounted(run)?,
            base: &|| self.steps.look(self.before),
            step: self.number,
            cancel: request.cancel,
            events: request.events,
        };
        let changed = run::execute(run, &place)?;
        if let Some(plain) = &plain {
            plain.differences(&active.upper())?;
        }
        let options = LayerOptions { clamp: request.clamp, ..LayerOptions::default() };
        let layer = active.into_layer(&options)?;
        if let Some(plain) = plain {
            // With times that are clamped in the layer, the directory is not what it says.
            let layers = self.before.iter().map(|layer| layer.diff_id).chain([layer.diff_id]);
            let layers = request.clamp.is_none().then(|| layers.collect());
            self.steps.roots.give_back(&plain, layers)?;
        }
        Ok(Written { diff_id: layer.diff_id, blob: layer.descriptor, changed })
    }

    /// Returns where the files of each mount of a RUN are.
    fn sources(&self, run: &plan::Run) -> Result<Vec<Option<Source<'_>>>> {
        let source = |(index, mount): (usize, &plan::RunMount)| {
            let Some(origin) = &mount.origin else { return Ok(None) };
            Ok(Some(match (self.steps.tree(origin)?, self.scan) {
                (Some(tree), Some(scan)) => Source::Tree {
                    tree,
                    selected: scan.selected(index),
                    content: scan.content.digest,
                },
                _ => Source::Layers(self.steps.snapshot(&self.layers(origin))?),
            }))
        };
        run.mounts.iter().enumerate().map(source).collect()
    }

    /// Returns what the key of a RUN knows of each mount from a stage or image.
    fn mounted(&self, run: &plan::Run) -> Result<Vec<Option<String>>> {
        let content = |mount: &plan::RunMount| match &mount.origin {
            None => Ok(None),
            Some(Origin::Context | Origin::Named(_)) => Ok(None),
            Some(origin) => self.mount_content(&self.layers(origin), mount).map(Some),
        };
        run.mounts.iter().map(content).collect()
    }

    /// Returns what tells the files of a mount from others. Those of a whole root are known
    /// by its layers; others are read, once.
    fn mount_content(&self, layers: &[Layer], mount: &plan::RunMount) -> Result<String> {
        let Steps { lease, request, .. } = self.steps;
        let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
        let state = key::state(&diff_ids);
        let Some(source) = run::source_of(mount).filter(|source| *source != "/") else {
            return Ok(state);
        };
        let memo = run::content_key(&state, source);
        let steps = lease.store().steps();
        let known = steps.get(lease, &memo)?;
        if let Some(known) = known.and_then(|record| record.extra.as_str().map(str::to_owned)) {
            return Ok(known);
        }
        let view = self.steps.view(layers)?;
        let digest = run::content(&*view, source, request.threads)?.to_string();
        steps.put(lease, &memo, &StepRecord::note(digest.clone().into()))?;
        Ok(digest)
    }
}

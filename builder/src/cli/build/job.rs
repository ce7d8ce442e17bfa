//! The builds of one command: each platform's, and once more where that is asked for.

use std::sync::Arc;
use std::time::Duration;

use oci::Platform;
use store::Lease;

use super::BuildArgs;
use super::output::Outputs;
use super::push::Pushing;
use crate::cache::Caching;
use crate::cli::progress::Progress;
use crate::cli::{environment, transfer};
use crate::context::Contexts;
use crate::dockerfile::Dockerfile;
use crate::error::Error;
use crate::output::{Executed, Finished, FinishedLayer, Sharing, difference};
use crate::plan::Options;
use crate::solve::{self, Cancel, Request, RunOptions};

/// What is built, whatever the platform.
pub(super) struct Job<'a> {
    pub(super) args: &'a BuildArgs,
    pub(super) outputs: &'a Outputs,
    pub(super) file: &'a Dockerfile,
    /// What tells this command's builds from others.
    pub(super) identity: String,
    pub(super) options: Options,
    pub(super) contexts: &'a Contexts<'a>,
    pub(super) run: RunOptions,
    pub(super) clamp: Option<i64>,
    pub(super) lease: &'a Lease,
    pub(super) progress: &'a Arc<Progress>,
    pub(super) cancel: &'a Cancel,
}

/// Who is given the layers of an image while it is made.
type LayerSink<'a> = Option<&'a (dyn Fn(&FinishedLayer) + Sync)>;

impl Job<'_> {
    /// Builds; layers are pushed as they are finished.
    pub(super) fn done(&self, pushes: &[Pushing<'_>]) -> crate::Result<Finished> {
        let may_be_partial = self.outputs.may_be_partial();
        let caching = Caching { may_be_partial, ..self.args.cache.caching() };
        let layer = |layer: &FinishedLayer| pushes.iter().for_each(|push| push.layer(layer));
        let first = self.all(&caching, (!pushes.is_empty()).then_some(&layer))?;
        if !self.args.output.check_reproducible {
            return Ok(first);
        }
        // What writes down the time must see another one.
        std::thread::sleep(Duration::from_millis(1100));
        let second = self.all(&caching.refreshed(), None)?;
        match difference(self.lease, &first, &second)? {
            None => Ok(first),
            Some(found) => Err(Error::NotReproducible { found: found.to_string() }),
        }
    }

    /// Builds for one platform after the other: the steps of each run in parallel, and find what
    /// those before had in common with them.
    fn all(&self, caching: &Caching, layer: LayerSink<'_>) -> crate::Result<Finished> {
        let executed = Executed::default();
        let sharing = Sharing { executed: Some(&executed), layer };
        let platforms = self.outputs.platforms.iter();
        let builds = platforms.map(|platform| self.one(platform, caching, sharing));
        Finished::new(self.lease, builds.collect::<crate::Result<_>>()?)
    }

    /// Writes the caches that were asked for.
    pub(super) fn export(&self, finished: &Finished) -> crate::Result<()> {
        let events = |event| self.progress.event(event);
        self.args.cache.export(&finished.builds, self.lease, &self.base(), &events)
    }

    fn base(&self) -> transfer::Base<'_> {
        let Self { args, progress, cancel, .. } = *self;
        transfer::Base { insecure: args.insecure, progress, cancel }
    }

    fn one(
        &self,
        platform: &Platform,
        caching: &Caching,
        sharing: Sharing<'_>,
    ) -> crate::Result<solve::Built> {
        let Self { args, progress, cancel, .. } = *self;
        let base = self.base();
        let request = Request {
            file: self.file,
            identity: format!("{}\n{platform}", self.identity),
            options: Options { platform: platform.clone(), ..self.options.clone() },
            contexts: self.contexts,
            cache: caching.clone(),
            run: self.run.clone(),
            isolation: args.isolation.isolation(),
            clamp: self.clamp,
            threads: std::thread::available_parallelism().map_or(4, |n| n.get().max(4)),
            clock: &environment::now,
            pull: &base,
            sharing,
            events: &|event| progress.event(event),
            numbers: progress.numbers(),
            cancel,
        };
        solve::build(&request, self.lease)
    }
}

//! RUN: a process in a sandbox, whose changes become a layer.
//!
//! ```text
//! mounts   what --mount shows: files of contexts and stages, caches, secrets, agents
//! common   hosts, resolv.conf and mount points, once per build
//! spec     all of it as a sandbox
//! log      its output
//! ```

mod agent;
mod common;
mod extract;
mod log;
mod mounts;
mod options;
mod secret;
mod spec;

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sandbox::{Exit, Stdio};
use store::Lease;

pub use agent::{AgentSource, Agents};
pub use options::RunOptions;
pub use secret::{SecretSource, Secrets};

pub(super) use common::Shared;
pub(super) use mounts::Source;

use super::caches::Caches;
use super::cancel::Cancel;
use super::copy::Scan;
use super::isolation::{Dressed, PlainRoot};
use crate::context::SharedTree;
use crate::copy::{Content, digest};
use crate::dockerfile::quote::quote;
use crate::error::{Error, IoContext as _, Result};
use crate::event::{Event, Sink, Stream};
use crate::plan::{Origin, Run};
use crate::tree::Tree;
use log::Log;
use mounts::Mounts;

/// Where a RUN happens.
pub(super) struct Place<'a> {
    /// The plain directory that is the root, where there are no namespaces.
    pub(super) plain: Option<&'a PlainRoot>,
    pub(super) lease: &'a Lease,
    pub(super) options: &'a RunOptions,
    pub(super) shared: &'a Shared,
    /// The directories of the root, topmost first.
    pub(super) lowers: Vec<PathBuf>,
    pub(super) upper: PathBuf,
    pub(super) work: PathBuf,
    /// Where the whole output is kept.
    pub(super) log: PathBuf,
    /// Where cache mounts live.
    pub(super) caches: Caches,
    /// Where the files of each mount are, by its index.
    pub(super) sources: &'a [Option<Source<'a>>],
    /// What the key knows of the files of each mount.
    pub(super) contents: &'a [Option<String>],
    /// Returns the files of the root.
    pub(super) base: &'a dyn Fn() -> Result<Arc<dyn Tree + Send>>,
    pub(super) step: usize,
    pub(super) cancel: &'a Cancel,
    pub(super) events: Sink<'a>,
}

/// Finds and digests what the mounts of a RUN show of build contexts; `tree` returns the
/// context that an origin is.
///
/// # Errors
/// Fails for a missing source and when files cannot be read.
pub(super) fn scan(
    run: &Run,
    tree: impl Fn(&Origin) -> Result<Option<SharedTree>>,
    threads: usize,
) -> Result<Scan> {
    let mut selections = Vec::new();
    let mut contents = Vec::new();
    for mount in &run.mounts {
        let source = source_of(mount);
        let tree = mount.origin.as_ref().map(&tree).transpose()?.flatten();
        let selection = match tree {
            Some(tree) => {
                let selection = vec![extract::find(&*tree, source)?];
                contents.push(digest(&*tree, std::slice::from_ref(&selection), threads)?);
                selection
            }
            None => Vec::new(),
        };
        selections.push(selection);
    }
    Ok(Scan::of_mounts(selections, Content::joined(contents)))
}

/// Digests what a mount shows of stacked layers.
///
/// # Errors
/// Fails for a missing source and when files cannot be read.
pub(super) fn content(view: &dyn Tree, source: &str, threads: usize) -> Result<oci::Digest> {
    let selection = vec![extract::find(view, Some(source))?];
    Ok(digest(view, &[selection], threads)?.digest)
}

/// Returns the key under which that digest is remembered for a stack of layers.
pub(super) fn content_key(state: &str, source: &str) -> oci::Digest {
    let mut key = crate::key::Key::new("mounted");
    key.field("layers", state);
    key.field("source", source);
    key.finish()
}

/// Returns the `source` of a mount.
pub(super) fn source_of(mount: &crate::plan::RunMount) -> Option<&str> {
    use crate::dockerfile::MountKind;
    match &mount.kind {
        MountKind::Bind { source, .. } | MountKind::Cache { source, .. } => source.as_deref(),
        MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => None,
    }
}

/// Runs the process to its end. Returns the file of a build context that was not what its
/// digest says by the time it was mounted, if there is one.
///
/// # Errors
/// Returns [`Error::Process`] when it fails, with the end of its output, and
/// [`Error::Cancelled`] when the build was stopped meanwhile.
pub(super) fn execute(run: &Run, place: &Place<'_>) -> Result<Option<PathBuf>> {
    let Place { cancel, events, step, .. } = *place;
    cancel.check()?;
    let common = place.shared.common(place.lease, place.options)?;
    let mut mounts = Mounts::prepare(run, place, common)?;
    let mut spec = spec::spec(run, place, common, &mounts)?;
    let log = Log::create(&place.log, std::mem::take(&mut mounts.mask))?;
    let (dressed, streams) = match place.plain {
        Some(root) => {
            let (dressed, streams) = Dressed::new(root, &mut spec)?;
            (Some(dressed), streams)
        }
        None => (None, [pipe()?, pipe()?]),
    };
    let [(out_read, out_write), (err_read, err_write)] = streams;
    let stdio = Stdio {
        stdin: sandbox::Stream::Null,
        stdout: sandbox::Stream::Fd(out_write),
        stderr: sandbox::Stream::Fd(err_write),
    };
    let (stopped, stop) = agent::stopper()?;
    let (started, exit) = std::thread::scope(|scope| {
        // Whoever waits for it is let go, however this ends.
        let _stop = stop;
        for forward in &mounts.forwards {
            let stopped = stopped.as_fd();
            scope.spawn(move || forward.serve(stopped));
        }
        let started = sandbox::spawn(&spec, stdio)?;
        let warnings = dressed.iter().flat_map(|dressed| &dressed.warnings);
        for warning in warnings.chain(started.warnings()) {
            events(Event::Warning { step: Some(step), message: warning.clone() });
        }
        let killer = started.killer();
        let _guard = cancel.on_stop(move || killer.kill());
        let log = &log;
        let readers = [(out_read, Stream::Stdout), (err_read, Stream::Stderr)];
        let readers =
            readers.map(|(from, stream)| scope.spawn(move || log.read(from, stream, step, events)));
        let exit = started.wait()?;
        for reader in readers {
            reader.join().expect("reading the output returns");
        }
        Ok::<_, Error>((started, exit))
    })?;
    if let Some(bytes) = started.memory_peak() {
        events(Event::MemoryPeak { step, bytes });
    }
    if exit != Exit::Code(0) {
        cancel.check()?;
        return Err(failure(run, exit, started.oom_killed(), log, &place.log));
    }
    match dressed {
        Some(dressed) => dressed.undress()?,
        None => sandbox::stubs::remove(&place.upper, started.stubs())?,
    }
    Ok(mounts.changed.take())
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .doing("create a pipe for", Path::new("the output of RUN"))
}

fn failure(run: &Run, exit: Exit, oom: bool, log: Log, path: &Path) -> Error {
    let code = match exit {
        Exit::Code(code) => Some(code),
        Exit::Signal(_) => None,
    };
    let mut text = format!("exit code: {}", exit.status());
    if oom {
        text.push_str(": cannot allocate memory (it was killed for want of memory)");
    }
    let command = quote(&run.args.join(" "));
    Error::Process { command, exit: text, code, tail: log.into_tail(), log: path.to_owned() }
}

//! Making containers and starting them, in the foreground and behind.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use sandbox::log::LogWriter;
use sandbox::shim::{self, ShimSpec};
use sandbox::{Exit, Sandboxed, Spec};
use store::layers::{Snapshot, prepare_upper, snapshot_pins};
use store::{Image, Pins};

use super::config::Config;
use super::containers::{Claim, Container};
use super::error::{Error, IoContext as _, Result};
use super::id::ContainerId;
use super::log::Stream;
use super::name::Name;
use super::options::{NetworkMode, Signal};
use super::ownership::Ownership;
use super::process::{boot_id, start_time};
use super::request::{Identity, Request};
use super::restart::Round;
use super::session::{Ends, Session};
use super::state::{ExitRecord, Running, write_json};
use super::volume::Filling;
use super::{Engine, cgroup, files, spec, stubs, volume};

/// A container that is ready to be started. Dropping it removes one that was
/// just made, and leaves one alone that was there before.
#[derive(Debug)]
pub struct Prepared<'e> {
    engine: &'e Engine,
    container: Container,
    is_new: bool,
    /// Taken when the container is started.
    ownership: Option<Ownership>,
    spec: Spec,
    round: Round,
}

impl Engine {
    /// Makes a container from an image. With `starts` it is to be started at
    /// once, and goes with this program if that does not happen.
    ///
    /// `caller_env` looks up a variable of the caller.
    ///
    /// # Errors
    ///
    /// When what is asked for cannot be, when the name is in use, and when
    /// files cannot be written. Nothing is left then.
    pub fn create(
        &self,
        request: Request,
        name: Option<&Name>,
        image: &Image,
        starts: bool,
        caller_env: impl Fn(&str) -> Option<String>,
    ) -> Result<Prepared<'_>> {
        let claim = self.containers().claim(name, starts && request.remove)?;
        let identity = Identity {
            id: claim.id.clone(),
            name: claim.name.clone(),
            image: image.config_digest,
            now: (self.clock)(),
        };
        let mut config = request.settle(&image.config, identity, caller_env)?;
        if let NetworkMode::Container(other) = &config.network {
            // The name may be another one's when this container starts again.
            let other = self.containers().find(other)?.config;
            config.hostname.clone_from(&other.hostname);
            config.network = NetworkMode::Container(other.id.to_string());
        }
        let snapshot = self.stack(&claim, image)?;
        let dir = claim.dir();
        prepare_upper(dir, &snapshot)?;
        // Until others can see what it refers to.
        let _held = volume::hold(&self.volumes, &config)?;
        let spec = self.describe(dir, &config, &snapshot, Filling::IfEmpty)?;
        let (container, ownership) = claim.complete(config)?;
        Ok(Prepared {
            engine: self,
            container,
            is_new: true,
            ownership: Some(ownership),
            spec,
            round: Round::default(),
        })
    }

    /// Makes a container ready that was made before, and may have run before:
    /// it keeps its files. `None` if it runs already.
    ///
    /// # Errors
    ///
    /// When somebody else starts or removes it, and when something it needs is
    /// gone, such as the source of a bind mount.
    pub fn prepare(&self, container: Container) -> Result<Option<Prepared<'_>>> {
        if container.status()?.is_active() {
            return Ok(None);
        }
        let ownership = container
            .own()?
            .ok_or_else(|| Error::StillRunning { container: container.config.name.to_string() })?;
        // What an earlier start has left must not share the writable layer.
        cgroup::destroy(&container.config.id)?;
        self.prepare_owned(container, ownership, Round::default()).map(Some)
    }

    /// Makes a container ready that the caller owns.
    pub(super) fn prepare_owned(
        &self,
        container: Container,
        ownership: Ownership,
        round: Round,
    ) -> Result<Prepared<'_>> {
        let spec = self.describe_again(&container)?;
        if container.config.remove {
            ownership.note_removal(&container)?;
        }
        let ownership = Some(ownership);
        Ok(Prepared { engine: self, container, is_new: false, ownership, spec, round })
    }

    /// Describes the sandbox of a container that was made before.
    pub(crate) fn describe_again(&self, container: &Container) -> Result<Spec> {
        let config = &container.config;
        let snapshot = self.store().pinned_snapshot(&config.image.layers)?;
        let snapshot = snapshot.ok_or_else(|| Error::Invalid {
            what: format!("the layers of container {} are not in the store", config.name),
        })?;
        self.describe(container.dir(), config, &snapshot, Filling::Never)
    }

    /// Writes a container's own files and describes its sandbox.
    fn describe(
        &self,
        dir: &Path,
        config: &Config,
        snapshot: &Snapshot,
        filling: Filling,
    ) -> Result<Spec> {
        let mut mounts = files::make(dir, config)?;
        let view = || Ok(snapshot.view()?);
        let now = (self.clock)();
        mounts.extend(volume::make(&self.volumes, dir, config, filling, now, view)?);
        let mut lowers = snapshot.lowers().to_vec();
        lowers.push(stubs::lower(self.store().root().path())?);
        spec::describe(dir, config, lowers, mounts)
    }

    /// Returns a command of this program, for whoever stays with a container.
    pub(super) fn own_command(&self, command: &str) -> Result<Vec<String>> {
        let program = std::env::current_exe().trying("find the program's own path")?;
        let root = self.store().root().path();
        let words = [program.as_os_str(), "--root".as_ref(), root.as_os_str(), command.as_ref()];
        let invalid = |_| Error::Invalid { what: format!("{} is not UTF-8", root.display()) };
        words.into_iter().map(|word| word.to_owned().into_string().map_err(invalid)).collect()
    }

    /// Stacks the image's layers, and keeps them for as long as the claimed
    /// directory is there: first pinned, then looked for.
    fn stack(&self, claim: &Claim, image: &Image) -> Result<Snapshot> {
        let mut pins = snapshot_pins(image.diff_ids());
        pins.push(image.manifest_descriptor.digest);
        Pins::write(self.store(), claim.dir(), &pins)?;
        // The usual case needs no lease: all is unpacked, and pinned just now.
        if let Some(snapshot) = self.store().pinned_snapshot(image.diff_ids())? {
            return Ok(snapshot);
        }
        let lease = self.store().lease()?;
        lease.unpack_image(image)?;
        Ok(lease.snapshot(image.diff_ids())?)
    }
}

impl Prepared<'_> {
    /// Returns the container's id.
    pub fn id(&self) -> &ContainerId {
        &self.container.config.id
    }

    /// Leaves the container to be started later.
    #[must_use]
    pub fn keep(mut self) -> ContainerId {
        drop(self.take_ownership());
        self.container.config.id.clone()
    }

    /// Starts the container behind the caller's back, with a shim that keeps
    /// its log and its exit status. Returns what the user should know about
    /// the start.
    ///
    /// # Errors
    ///
    /// When it cannot be started. Nothing is left then of a new one.
    pub fn start_detached(mut self) -> Result<Vec<String>> {
        let restart = self.engine.restart(&self.container, self.round)?;
        self.want_restart()?;
        let membership = self.engine.connect(&self.container, &mut self.spec)?;
        let dir = self.container.dir();
        let (held, farewell) = membership.share().trying("share what the container holds")?;
        let mut keep = vec![self.share_ownership()?];
        keep.extend(held);
        let exit_command = if self.container.config.remove {
            self.engine.own_command("sweep")?
        } else {
            Vec::new()
        };
        let shim = ShimSpec {
            spec: self.spec.clone(),
            log: self.container.log(),
            running: dir.join("running"),
            exit: dir.join("exit"),
            open_stdin: self.container.config.open_stdin,
            exit_command,
            restart: Some(restart),
            checks: self.engine.checks(&self.container)?,
            keep,
            farewell,
        };
        let started = shim::start(shim).map_err(Error::Sandbox)?;
        // From now on the shim watches.
        drop(self.ownership.take());
        let mut warnings = membership.warnings.clone();
        membership.leave();
        warnings.extend(started.warnings);
        Ok(warnings)
    }

    fn share_ownership(&self) -> Result<OwnedFd> {
        let ownership = self.ownership.as_ref();
        ownership.expect("starting consumes what is prepared, and nothing else takes it").share()
    }

    fn take_ownership(&mut self) -> Ownership {
        self.ownership
            .take()
            .expect("starting consumes what is prepared, and nothing else takes it")
    }

    /// Says when the container is started again. Only its user's start does: at any
    /// other one it may have been stopped meanwhile.
    fn want_restart(&self) -> Result<()> {
        if self.round.count > 0 {
            return Ok(());
        }
        self.container.want_restart(self.container.config.restart)
    }

    /// Runs the container until it ends, joined to the caller's input, output
    /// and signals, and returns its exit code. Without `interactive` it gets
    /// no input.
    ///
    /// `started` is called once it runs, with what the user should know about
    /// the start; `warn` when something goes wrong that does not concern the
    /// program inside.
    ///
    /// # Errors
    ///
    /// When it cannot be started; nothing is left then of a new one. When it cannot be
    /// watched; it is ended then, and kept like any other that has ended.
    pub fn run_attached(
        mut self,
        interactive: bool,
        started: impl FnOnce(&[String]) -> io::Result<()>,
        warn: impl Fn(&str),
    ) -> Result<i32> {
        let process = &self.container.config.process;
        let session = Session::begin(process.terminal, interactive)?;
        let (ends, stdio) = session.streams()?;
        self.spec.process.terminal_size = session.terminal_size();
        self.want_restart()?;
        let membership = self.engine.connect(&self.container, &mut self.spec)?;
        let sandboxed = sandbox::spawn(&self.spec, stdio).map_err(Error::Sandbox)?;
        // It has run: its files may be worth something, whatever happens now.
        let ownership = self.take_ownership();
        let mut warnings = membership.warnings.clone();
        warnings.extend_from_slice(sandboxed.warnings());
        let started = || started(&warnings);
        let watched = self.watch(session, &sandboxed, ends, started, &warn);
        // The control group and the ports go before the container's directory
        // does, and before anybody reads that it has ended.
        drop(sandboxed);
        drop(membership);
        if self.container.config.remove {
            let removed = self.container.remove_owned(self.engine.containers(), ownership);
            let code = watched?.1.code;
            removed?;
            return Ok(code);
        }
        let record = match watched {
            Ok((running, record)) if record.restart_ms.is_some() => {
                let code = record.code;
                self.leave_to_restart(running, record, &warn);
                return Ok(code);
            }
            Ok((_, record)) => record,
            Err(error) => return Err(error),
        };
        // Whoever reads that it has ended may remove it at once.
        drop(ownership);
        if let Err(error) = write_json(&self.container.dir().join("exit"), &record) {
            warn(&format!("the exit code is not recorded: {}", with_cause(&error)));
        }
        Ok(record.code)
    }

    /// Leaves the container to somebody who starts it again, as docker's daemon
    /// does when the client has gone.
    fn leave_to_restart(&self, running: Running, record: ExitRecord, warn: &impl Fn(&str)) {
        let left = self.engine.restart(&self.container, self.round).and_then(|restart| {
            self.engine.leave_to_restart(&self.container, &restart, running, &record)
        });
        let Err(error) = left else { return };
        warn(&format!("the container is not started again: {}", with_cause(&error)));
        let record = ExitRecord { restart_ms: None, ..record };
        if let Err(error) = write_json(&self.container.dir().join("exit"), &record) {
            warn(&format!("the exit code is not recorded: {}", with_cause(&error)));
        }
    }

    /// Stays with a container that was started until it has ended.
    fn watch(
        &self,
        session: Session,
        sandboxed: &Sandboxed,
        ends: Ends,
        started: impl FnOnce() -> io::Result<()>,
        warn: &impl Fn(&str),
    ) -> Result<(Running, ExitRecord)> {
        let running = self.write_running(sandboxed)?;
        let begin = Instant::now();
        started().trying("report the container's start")?;
        let checking = self.engine.begin_checks(&self.container)?;
        let mut log = LogWriter::new(&self.container.log());
        let clock = self.engine.clock;
        // A full disk must not stop the program, nor keep its output from us.
        let mut log_error = None;
        let is_init = !self.container.config.process.init;
        let container = &self.container;
        // Who asks it to end does not want it to be started again, as with `kill`.
        let passed = |signal: Signal| match signal.asks_to_end() || signal == Signal::KILL {
            true => container.end_for_good(),
            false => Ok(()),
        };
        let in_place_of = session.join(sandboxed, ends, is_init, passed, |stream, bytes| {
            if let Err(error) = log.write(stream == Stream::Stdout, bytes, clock().into()) {
                log_error.get_or_insert(error);
            }
        })?;
        drop(checking);
        let finished = log.finish().err();
        drop(session);
        if let Some(error) = log_error.or(finished) {
            warn(&format!("the container's log is not complete: {error}"));
        }
        let exit = sandboxed.wait().map_err(Error::Sandbox)?;
        let mut record = self.exit_record(sandboxed, exit, in_place_of);
        let restart = self.engine.restart(&self.container, self.round)?;
        let delay = restart.delay(record.code, begin.elapsed());
        record.restart_ms = delay.and_then(|delay| u64::try_from(delay.as_millis()).ok());
        Ok((running, record))
    }

    /// Records which process is the container's, and that this one watches it.
    fn write_running(&self, sandboxed: &Sandboxed) -> Result<Running> {
        let myself = std::process::id().cast_signed();
        let running = Running {
            pid: sandboxed.pid().cast_signed(),
            start_time: sandboxed.start_time(),
            shim_pid: myself,
            shim_start_time: start_time(myself)?,
            boot_id: boot_id()?,
            started: (self.engine.clock)(),
            restarts: self.round.count,
        };
        write_json(&self.container.dir().join("running"), &running)?;
        Ok(running)
    }

    fn exit_record(
        &self,
        sandboxed: &Sandboxed,
        exit: Exit,
        in_place_of: Option<Signal>,
    ) -> ExitRecord {
        // A process killed because it would not hear a signal is reported as
        // one that the signal ended: what would have happened outside.
        let exit = match in_place_of {
            Some(signal) if exit == Exit::Signal(Signal::KILL.number()) => {
                Exit::Signal(signal.number())
            }
            _ => exit,
        };
        let signal = match exit {
            Exit::Code(_) => None,
            Exit::Signal(signal) => Some(signal),
        };
        ExitRecord {
            pid: Some(sandboxed.pid().cast_signed()),
            start_time: Some(sandboxed.start_time()),
            code: exit.status(),
            signal,
            oom_killed: sandboxed.oom_killed(),
            finished: (self.engine.clock)(),
            restart_ms: None,
            error: None,
        }
    }
}

/// Returns an error with its cause, on one line.
pub(super) fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        let Some(ownership) = self.ownership.take().filter(|_| self.is_new) else { return };
        let removed = self.container.remove_owned(self.engine.containers(), ownership);
        if let Err(error) = removed {
            tracing::warn!(%error, "a container that was not started is left");
        }
    }
}

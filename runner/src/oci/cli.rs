//! What each command does: arguments, one call, output.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Parser as _;
use sandbox::bundle::inherited;
use sandbox::cgroup::{BlockIo, Cpu, Memory, Pids, Resources};
use serde_json::json;

use super::args::{
    Cli, Command, CreateArgs, EventsArgs, ExecArgs, Format, ListArgs, PsArgs, RunArgs, SpecArgs,
    UpdateArgs,
};
use super::control;
use super::create::{Made, Request, create, run_poststart};
use super::error::Error;
use super::exec::{self, exec, parse_user};
use super::features::features;
use super::foreground::attend;
use super::report;
use super::rootless::own_ids;
use super::spec;
use super::state::{Container, Id, States, Status};
use super::stats::stats;
use crate::engine::options::Signal;
use crate::engine::signals::Signals;

/// Makes an ordinary user root of a user namespace, where that is needed: to
/// mount. The owner of a namespace may do everything else from outside.
fn enter_rootless() {
    if let Err(error) = sandbox::rootless::enter_if_needed() {
        // What it was needed for says so.
        tracing::debug!(%error, "no user namespace");
    }
}

/// Runs the program with these arguments and returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // There is nowhere else to complain.
            let _printed = error.print();
            return ExitCode::from(if error.use_stderr() { 1 } else { 0 });
        }
    };
    let level = if cli.debug { tracing::Level::DEBUG } else { tracing::Level::WARN };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .without_time()
        .with_target(false)
        .init();
    if matches!(cli.command, Command::Create(_) | Command::Run(_)) {
        // There is one thread, and nothing is open.
        enter_rootless();
    }
    match dispatch(&cli, &mut io::stdout().lock()) {
        Ok(code) => code,
        Err(error) => {
            report::report(&report::message(&error), cli.log.as_deref(), cli.log_format, &now());
            // As runc: 255 where 1 could be the command's own.
            ExitCode::from(if matches!(cli.command, Command::Exec(_)) { 255 } else { 1 })
        }
    }
}

/// Returns the time of day, RFC 3339.
#[expect(clippy::disallowed_methods, reason = "the command line is where the clock is read")]
fn now() -> String {
    sandbox::log::rfc3339_nanos(SystemTime::now())
}

fn dispatch(cli: &Cli, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    if cli.systemd_cgroup {
        return Err(Error::invalid(
            "--systemd-cgroup is not supported: choose the engine's cgroupfs driver",
        )
        .into());
    }
    let states = States::at(cli.root.clone().unwrap_or_else(default_root));
    let find = |id: &str| -> anyhow::Result<Container> { Ok(states.find(&Id::parse(id)?)?) };
    match &cli.command {
        Command::Create(args) => {
            let made = make(&states, args, true, true)?;
            made.process.leave();
        }
        Command::Start(args) => control::start(&find(&args.id)?)?,
        Command::Run(args) => return run_container(&states, args),
        Command::Exec(args) => return run_exec(&find(&args.id)?, args),
        Command::State(args) => print_state(&find(&args.id)?, out)?,
        Command::Kill(args) => {
            let signal: Signal = args.signal.parse().map_err(Error::invalid)?;
            control::kill(&find(&args.id)?, signal.number(), args.all)?;
        }
        Command::Delete(args) => match states.find(&Id::parse(&args.id)?) {
            Err(Error::Unknown { .. }) if args.force => {}
            found => control::delete(&found?, args.force)?,
        },
        Command::List(args) => list(&states, args, out)?,
        Command::Ps(args) => ps(&find(&args.id)?, args, out)?,
        Command::Pause(args) => {
            let container = find(&args.id)?;
            require(&container, &[Status::Running, Status::Created], "pause")?;
            container.record.groups.freeze()?;
        }
        Command::Resume(args) => {
            let container = find(&args.id)?;
            require(&container, &[Status::Paused], "resume")?;
            container.record.groups.thaw()?;
        }
        Command::Update(args) => {
            let container = find(&args.id)?;
            let active = [Status::Created, Status::Running, Status::Paused];
            require(&container, &active, "update")?;
            container.record.groups.apply(&resources(args)?)?;
        }
        Command::Spec(args) => write_spec(args)?,
        Command::Features => writeln!(out, "{:#}", features())?,
        Command::Events(args) => events(&find(&args.id)?, args, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns where states are kept unless told otherwise.
#[expect(clippy::disallowed_methods, reason = "the command line is where the environment is read")]
fn default_root() -> PathBuf {
    let user = std::env::var("XDG_RUNTIME_DIR").ok().filter(|path| !path.is_empty());
    match user {
        Some(directory) if !super::create::is_host_root() => Path::new(&directory).join("rrun-oci"),
        _ => PathBuf::from("/run/rrun-oci"),
    }
}

fn require(container: &Container, wanted: &[Status], action: &str) -> Result<(), Error> {
    let status = container.status();
    if wanted.contains(&status) {
        return Ok(());
    }
    Err(Error::status(format!("cannot {action} a container that is {}", status.word())))
}

fn make(states: &States, args: &CreateArgs, waits: bool, detached: bool) -> anyhow::Result<Made> {
    if args.no_pivot {
        return Err(Error::invalid("--no-pivot is not supported").into());
    }
    let bundle = fs::canonicalize(&args.bundle)
        .with_context(|| format!("cannot open the bundle {}", args.bundle.display()))?;
    let request = Request {
        id: &Id::parse(&args.id)?,
        bundle: &bundle,
        console_socket: args.console_socket.as_deref(),
        pid_file: args.pid_file.as_deref(),
        preserved: inherited(args.preserve_fds)?,
        now: now(),
        waits,
        detached,
    };
    Ok(create(states, request)?)
}

fn run_container(states: &States, args: &RunArgs) -> anyhow::Result<ExitCode> {
    // Before there is anything that could be signalled.
    let signals = if args.detach { None } else { Some(Signals::hold()?) };
    let made = make(states, &args.create, false, args.detach)?;
    let Made { container, config, process } = made;
    run_poststart(&container, &config)?;
    let Some(signals) = signals else {
        process.leave();
        return Ok(ExitCode::SUCCESS);
    };
    let status = attend(&process, &signals)?;
    if !args.keep {
        control::delete(&container, true)?;
    }
    Ok(code(status))
}

fn code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(255))
}

fn run_exec(container: &Container, args: &ExecArgs) -> anyhow::Result<ExitCode> {
    let signals = if args.detach { None } else { Some(Signals::hold()?) };
    let mut process = match &args.process {
        Some(path) => {
            let bytes = read(path).with_context(|| format!("cannot read {}", path.display()))?;
            spec::parse_process(&bytes)?
        }
        None => process_of(container, args)?,
    };
    // Engines that give a file say here whether there is a terminal.
    process.terminal |= args.tty;
    let request = exec::Request {
        console_socket: args.console_socket.as_deref(),
        pid_file: args.pid_file.as_deref(),
        preserved: inherited(args.preserve_fds)?,
        detached: args.detach,
    };
    let started = exec(container, &process, request)?;
    let Some(signals) = signals else {
        started.leave();
        return Ok(ExitCode::SUCCESS);
    };
    Ok(code(attend(&started, &signals)?))
}

/// Returns the container's own process with another command.
fn process_of(container: &Container, args: &ExecArgs) -> anyhow::Result<spec::Process> {
    let mut process = container.config()?.process.unwrap_or_default();
    process.args.clone_from(&args.args);
    process.terminal = args.tty;
    process.env.extend(args.env.iter().cloned());
    if let Some(cwd) = &args.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(user) = &args.user {
        process.user = parse_user(user)?;
    }
    process.user.additional_gids.extend(&args.additional_gids);
    process.no_new_privileges |= args.no_new_privs;
    if !args.cap.is_empty() {
        let sets = process.capabilities.get_or_insert_default();
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(args.cap.iter().cloned());
        }
    }
    Ok(process)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    fs::read(path)
}

/// What is shown of the first process: none when it has ended.
fn pid_of(container: &Container, status: Status) -> Option<u32> {
    container.record.process.map(|(pid, _)| pid).filter(|_| status != Status::Stopped)
}

fn print_state(container: &Container, out: &mut dyn Write) -> anyhow::Result<()> {
    let status = container.status();
    let mut state = container.record.state(status, pid_of(container, status));
    state["rootfs"] = json!(container.record.rootfs);
    state["created"] = json!(container.record.created);
    state["owner"] = json!("");
    writeln!(out, "{state:#}")?;
    Ok(())
}

fn list(states: &States, args: &ListArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let containers = states.list()?;
    if args.quiet {
        for container in &containers {
            writeln!(out, "{}", container.record.id)?;
        }
        return Ok(());
    }
    if args.format == Format::Json {
        let entry = |container: &Container| {
            let status = container.status();
            let mut entry = container.record.state(status, pid_of(container, status));
            entry["rootfs"] = json!(container.record.rootfs);
            entry["created"] = json!(container.record.created);
            entry["owner"] = json!(container.record.owner.to_string());
            entry
        };
        writeln!(out, "{}", json!(containers.iter().map(entry).collect::<Vec<_>>()))?;
        return Ok(());
    }
    writeln!(out, "{:<24} {:<8} {:<9} {:<40} CREATED", "ID", "PID", "STATUS", "BUNDLE")?;
    for container in &containers {
        let status = container.status();
        writeln!(
            out,
            "{:<24} {:<8} {:<9} {:<40} {}",
            container.record.id,
            pid_of(container, status).unwrap_or(0),
            status.word(),
            container.record.bundle.display().to_string(),
            container.record.created
        )?;
    }
    Ok(())
}

fn ps(container: &Container, args: &PsArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let pids = container.record.groups.pids();
    if args.format == Format::Json {
        writeln!(out, "{}", json!(pids))?;
        return Ok(());
    }
    writeln!(out, "{:<8} {:<8} COMMAND", "UID", "PID")?;
    for pid in pids {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        // One that has ended meanwhile is not there any more.
        let Ok(command) = fs::read(directory.join("cmdline")) else { continue };
        let uid = fs::metadata(&directory).map(|found| std::os::unix::fs::MetadataExt::uid(&found));
        let words: Vec<String> = command
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty())
            .map(|word| String::from_utf8_lossy(word).escape_debug().to_string())
            .collect();
        writeln!(out, "{:<8} {pid:<8} {}", uid.unwrap_or(0), words.join(" "))?;
    }
    Ok(())
}

fn resources(args: &UpdateArgs) -> anyhow::Result<Resources> {
    if let Some(path) = &args.resources {
        let bytes = read(path).with_context(|| format!("cannot read {}", path.display()))?;
        return serde_json::from_slice(&bytes).context("cannot understand the resources");
    }
    Ok(Resources {
        memory: Some(Memory {
            limit: args.memory,
            reservation: args.memory_reservation,
            swap: args.memory_swap,
            ..Memory::default()
        }),
        cpu: Some(Cpu {
            shares: args.cpu_share,
            quota: args.cpu_quota,
            period: args.cpu_period,
            cpus: args.cpuset_cpus.clone(),
            mems: args.cpuset_mems.clone(),
            ..Cpu::default()
        }),
        pids: args.pids_limit.map(|limit| Pids { limit }),
        block_io: args
            .blkio_weight
            .map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..Resources::default()
    })
}

fn write_spec(args: &SpecArgs) -> anyhow::Result<()> {
    let path = args.bundle.join("config.json");
    let ids = args.rootless.then(own_ids);
    let what = || format!("cannot write {}", path.display());
    let mut file = fs::File::create_new(&path).with_context(what)?;
    writeln!(file, "{:#}", spec::example(ids)).with_context(what)
}

fn events(container: &Container, args: &EventsArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let interval = args
        .interval
        .strip_suffix('s')
        .and_then(|text| text.parse::<u64>().ok())
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| {
            Error::invalid(format!("{:?} is not an interval such as 5s", args.interval))
        })?;
    loop {
        let status = container.status();
        if status == Status::Stopped {
            if args.stats {
                return Err(Error::status("container is not running").into());
            }
            return Ok(());
        }
        let line = json!({
            "type": "stats", "id": container.record.id, "data": stats(&container.record.groups)
        });
        writeln!(out, "{line}")?;
        out.flush()?;
        if args.stats {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(interval));
    }
}

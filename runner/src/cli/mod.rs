//! The command line: arguments in, one engine call, results on stdout, and
//! errors on stderr as `error: what: why` with a hint where one helps.

mod commit;
mod cp;
mod diff;
mod exec;
mod export;
mod filter;
mod health;
mod images;
mod inspect;
mod logs;
mod network;
mod pause;
mod port;
mod ps;
mod pull;
mod rename;
mod report;
mod rm;
mod run;
mod start;
mod stats;
mod stop;
mod table;
mod template;
mod top;
mod update;
mod volume;
mod wait;
mod watcher;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;

use crate::engine::Engine;
use crate::engine::timestamp::Timestamp;

/// What a mistake on the command line exits with, as docker has it.
const USAGE: u8 = 125;

/// Run containers
///
/// What `rbuild` builds, `rrun` runs: both use one store. There is no daemon;
/// a container in the background has a small process of its own that keeps
/// its log and its exit status.
#[derive(Debug, Parser)]
#[command(name = "rrun", version, disable_help_subcommand = true)]
struct Cli {
    /// Directory of images and containers
    #[arg(long, global = true, env = "RBUILD_ROOT", value_name = "DIRECTORY")]
    root: Option<PathBuf>,
    /// Say on stderr what is done (RUST_LOG-style filter, such as debug)
    #[arg(long, global = true, env = "RRUN_LOG", value_name = "FILTER", hide = true)]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Run(Box<run::RunArgs>),
    Create(Box<run::CreateArgs>),
    Start(start::StartArgs),
    Restart(start::RestartArgs),
    Ps(ps::PsArgs),
    Logs(logs::LogsArgs),
    Exec(exec::ExecArgs),
    Commit(commit::CommitArgs),
    Cp(cp::CpArgs),
    Diff(diff::DiffArgs),
    Export(export::ExportArgs),
    Stats(stats::StatsArgs),
    Update(update::UpdateArgs),
    Stop(stop::StopArgs),
    Kill(stop::KillArgs),
    Pause(pause::PauseArgs),
    Unpause(pause::UnpauseArgs),
    Wait(wait::WaitArgs),
    Rename(rename::RenameArgs),
    Top(top::TopArgs),
    Port(port::PortArgs),
    #[command(subcommand)]
    Network(network::NetworkCommand),
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    Rm(rm::RmArgs),
    Prune(rm::PruneArgs),
    Inspect(inspect::InspectArgs),
    Pull(pull::PullArgs),
    Images(images::ImagesArgs),
    /// Remove what killed programs have left, and what was to go when it ended
    #[command(hide = true)]
    Sweep,
    /// Run a container's health check once
    #[command(hide = true)]
    Check(watcher::CheckArgs),
    /// Start a container again that has ended
    #[command(hide = true)]
    Again(watcher::AgainArgs),
}

/// What every command starts from.
#[derive(Debug)]
struct Context {
    root: PathBuf,
}

impl Context {
    fn engine(&self) -> crate::engine::Result<Engine> {
        Engine::open(&self.root, now)
    }
}

/// Enters the user namespace that an ordinary user's containers live in; for
/// root there is nothing to do. Ends the program where it cannot be entered.
pub fn enter_rootless() {
    if let Err(error) = sandbox::rootless::enter_if_needed() {
        report::print(&error.into());
        #[expect(clippy::exit, reason = "nothing works without, and nothing has begun")]
        std::process::exit(i32::from(USAGE));
    }
}

/// Runs the program with these arguments, the first being its name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            // Help that nobody reads is no failure.
            let _printed = error.print();
            return ExitCode::from(code);
        }
    };
    if let Some(filter) = &cli.log {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    }
    let context = Context { root: cli.root.unwrap_or_else(default_root) };
    let is_run = matches!(cli.command, Command::Run(_) | Command::Create(_));
    let result = match cli.command {
        Command::Run(args) => run::run(*args, &context),
        Command::Create(args) => run::create(*args, &context),
        Command::Start(args) => start::start(&args, &context),
        Command::Restart(args) => start::restart(&args, &context),
        Command::Ps(args) => ps::run(&args, &context),
        Command::Logs(args) => logs::run(&args, &context),
        Command::Exec(args) => exec::run(args, &context),
        Command::Commit(args) => commit::run(args, &context),
        Command::Cp(args) => cp::run(&args, &context),
        Command::Diff(args) => diff::run(&args, &context),
        Command::Export(args) => export::run(&args, &context),
        Command::Stats(args) => stats::run(&args, &context),
        Command::Update(args) => update::run(&args, &context),
        Command::Stop(args) => stop::stop(&args, &context),
        Command::Kill(args) => stop::kill(&args, &context),
        Command::Pause(args) => pause::pause(&args, &context),
        Command::Unpause(args) => pause::unpause(&args, &context),
        Command::Rename(args) => rename::run(&args, &context),
        Command::Top(args) => top::run(&args, &context),
        Command::Port(args) => port::run(&args, &context),
        Command::Network(command) => network::run(command, &context),
        Command::Volume(command) => volume::run(command, &context),
        Command::Wait(args) => wait::run(&args, &context),
        Command::Rm(args) => rm::run(&args, &context),
        Command::Prune(args) => rm::prune(&args, &context),
        Command::Inspect(args) => inspect::run(&args, &context),
        Command::Pull(args) => pull::run(&args, &context),
        Command::Images(args) => images::run(&args, &context),
        Command::Sweep => rm::sweep(&context),
        Command::Check(args) => watcher::check(&args, &context),
        Command::Again(args) => watcher::again(&args, &context),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        // `rrun logs … | head`: the reader has what it wants.
        Err(error) if report::is_broken_pipe(&error) => ExitCode::from(128 + 13),
        Err(error) => {
            report::print(&error);
            ExitCode::from(report::exit_code(&error, is_run))
        }
    }
}

/// Applies `one` to each of `names`, prints what fails, and returns the exit
/// status: 1 if anything failed.
fn for_each<T: AsRef<str>>(
    names: &[T],
    mut one: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let mut code = 0;
    for name in names {
        match one(name.as_ref()) {
            Ok(()) => {}
            Err(error) if report::is_broken_pipe(&error) => return Err(error),
            Err(error) => {
                report::print(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

#[expect(clippy::disallowed_methods, reason = "this is the border where the clock is read")]
fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

#[expect(clippy::disallowed_methods, reason = "this is the border where the environment is read")]
fn caller_env(key: &str) -> Option<String> {
    std::env::var(key).ok()
}

/// Where the store is unless one is given: the machine's for root, the user's
/// own otherwise.
fn default_root() -> PathBuf {
    if sandbox::rootless::is_rootless() {
        let absolute = |path: String| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
        let data = caller_env("XDG_DATA_HOME")
            .and_then(absolute)
            .or_else(|| Some(caller_env("HOME").and_then(absolute)?.join(".local/share")));
        if let Some(data) = data {
            return data.join("rbuild");
        }
    }
    PathBuf::from("/var/lib/rbuild")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_root_may_stand_before_or_after_the_command() {
        for line in [["rrun", "--root", "/r", "ps"], ["rrun", "ps", "--root", "/r"]] {
            assert_eq!(Cli::try_parse_from(line).unwrap().root, Some(PathBuf::from("/r")));
        }
    }
}

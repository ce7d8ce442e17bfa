//! The command line: arguments in, library calls, results on stdout, progress and errors on stderr.
//!
//! `rbuild CONTEXT` builds: the command `build` need not be written. A first word that is
//! the name of a command is that command; a context of the same name is written `./push`
//! or `build push`.
//!
//! | exit status | means |
//! |---|---|
//! | 0 | done |
//! | 1 | something failed |
//! | 125 | the command line makes no sense (as docker has it) |
//! | 130 | stopped by Ctrl-C or a signal |

mod archive;
mod build;
mod check;
mod copy;
mod debug;
mod du;
mod environment;
mod explain;
mod failure;
mod history;
mod images;
mod import;
mod index;
mod inspect;
mod login;
mod place;
mod progress;
mod prune;
mod pull;
mod push;
mod registry;
mod signals;
mod table;
mod tag;
mod template;
mod transfer;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use store::Store;

use crate::dockerfile::suggest::nearest;
use crate::solve::Isolation;

pub(crate) use environment::colour_wanted;

/// What a mistake on the command line exits with.
const USAGE: u8 = 125;
/// What a stopped program exits with: 128 and the number of SIGINT.
const STOPPED: u8 = 130;

/// Build container images, and move them
///
/// `rbuild -t NAME CONTEXT` builds the Dockerfile in a directory; the word `build` may be
/// left out. There is no daemon: images live in one store, which `rrun` runs them from.
#[derive(Debug, Parser)]
#[command(name = "rbuild", version, disable_help_subcommand = true, arg_required_else_help = true)]
struct Cli {
    /// Directory of images and build records
    #[arg(long, global = true, env = "RBUILD_ROOT", value_name = "DIRECTORY")]
    root: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Build(Box<build::BuildArgs>),
    #[command(mut_arg("context", |context| context.required(false).default_value(".")))]
    Check(Box<check::CheckArgs>),
    Push(push::PushArgs),
    Pull(pull::PullArgs),
    Images(images::ImagesArgs),
    Inspect(inspect::InspectArgs),
    History(history::HistoryArgs),
    Tag(tag::TagArgs),
    Rmi(tag::RmiArgs),
    Save(archive::SaveArgs),
    Load(archive::LoadArgs),
    Import(import::ImportArgs),
    Copy(Box<copy::CopyArgs>),
    Index(index::IndexArgs),
    Explain(explain::ExplainArgs),
    Logs(explain::LogsArgs),
    Du(du::DuArgs),
    Prune(prune::PruneArgs),
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    #[command(hide = true)]
    Debug(debug::DebugArgs),
}

impl Command {
    /// Enters the user namespace that the command takes, if it takes one.
    fn enter_namespace(&self) -> sandbox::Result<()> {
        match self {
            Self::Debug(_) | Self::Check(_) => Ok(()),
            Self::Build(args) if args.isolation.isolation() == Isolation::Chroot => {
                sandbox::rootless::enter_for_chroot()
            }
            _ => sandbox::rootless::enter_if_needed(),
        }
    }
}

/// What every command starts from.
#[derive(Debug)]
struct Context {
    root: PathBuf,
}

impl Context {
    fn store(&self) -> store::Result<Store> {
        Store::open(&self.root)
    }
}

/// Runs the program with these arguments (the first is its own name).
///
/// An ordinary user's images belong to ids of a user namespace, which is entered before
/// anything is done with them: the program must have a single thread.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = with_default_command(arguments.into_iter().collect());
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // clap knows what goes to stdout (help) and what to stderr.
            error.print().ok();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    if let Err(error) = cli.command.enter_namespace() {
        failure::print(&error.into());
        return ExitCode::FAILURE;
    }
    let root = cli.root.unwrap_or_else(environment::default_root);
    let context = Context { root };
    let result = match cli.command {
        Command::Build(args) => build::run(&args, &context),
        Command::Check(args) => check::run(&args, &context),
        Command::Push(args) => push::run(&args, &context),
        Command::Pull(args) => pull::run(&args, &context),
        Command::Images(args) => images::run(&args, &context),
        Command::Inspect(args) => inspect::run(&args, &context),
        Command::History(args) => history::run(&args, &context),
        Command::Tag(args) => tag::tag(&args, &context),
        Command::Rmi(args) => tag::rmi(&args, &context),
        Command::Save(args) => archive::save(&args, &context),
        Command::Load(args) => archive::load(&args, &context),
        Command::Import(args) => import::run(&args, &context),
        Command::Copy(args) => copy::run(&args, &context),
        Command::Index(args) => index::run(&args, &context),
        Command::Explain(args) => explain::explain(&args, &context),
        Command::Logs(args) => explain::logs(&args, &context),
        Command::Du(args) => du::run(&args, &context),
        Command::Prune(args) => prune::run(&args, &context),
        Command::Login(args) => login::login(&args),
        Command::Logout(args) => login::logout(&args),
        Command::Debug(args) => debug::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // `rbuild images | head`: the reader has what it wants.
        Err(error) if failure::is_broken_pipe(&error) => ExitCode::from(128 + 13),
        Err(error) if error.is::<failure::Silent>() => ExitCode::FAILURE,
        Err(error) => {
            let is_stopped = failure::is_stopped(&error);
            failure::print(&error);
            ExitCode::from(if is_stopped { STOPPED } else { 1 })
        }
    }
}

/// Puts `build` before arguments that do not begin with a command.
fn with_default_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut at = 1;
    // Only --root may stand before a command.
    while let Some(argument) = arguments.get(at).and_then(|argument| argument.to_str()) {
        match argument {
            "--root" => at += 2,
            _ if argument.starts_with("--root=") => at += 1,
            _ => break,
        }
    }
    let is_whole = match arguments.get(at).and_then(|argument| argument.to_str()) {
        None => at >= arguments.len(),
        Some("-h" | "--help" | "-V" | "--version") => true,
        Some(word) => is_command(word) || looks_like_command(word),
    };
    if !is_whole {
        arguments.insert(at, OsString::from("build"));
    }
    arguments
}

fn is_command(word: &str) -> bool {
    Cli::command().get_subcommands().any(|command| command.get_name() == word)
}

/// Returns whether a word that is no directory is near to a command: better an unknown
/// command with a suggestion than a context that does not exist.
fn looks_like_command(word: &str) -> bool {
    let command = Cli::command();
    let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    let is_word = word.chars().all(|c| c.is_ascii_lowercase());
    is_word && !Path::new(OsStr::new(word)).exists() && nearest(word, names).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn build_is_the_command_that_need_not_be_written() {
        let table: [(&[&str], &[&str]); 9] = [
            (&["."], &["build", "."]),
            (&["-t", "app", "."], &["build", "-t", "app", "."]),
            (&["build", "push"], &["build", "push"]),
            (&["push", "app"], &["push", "app"]),
            (&["./push"], &["build", "./push"]),
            (&["--root", "/r", "images"], &["--root", "/r", "images"]),
            (&["--root=/r", "-t", "a", "."], &["--root=/r", "build", "-t", "a", "."]),
            (&["--help"], &["--help"]),
            (&["psuh", "app"], &["psuh", "app"]),
        ];
        for (given, expected) in table {
            let words = |words: &[&str]| -> Vec<OsString> {
                std::iter::once("rbuild").chain(words.iter().copied()).map(OsString::from).collect()
            };
            assert_eq!(with_default_command(words(given)), words(expected), "{given:?}");
        }
    }
}

//! `rbuild build`, which is also `rbuild` alone.

mod cache;
mod call;
mod epoch;
mod inputs;
mod isolation;
mod job;
mod metadata;
mod output;
mod push;
mod run;
mod summary;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime};

use anyhow::bail;

use self::inputs::Inputs;
use self::job::Job;
use super::environment::{self, colour_wanted};
use super::progress::{Mode, Progress, write_stderr};
use super::{check, failure, signals};
use crate::context::Contexts;
use crate::dockerfile::{self, Code, Dockerfile};
use crate::error::Error;
use crate::fetch::Fetcher;
use crate::plan::Options;
use crate::solve::{Builds, Cancel};
pub(super) use call::{Call, Method};

/// Build an image from a Dockerfile
///
/// The word `build` may be left out: `rbuild -t NAME .`
#[derive(Debug, clap::Args)]
pub(super) struct BuildArgs {
    /// Set an ARG; without a value it is taken from the environment (can be repeated)
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Build this stage [default: the last one]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// How progress is shown
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        env = "BUILDKIT_PROGRESS",
        value_name = "MODE"
    )]
    progress: Mode,
    /// Allow plain HTTP and unverified certificates for registries of base images
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    cache: cache::CacheArgs,
    #[command(flatten)]
    output: output::OutputArgs,
    #[command(flatten)]
    call: call::CallArgs,
    #[command(flatten)]
    run: run::RunArgs,
    #[command(flatten)]
    inputs: inputs::InputArgs,
    #[command(flatten)]
    pub(super) isolation: isolation::IsolationArgs,
}

pub(super) fn run(args: &BuildArgs, context: &super::Context) -> anyhow::Result<()> {
    run_with(args, args.call.call(), context)
}

/// Builds, or answers `call` about what would be built.
pub(super) fn run_with(
    args: &BuildArgs,
    call: Option<Call>,
    context: &super::Context,
) -> anyhow::Result<()> {
    let cancel = Arc::new(Cancel::new());
    signals::stop_on_signal(&cancel)?;
    let started = Instant::now();
    let (named, sources) = args.inputs.named()?;
    let mut options = Options { contexts: named, ..options(args)? };
    // Of several platforms the first is looked at: the others say the same.
    let platform = args.output.platforms().swap_remove(0);
    let looked_at = Options { platform, ..options.clone() };
    let here = args.inputs.here()?;
    if let (Some(call), Some(inputs)) = (call, &here) {
        // Looking makes no store, and does without one that cannot be used.
        let store = context.root.is_dir().then(|| context.store().ok()).flatten();
        let lease = store.and_then(|store| store.lease().ok());
        return check::answer(call, &args.inputs.subject(inputs, &looked_at, lease.as_ref()));
    }
    let run = args.run.options()?;
    let outputs = args.output.outputs()?;

    let store = context.store()?;
    let lease = store.lease()?;
    // What is acknowledged is the image's name: all that it leads to is synced before that, at once.
    lease.defer_syncs();
    let builds = Builds::new(store.root().path());
    let mode = if args.output.quiet { Mode::Quiet } else { args.progress };
    // What is wrong with a Dockerfile at hand is printed before the display starts.
    let progress = LazyLock::new(|| Arc::new(Progress::start(mode)));
    let client = || environment::client("", false);
    let show = |event| progress.show(event);
    let number = || progress.numbers().fetch_add(1, Ordering::Relaxed);
    let fetcher = Fetcher::new(&lease, &client, environment::git(), &show, &number, &cancel);
    let index_path = |directory: &Path| builds.context_index(directory);
    let mut contexts = Contexts::new(&fetcher, &index_path, nanoseconds(environment::now()));
    let inputs = match here {
        Some(inputs) => inputs,
        None => args.inputs.elsewhere(&contexts)?,
    };
    inputs.give(sources, &mut contexts)?;
    let Inputs { shown, text, identity, .. } = &inputs;
    let subject = args.inputs.subject(&inputs, &looked_at, Some(&lease));
    if let Some(call) = call {
        return check::answer(call, &subject);
    }
    let file = parsed(shown, text, &options)?;
    let clamp = epoch::clamp(&mut options, args.output.is_reproducible(), &inputs)?;
    let found = subject.check_before(&file, &progress)?;
    let target = options.target.clone().unwrap_or_default();
    let pushes = outputs.start_pushes(&lease, &progress, args.insecure, &cancel)?;
    let job = Job {
        args,
        outputs: &outputs,
        file: &file,
        identity: format!("{identity}\n{target}"),
        options,
        contexts: &contexts,
        run,
        clamp,
        lease: &lease,
        progress: &progress,
        cancel: &cancel,
    };
    let result = job.done(&pushes);
    // What was read need not be read again, however the build ended.
    contexts.save();
    let found = subject.check_after(&file, found);
    found.judge(result.is_ok(), &progress)?;
    let written = result.map_err(Stopped::Build).and_then(|finished| {
        let written = outputs.write(&lease, &finished, clamp, &pushes)?;
        job.export(&finished).map_err(Stopped::Build)?;
        Ok((written, finished))
    });
    progress.finish();
    found.summarize(&progress);
    let (written, finished) = written.map_err(|stopped| stopped.explained(shown, text))?;
    args.output.report(&outputs, &finished, &written, &progress, started)
}

/// What ended a build too early.
enum Stopped {
    Build(Error),
    Output(anyhow::Error),
}

impl Stopped {
    /// Prints what is known about a failure, and returns what is left to say.
    fn explained(self, file: &str, text: &str) -> anyhow::Error {
        match self {
            Self::Build(error) => explained(error, file, text),
            Self::Output(error) => error,
        }
    }
}

impl From<anyhow::Error> for Stopped {
    fn from(error: anyhow::Error) -> Self {
        Self::Output(error)
    }
}

/// Prints what is known about a failure, and returns what is left to say.
fn explained(error: Error, file: &str, text: &str) -> anyhow::Error {
    if let Error::Plan(problems) = &error {
        let colour = colour_wanted();
        let rendered: String =
            problems.0.iter().map(|problem| problem.render(file, text, colour)).collect();
        write_stderr(&rendered);
        return anyhow::anyhow!("{file} cannot be built");
    }
    if !error.is_cancelled() {
        failure::print_step(&error, file, text);
    }
    error.into()
}

/// Parses the Dockerfile and prints all that is wrong or odd about it.
fn parsed(shown: &str, text: &str, options: &Options) -> anyhow::Result<Dockerfile> {
    let (file, mut diagnostics) = dockerfile::parse(text);
    if let Err(foreign) = dockerfile::check_frontend(text, &options.build_args) {
        diagnostics = vec![foreign];
    }
    // What the linter reports too is reported there.
    diagnostics.retain(|diagnostic| diagnostic.code != Code::NoEmptyContinuation);
    let colour = colour_wanted();
    let rendered: String =
        diagnostics.iter().map(|diagnostic| diagnostic.render(shown, text, colour)).collect();
    write_stderr(&rendered);
    if dockerfile::has_errors(&diagnostics) {
        let count = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
        let errors = if count == 1 { "an error".to_owned() } else { format!("{count} errors") };
        bail!("{shown} has {errors}");
    }
    Ok(file)
}

fn options(args: &BuildArgs) -> anyhow::Result<Options> {
    let mut build_args = BTreeMap::new();
    for text in &args.build_arg {
        match text.split_once('=') {
            Some((name, value)) => {
                build_args.insert(name.to_owned(), value.to_owned());
            }
            // As in docker: a name alone is passed on where it is set.
            None => {
                if let Some(value) = environment::variable(text) {
                    build_args.insert(text.clone(), value);
                }
            }
        }
    }
    let labels = args.output.labels();
    Ok(Options {
        target: args.target.clone(),
        build_args,
        labels,
        show_platforms: args.output.platforms().len() > 1,
        run: args.run.policy(),
        ..Options::default()
    })
}

fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

//! `rbuild build`, which is also `rbuild` alone.

mod cache;
mod call;
mod inputs;
mod isolation;
mod output;
mod run;
mod summary;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, bail};
use oci::{Platform, Reference};
use store::Lease;

use self::inputs::Inputs;
use super::environment::{self, colour_wanted};
use super::progress::{Mode, Progress, write_stderr};
use super::{check, failure, signals, transfer};
use crate::context::Contexts;
use crate::dockerfile::{self, Code, Dockerfile};
use crate::error::Error;
use crate::fetch::Fetcher;
use crate::output::{Executed, Sharing};
use crate::plan::Options;
use crate::solve::{self, Builds, Built, Cancel, Pull, Request};
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
    let options = Options { contexts: named, ..options(args)? };
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
    let run_options = args.run.options()?;

    let store = context.store()?;
    let lease = store.lease()?;
    // What is acknowledged is the image's name: all that it leads to is synced before that, at once.
    lease.defer_syncs();
    let builds = Builds::new(store.root().path());
    let mode = if args.output.quiet { Mode::Quiet } else { args.progress };
    // What is wrong with a Dockerfile at hand is printed before the display starts.
    let progress = LazyLock::new(|| Progress::start(mode));
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
    let clamp = clamp(&options, inputs.time)?;
    subject.check_before(&file, &progress)?;
    let target = options.target.clone().unwrap_or_default();
    let events = |event| progress.event(event);
    let base = transfer::Base { insecure: args.insecure, progress: &progress };
    let image = |lease: &Lease, name: &Reference, platform: &Platform| {
        Ok(base.image(lease, name, platform, &cancel)?)
    };
    let layers = |lease: &Lease, name: &Reference, blobs: &[_], cancel: &Cancel| {
        Ok(base.layers(lease, name, blobs, cancel)?)
    };
    let executed = Executed::default();
    let request = |platform: &Platform| Request {
        file: &file,
        identity: format!("{identity}\n{target}\n{platform}"),
        options: Options { platform: platform.clone(), ..options.clone() },
        contexts: &contexts,
        cache: args.cache.caching(),
        run: run_options.clone(),
        isolation: args.isolation.isolation(),
        clamp,
        threads: std::thread::available_parallelism().map_or(4, |n| n.get().max(4)),
        clock: &environment::now,
        pull: Pull { image: &image, layers: &layers },
        sharing: Sharing { executed: Some(&executed), layer: None },
        events: &events,
        numbers: progress.numbers(),
        cancel: &cancel,
    };
    let platforms = args.output.platforms();
    // One after the other: the steps of each run in parallel, and find what those before had
    // in common with them.
    let result: crate::Result<Vec<Built>> =
        platforms.iter().map(|platform| solve::build(&request(platform), &lease)).collect();
    // What was read need not be read again, however the build ended.
    contexts.save();
    let finished = result.and_then(|built| args.output.finish(&lease, built));
    progress.finish();
    // Once more: now the base images are here.
    check::summarize(&subject.check_build(&file).warnings, &progress);
    let finished = finished.map_err(|error| explained(error, shown, text))?;
    args.output.report(&finished, &progress, started)
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

/// Returns the latest time in the image: `SOURCE_DATE_EPOCH` of the arguments or the environment.
///
/// With the value `context` it is the time of the context, where that is known.
fn clamp(options: &Options, context: Option<i64>) -> anyhow::Result<Option<i64>> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let Some(text) = options.build_args.get(NAME).cloned().or_else(|| environment::variable(NAME))
    else {
        return Ok(None);
    };
    if text == "context" {
        return Ok(context);
    }
    let seconds = text.parse().with_context(|| format!("{NAME}={text} is not a number of seconds"));
    Ok(Some(seconds?))
}

fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

//! `rbuild check`, `rbuild build --check` and `--call`: what a Dockerfile says, without building it.
//!
//! Nothing is fetched: rules that ask what a base image says about itself count only for
//! images that are here.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use oci::ImageConfig;
use store::Lease;

use super::build::{self, BuildArgs, Call, Method};
use super::environment::colour_wanted;
use super::failure::Silent;
use super::progress::{Progress, write_stderr};
use crate::dockerfile::lint::{self, Base, BuildError, Source, Warning};
use crate::dockerfile::{self, Code, Diagnostic, Dockerfile};
use crate::ignore::Ignore;
use crate::plan::{Options, Planned, describe, plan, predefined};
use crate::solve::known_config;

/// The build argument that takes the place of a file's `# check=`.
const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Check a Dockerfile for mistakes, without building it
///
/// The same as `rbuild build --check`, and takes the same arguments; CONTEXT is `.` if it is
/// left out. Exits with 1 if there is anything to say.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// Print JSON, as `--call=check,format=json` of buildx does
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    build: BuildArgs,
}

pub(super) fn run(args: &CheckArgs, context: &super::Context) -> anyhow::Result<()> {
    let call = Call { method: Method::Check, json: args.json, ignore_status: false };
    build::run_with(&args.build, Some(call), context)
}

/// A Dockerfile and what is given along with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The path as given, for people.
    pub(super) path: &'a str,
    /// The file's name.
    pub(super) name: &'a str,
    /// Its text.
    pub(super) text: &'a str,
    /// The ignore file of the context.
    pub(super) ignore: &'a Ignore,
    /// Target, arguments and platform of the build.
    pub(super) options: &'a Options,
    /// Where base images are looked for.
    pub(super) lease: Option<&'a Lease>,
}

/// What a check finds.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// The rules that are broken.
    warnings: Vec<Warning>,
    /// What keeps the file from being built.
    problems: Vec<Diagnostic>,
    /// Whether the first of them is one of the text alone.
    is_syntax: bool,
    /// Why the warnings do so too.
    violation: Option<String>,
    /// Whether there are base images of which nothing is known.
    is_guess: bool,
}

/// Answers a call about a Dockerfile.
pub(super) fn answer(call: Call, subject: &Subject<'_>) -> anyhow::Result<()> {
    match call.method {
        Method::Build | Method::Check => check(call, subject),
        Method::Outline => {
            let file = parsed(subject)?;
            let outline = describe::outline(&file, subject.text, subject.options, &|name| {
                subject.config(name).map(|config| config.config.env)
            });
            let outline = outline.map_err(|problem| refused(subject, &[problem]))?;
            print(&if call.json { outline.to_json() } else { outline.to_text() })
        }
        Method::Targets => {
            let file = parsed(subject)?;
            let targets = describe::targets(&file, subject.text);
            print(&if call.json { targets.to_json() } else { targets.to_text() })
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn check(call: Call, subject: &Subject<'_>) -> anyhow::Result<()> {
    let findings = subject.check_all();
    if call.json {
        let error = findings.build_error();
        // What comes from stdin is called as everything expects it.
        let name = if subject.name.starts_with('<') { "Dockerfile" } else { subject.name };
        let source = Source { name, text: subject.text };
        print(&(lint::to_json(&findings.warnings, error.as_ref(), source) + "\n"))?;
    } else {
        let source = Source { name: subject.path, text: subject.text };
        print(&lint::to_text(&findings.warnings, source))?;
    }
    if !findings.problems.is_empty() {
        return Err(refused(subject, &findings.problems));
    }
    if let Some(violation) = findings.violation {
        anyhow::bail!(violation);
    }
    if findings.warnings.is_empty() {
        return print(if call.json { "" } else { "Check complete, no warnings found.\n" });
    }
    if call.ignore_status { Ok(()) } else { Err(Silent.into()) }
}

/// Prints problems with their places, and returns the error that is left to print.
fn refused(subject: &Subject<'_>, problems: &[Diagnostic]) -> anyhow::Error {
    let colour = colour_wanted();
    let rendered: String =
        problems.iter().map(|problem| problem.render(subject.path, subject.text, colour)).collect();
    write_stderr(&rendered);
    let count = problems.len();
    let errors = if count == 1 { "an error".to_owned() } else { format!("{count} errors") };
    anyhow::anyhow!("{} has {errors}", subject.path)
}

fn parsed(subject: &Subject<'_>) -> anyhow::Result<Dockerfile> {
    dockerfile::check_frontend(subject.text, &subject.options.build_args)
        .map_err(|problem| refused(subject, &[problem]))?;
    let (file, mut found) = dockerfile::parse(subject.text);
    found.retain(Diagnostic::is_error);
    if found.is_empty() { Ok(file) } else { Err(refused(subject, &found)) }
}

impl Subject<'_> {
    /// Checks a file before it is built.
    ///
    /// # Errors
    /// Fails where the file's own options make its warnings errors, and where those options
    /// make no sense.
    pub(super) fn check_before(
        &self,
        file: &Dockerfile,
        progress: &Progress,
    ) -> anyhow::Result<Findings> {
        let findings = self.check_build(file);
        if !findings.problems.is_empty() {
            return Err(refused(self, &findings.problems));
        }
        findings.judge(true, progress)?;
        Ok(findings)
    }

    /// Checks the file again if there were base images that were not here before the build.
    pub(super) fn check_after(&self, file: &Dockerfile, before: Findings) -> Findings {
        if before.is_guess { self.check_build(file) } else { before }
    }

    /// Checks a file that is built along: only the stages that are needed count for the rules
    /// about instructions.
    fn check_build(&self, file: &Dockerfile) -> Findings {
        let (_, found) = dockerfile::parse(self.text);
        let planned = self.plan(file, self.options.target.clone());
        let findings = self.findings(file, &found, planned.stages.as_ref());
        Findings { is_guess: planned.is_guess, ..findings }
    }

    /// Checks a file that may not even parse; without a target all stages count.
    fn check_all(&self) -> Findings {
        if let Err(problem) = dockerfile::check_frontend(self.text, &self.options.build_args) {
            return Findings { problems: vec![problem], ..Findings::default() };
        }
        let (file, found) = dockerfile::parse(self.text);
        let mut planned = Reached::default();
        if !dockerfile::has_errors(&found) {
            planned = match &self.options.target {
                Some(target) => self.plan(&file, Some(target.clone())),
                None => self.plan_all(&file),
            };
        }
        let mut findings = self.findings(&file, &found, planned.stages.as_ref());
        let mut problems: Vec<Diagnostic> =
            found.iter().filter(|found| found.is_error()).cloned().collect();
        problems.append(&mut findings.problems);
        problems.append(&mut planned.problems);
        Findings { problems, is_syntax: dockerfile::has_errors(&found), ..findings }
    }

    fn findings(
        &self,
        file: &Dockerfile,
        found: &[Diagnostic],
        stages: Option<&BTreeSet<usize>>,
    ) -> Findings {
        let options = match self.options.build_args.get(ARGUMENT) {
            Some(value) => lint::Options::parse(value),
            None => lint::options(self.text),
        };
        let options = match options {
            Ok(options) => options,
            Err(error) => {
                let message = format!("failed to parse check options: {error}");
                let problem = Diagnostic {
                    code: Code::BadDirective,
                    severity: dockerfile::Severity::Error,
                    span: check_span(file),
                    message,
                    suggestion: None,
                };
                return Findings { problems: vec![problem], ..Findings::default() };
            }
        };
        let input = lint::Input {
            file,
            found,
            predefined: &predefined(file, self.options),
            build_args: &self.options.build_args,
            platform: &self.options.platform,
            ignore: Some(self.ignore),
            base: &|name| self.config(name).map(|config| Base::of(&config)),
            stages,
        };
        let warnings = lint::lint(&input, &options);
        let violation = lint::violation(&warnings, &options);
        Findings { warnings, violation, ..Findings::default() }
    }

    /// Plans every stage, and collects what is wrong with each.
    fn plan_all(&self, file: &Dockerfile) -> Reached {
        /// Those who mend so many come again; planning all of a hostile file costs the square.
        const ENOUGH: usize = 50;
        let mut all = Reached::default();
        let mut done = BTreeSet::new();
        // Later stages need earlier ones, which are then done too.
        for index in (0..file.stages.len()).rev() {
            if done.contains(&index) || all.problems.len() >= ENOUGH {
                continue;
            }
            let planned = self.plan(file, Some(index.to_string()));
            done.extend(planned.stages.into_iter().flatten());
            for problem in planned.problems {
                if !all.problems.contains(&problem) {
                    all.problems.push(problem);
                }
            }
        }
        all.problems.sort_by_key(|problem| problem.span);
        all
    }

    /// Plans as far as the base images that are here allow.
    fn plan(&self, file: &Dockerfile, target: Option<String>) -> Reached {
        let options = Options { target, ..self.options.clone() };
        let mut images = BTreeMap::new();
        let mut is_guess = false;
        loop {
            match plan(file, &options, &images) {
                Ok(Planned::Ready(plan)) => {
                    let stages = plan.stages.keys().copied().collect();
                    return Reached { stages: Some(stages), problems: Vec::new(), is_guess };
                }
                Ok(Planned::NeedsImages(uses)) => {
                    let known = images.len();
                    for image in uses {
                        images.entry(image.key(&options.platform)).or_insert_with(|| {
                            self.config(&image.name).unwrap_or_else(|| {
                                is_guess = true;
                                ImageConfig::new(self.options.platform.clone())
                            })
                        });
                    }
                    if images.len() == known {
                        return Reached::default();
                    }
                }
                Err(mut problems) => {
                    // What a base image does not say here it may say elsewhere; and what cannot
                    // be built here may well be right.
                    problems.0.retain(|problem| {
                        problem.code != Code::NotSupported
                            && !(is_guess && problem.code == Code::BadExpansion)
                    });
                    return Reached { stages: None, problems: problems.0, is_guess };
                }
            }
        }
    }

    /// Returns the config of an image that is here.
    fn config(&self, name: &str) -> Option<ImageConfig> {
        known_config(self.lease?, &name.parse().ok()?, &self.options.platform)
    }
}

/// The stages that a plan needs; `None` where there is no plan.
#[derive(Debug, Default)]
struct Reached {
    stages: Option<BTreeSet<usize>>,
    problems: Vec<Diagnostic>,
    /// Whether there are base images of which nothing is known.
    is_guess: bool,
}

impl Findings {
    /// Shows the warnings about a file that is built.
    pub(super) fn summarize(&self, progress: &Progress) {
        if progress.is_json() {
            let line = |warning: &Warning| {
                let line = serde_json::json!({
                    "event": "warning",
                    "rule": warning.rule.name(),
                    "message": warning.message,
                    "line": warning.span.line,
                    "url": warning.rule.url(),
                });
                format!("{line}\n")
            };
            write_stderr(&self.warnings.iter().map(line).collect::<String>());
        } else if progress.is_for_people() && !self.warnings.is_empty() {
            let count = match self.warnings.len() {
                1 => "1 warning".to_owned(),
                count => format!("{count} warnings"),
            };
            let line =
                |warning: &Warning| format!(" - {}\n", lint::printable(&warning.to_string()));
            let lines: String = self.warnings.iter().map(line).collect();
            write_stderr(&format!("{count} found (rbuild check shows the lines):\n{lines}"));
        }
    }

    /// Fails a build that is good otherwise where its warnings are errors.
    ///
    /// # Errors
    /// Says which rules are broken; the warnings are shown first.
    pub(super) fn judge(&self, is_good: bool, progress: &Progress) -> anyhow::Result<()> {
        let Some(violation) = self.violation.clone().filter(|_| is_good) else { return Ok(()) };
        progress.finish();
        self.summarize(progress);
        anyhow::bail!(violation)
    }

    /// Returns the first problem in BuildKit's form.
    fn build_error(&self) -> Option<BuildError> {
        if let Some(problem) = self.problems.first() {
            let line = problem.span.line;
            let has_line = self.is_syntax
                && matches!(
                    problem.code,
                    Code::UnknownInstruction
                        | Code::MisplacedInstruction
                        | Code::BadArguments
                        | Code::UnknownFlag
                        | Code::BadFlag
                        | Code::BadMount
                        | Code::BadStageName
                );
            let prefix = if has_line {
                format!("dockerfile parse error on line {line}: ")
            } else {
                String::new()
            };
            return Some(BuildError {
                message: format!("{prefix}{problem}"),
                lines: (line > 0).then_some((line, problem.span.end_line)),
            });
        }
        let message = self.violation.clone()?;
        Some(BuildError { message, lines: None })
    }
}

fn check_span(file: &Dockerfile) -> dockerfile::Span {
    let found = file.directives.iter().find(|found| found.key == dockerfile::DirectiveKey::Check);
    found.map(|found| found.span).unwrap_or_default()
}

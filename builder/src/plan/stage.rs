//! One stage: its instructions in order, with the triggers of its base before them.

use oci::{ImageConfig, Platform};

use super::config;
use super::graph::{Action, Base, HistoryLine, Options, Stage, Step};
use super::instruction;
use super::problem::error;
use super::scope::{Globals, Scope};
use crate::dockerfile::{Code, Diagnostic, Dockerfile, Instruction, Span, parse_trigger};

/// A planned stage, and what stages that start from it go on with.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub(super) stage: Stage,
    scope: Scope,
}

/// What a stage starts with.
#[derive(Clone, Debug)]
pub(super) struct Start {
    image: ImageConfig,
    platform: Platform,
    triggers: Vec<String>,
    scope: Scope,
    /// What is done before the first instruction.
    first: Option<(Step, String)>,
    /// Whether a named context stands for the whole stage, so that its instructions do not count.
    is_replaced: bool,
}

impl Start {
    /// Nothing but the defaults.
    pub(super) fn scratch(platform: &Platform) -> Self {
        let image = config::scratch(platform);
        let scope = Scope::new(&image.config.env);
        Self::new(image, platform.clone(), Vec::new(), scope)
    }

    /// An image's config; `platform` is what was asked for, where it does not say.
    pub(super) fn image(base: &ImageConfig, platform: &Platform) -> Self {
        let (mut image, triggers) = config::inherited(base);
        if image.platform.os.is_empty() {
            image.platform = platform.clone();
        }
        let scope = Scope::new(&image.config.env);
        let platform = image.platform.clone();
        Self::new(image, platform, triggers, scope)
    }

    /// An earlier stage, with its build arguments.
    pub(super) fn stage(parent: &Finished) -> Self {
        let (image, triggers) = config::inherited(&parent.stage.config);
        let mut scope = parent.scope.clone();
        scope.inherit(&image.config.env);
        Self::new(image, parent.stage.platform.clone(), triggers, scope)
    }

    fn new(image: ImageConfig, platform: Platform, triggers: Vec<String>, scope: Scope) -> Self {
        Self { image, platform, triggers, scope, first: None, is_replaced: false }
    }

    /// Fills the stage with files before its first instruction.
    pub(super) fn with_files(self, first: (Step, String)) -> Self {
        Self { first: Some(first), ..self }
    }

    /// Leaves out the instructions, where a named context is the stage.
    pub(super) fn replaced(self) -> Self {
        Self { is_replaced: true, triggers: Vec::new(), ..self }
    }
}

/// Names are looked for one after the other; an environment of people has tens of them.
const MAX_VARIABLES: usize = 4096;

/// A stage while its instructions go by.
pub(super) struct Progress<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) globals: &'a Globals,
    pub(super) index: usize,
    pub(super) options: &'a Options,
    pub(super) scope: Scope,
    pub(super) image: ImageConfig,
    pub(super) steps: Vec<Step>,
    pub(super) history: Vec<HistoryLine>,
    /// Whether CMD was given in this stage; ENTRYPOINT clears an inherited one.
    pub(super) has_cmd: bool,
}

impl Progress<'_> {
    /// Returns the working directory, absolute.
    pub(super) fn cwd(&self) -> &str {
        self.image.config.working_dir.as_deref().unwrap_or("/")
    }

    /// Adds a history entry for an instruction that makes no layer.
    pub(super) fn metadata(&mut self, created_by: String) {
        self.history.push(HistoryLine { created_by, step: None });
    }

    /// Adds a step and its history entry.
    pub(super) fn step(&mut self, step: Step, created_by: String) {
        self.history.push(HistoryLine { created_by, step: Some(self.steps.len()) });
        self.steps.push(step);
    }

    /// Returns roughly how many bytes the history and the steps take from these on.
    fn bytes_since(&self, history: usize, steps: usize) -> usize {
        let lines = self.history[history..].iter().map(|line| line.created_by.len());
        let steps = self.steps[steps..].iter().map(|step| match &step.action {
            Action::Run(run) => run.env.iter().map(String::len).sum(),
            Action::Copy(_) | Action::Workdir(_) => step.text.len(),
        });
        lines.chain(steps).sum()
    }
}

/// Plans one stage.
///
/// # Errors
/// Returns all problems of its instructions.
pub(super) fn plan(
    file: &Dockerfile,
    index: usize,
    base: Base,
    start: Start,
    globals: &Globals,
    options: &Options,
) -> Result<Finished, Vec<Diagnostic>> {
    let written = &file.stages[index];
    let span = written.node.span;
    let Start { image, platform, triggers, scope, first, is_replaced } = start;
    let mut progress = Progress {
        file,
        globals,
        index,
        options,
        scope,
        image,
        steps: Vec::new(),
        history: Vec::new(),
        has_cmd: false,
    };
    if let Some((step, line)) = first {
        progress.step(step, line);
    }
    let mut problems = Vec::new();
    for trigger in &triggers {
        match parsed_trigger(trigger, span) {
            Ok(instruction) => {
                if let Err(mut problem) = instruction::apply(&mut progress, &instruction, true) {
                    // The trigger's text is not in this file: point at the FROM.
                    problem.span = span;
                    problem.message = format!("ONBUILD trigger {trigger:?}: {}", problem.message);
                    problems.push(problem);
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    for instruction in written.instructions.iter().filter(|_| !is_replaced) {
        let (history, steps) = (progress.history.len(), progress.steps.len());
        if let Err(problem) = instruction::apply(&mut progress, instruction, false) {
            problems.push(problem);
        }
        let has_room = globals.spend(progress.bytes_since(history, steps));
        if !has_room || progress.scope.variables.len() > MAX_VARIABLES {
            let message = "with all values in place this file is too large to build";
            problems.push(error(Code::TooLarge, instruction.span(), message));
            break;
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let label = written
        .name()
        .map(str::to_owned)
        .or_else(|| (file.stages.len() > 1).then(|| format!("stage-{index}")));
    let Progress { scope, image, steps, history, .. } = progress;
    let shown_platform = options.show_platforms.then(|| shown(&platform, &options.platform));
    let stage =
        Stage { index, label, base, platform, shown_platform, span, steps, history, config: image };
    Ok(Finished { stage, scope })
}

/// Returns a platform as BuildKit shows it: with an arrow to the target's, where they differ.
fn shown(platform: &Platform, target: &Platform) -> String {
    if platform == target {
        return platform.to_string();
    }
    let target = match (target.os == platform.os, &target.variant) {
        (true, None) => target.architecture.clone(),
        (true, Some(variant)) => format!("{}/{variant}", target.architecture),
        (false, _) => target.to_string(),
    };
    format!("{platform}->{target}")
}

fn parsed_trigger(trigger: &str, span: Span) -> Result<Instruction, Diagnostic> {
    parse_trigger(trigger).map_err(|problems| {
        let first = problems.into_iter().find(Diagnostic::is_error);
        let reason = first.map_or_else(|| "it is empty".to_owned(), |p| p.to_string());
        let message = format!("ONBUILD trigger {trigger:?}: {reason}");
        error(Code::BrokenTrigger, span, message)
    })
}

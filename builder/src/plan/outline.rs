//! Which stages are needed, and in which order they can be planned.

use std::collections::{BTreeMap, BTreeSet};

use oci::{ImageConfig, Platform, Reference};

use super::contexts::{NamedContext, NamedContexts, all_of};
use super::graph::{Base, ImageUse, Options, Origin, Plan, Stage};
use super::problem::{Problems, error};
use super::scope::{Globals, is_predefined, platform_variables};
use super::stage::{self, Finished};
use crate::dockerfile::suggest::nearest;
use crate::dockerfile::{Code, Diagnostic, Dockerfile, Kind, Span};

/// What a call of [`plan`] came to.
#[derive(Clone, Debug)]
pub enum Planned {
    /// The whole graph.
    Ready(Box<Plan>),
    /// The configs of these base images are needed first (others are listed along).
    NeedsImages(Vec<ImageUse>),
}

/// Plans a build as far as the configs in `images` (by name) allow.
///
/// # Errors
/// Returns every problem of the stages that the target needs.
pub fn plan(
    file: &Dockerfile,
    options: &Options,
    images: &BTreeMap<String, ImageConfig>,
) -> Result<Planned, Problems> {
    let last = file.stages.last().and_then(|stage| stage.name());
    let target = options.target.as_deref().or(last);
    let platforms = (&options.build_platform, &options.platform);
    let globals = Globals::new(file, &options.build_args, platforms, target, options.run).map_err(
        |(index, reason)| {
            let span = file.globals[index].span();
            Problems(vec![error(Code::BadExpansion, span, reason.to_string())])
        },
    )?;
    let mut outline = Outline {
        file,
        options,
        globals,
        images,
        uses: BTreeMap::new(),
        done: BTreeMap::new(),
        visited: BTreeSet::new(),
        waiting: false,
        problems: Vec::new(),
    };
    let target =
        target_of(file, options.target.as_deref()).map_err(|problem| Problems(vec![problem]))?;
    outline.visit(target);
    let Outline { uses, done, waiting, problems, .. } = outline;
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    if waiting {
        return Ok(Planned::NeedsImages(uses.into_values().collect()));
    }
    let mut stages: BTreeMap<usize, Stage> =
        done.into_iter().map(|(index, finished)| (index, finished.stage)).collect();
    if let Some(stage) = stages.get_mut(&target) {
        apply_labels(stage, &options.labels);
    }
    let warnings = unused_arguments(file, options);
    Ok(Planned::Ready(Box::new(Plan { stages, target, images: uses, warnings })))
}

/// Returns the index of the stage that is wanted: by name, by number, or the last one.
///
/// # Errors
/// Returns a diagnostic for one that does not exist.
pub(super) fn target_of(file: &Dockerfile, wanted: Option<&str>) -> Result<usize, Diagnostic> {
    let last = file.stages.len().saturating_sub(1);
    let Some(wanted) = wanted else { return Ok(last) };
    let lower = wanted.to_lowercase();
    if let Some(index) = find_stage(file, &lower, file.stages.len()) {
        return Ok(index);
    }
    if let Some(index) = wanted.parse().ok().filter(|index| *index <= last) {
        return Ok(index);
    }
    let message = format!("target stage {wanted:?} could not be found");
    let mut problem = error(Code::UnknownTarget, Span::default(), message);
    let names = file.stages.iter().filter_map(|stage| stage.name());
    problem.suggestion = nearest(&lower, names).map(str::to_owned);
    Err(problem)
}

/// Returns the variables that FROM lines see without any ARG.
#[must_use]
pub fn predefined(file: &Dockerfile, options: &Options) -> Vec<(String, String)> {
    let last = file.stages.last().and_then(|stage| stage.name());
    let target = options.target.as_deref().or(last);
    let platforms = (&options.build_platform, &options.platform);
    let variables = platform_variables(platforms, target, &options.build_args);
    variables
        .names()
        .map(|name| (name.to_owned(), variables.get(name).unwrap_or_default().to_owned()))
        .collect()
}

/// The search through the stages.
struct Outline<'a> {
    file: &'a Dockerfile,
    options: &'a Options,
    globals: Globals,
    images: &'a BTreeMap<String, ImageConfig>,
    uses: BTreeMap<String, ImageUse>,
    done: BTreeMap<usize, Finished>,
    visited: BTreeSet<usize>,
    /// Whether a base image's config is missing.
    waiting: bool,
    problems: Vec<Diagnostic>,
}

impl Outline<'_> {
    /// Plans a stage after those it needs. They stand before it in the file, so this ends.
    fn visit(&mut self, index: usize) {
        if !self.visited.insert(index) {
            return;
        }
        let Beginning { base, platform, files, is_replaced } = match self.base(index) {
            Ok(found) => found,
            Err(problem) => return self.problems.push(problem),
        };
        let mut start = match &base {
            Base::Scratch => stage::Start::scratch(&platform),
            Base::Stage(parent) => {
                self.visit(*parent);
                let Some(parent) = self.done.get(parent) else { return };
                stage::Start::stage(parent)
            }
            Base::Image(name) => match self.images.get(name) {
                Some(config) => stage::Start::image(config, &platform),
                None => {
                    self.waiting = true;
                    // Its triggers are unknown, but its own instructions can name images
                    // and stages: finding them now means that all are fetched at once.
                    self.visit_written(index);
                    return;
                }
            },
        };
        if let Some(name) = files {
            start = start.with_files(all_of(&name, self.file.stages[index].node.span));
        }
        if is_replaced {
            start = start.replaced();
        }
        let finished = stage::plan(self.file, index, base, start, &self.globals, self.options);
        match finished {
            Ok(finished) => {
                for step in &finished.stage.steps {
                    for origin in step.origins() {
                        self.use_origin(origin, step.span.unwrap_or(finished.stage.span));
                    }
                }
                self.done.insert(index, finished);
            }
            Err(mut problems) => self.problems.append(&mut problems),
        }
    }

    /// Follows the `--from` flags of a stage that cannot be planned yet.
    fn visit_written(&mut self, index: usize) {
        for instruction in &self.file.stages[index].instructions {
            if let Kind::Copy(copy) = &instruction.kind
                && let Some(from) = &copy.from
                && let Ok(origin) =
                    origin(self.file, &self.options.contexts, index, from, instruction.span())
            {
                self.use_origin(&origin, instruction.span());
            }
        }
    }

    fn use_origin(&mut self, origin: &Origin, span: Span) {
        match origin {
            Origin::Context | Origin::Named(_) => {}
            Origin::Stage(stage) => self.visit(*stage),
            Origin::Image(name) => {
                let platform = self.options.platform.clone();
                self.use_image(name, platform, span, false);
            }
        }
    }

    /// Notes that an image is needed; returns its key.
    fn use_image(&mut self, name: &str, platform: Platform, span: Span, is_base: bool) -> String {
        let image = ImageUse { name: name.to_owned(), platform, span, is_base };
        let key = image.key(&self.options.platform);
        self.uses.entry(key.clone()).or_insert(image).is_base |= is_base;
        key
    }

    /// Returns what a FROM starts from, and the platform it asks for.
    fn base(&mut self, index: usize) -> Result<Beginning, Diagnostic> {
        let stage = &self.file.stages[index];
        let span = stage.node.span;
        let bad = |message: String| error(Code::BadBase, span, message);
        let expand = |text: &str| {
            self.globals
                .expand(text)
                .map_err(|reason| error(Code::BadExpansion, span, reason.to_string()))
        };
        let name = expand(&stage.from.base)?;
        if name.is_empty() {
            return Err(bad(format!("base name ({}) should not be blank", stage.from.base)));
        }
        let platform = match &stage.from.platform {
            None => self.options.platform.clone(),
            Some(written) => {
                let platform = expand(written)?;
                let near = |problem: Diagnostic| Diagnostic {
                    suggestion: self.globals.nearest_unset(written),
                    ..problem
                };
                if platform.is_empty() {
                    let message = format!("empty platform value from expression {written}");
                    return Err(near(bad(message)));
                }
                platform.parse().map_err(|reason| {
                    near(bad(format!("failed to parse platform {written}: {reason}")))
                })?
            }
        };
        // A context may stand for the stage itself.
        let own = stage.name().and_then(|name| self.options.contexts.get(name));
        if let Some((name, context)) = own {
            let from = self.context(index, name, context.clone(), platform)?;
            return Ok(Beginning { is_replaced: true, ..from });
        }
        if let Some(parent) = find_stage(self.file, &name.to_lowercase(), index) {
            return Ok(Beginning::new(Base::Stage(parent), platform));
        }
        if name == "scratch" {
            return Ok(Beginning::new(Base::Scratch, platform));
        }
        if let Some((name, context)) = self.options.contexts.get(&name) {
            return self.context(index, name, context.clone(), platform);
        }
        check_reference(&name, span)?;
        let key = self.use_image(&name, platform.clone(), span, true);
        Ok(Beginning::new(Base::Image(key), platform))
    }

    /// Returns what a stage starts from that starts from a named context.
    fn context(
        &mut self,
        index: usize,
        name: String,
        context: NamedContext,
        platform: Platform,
    ) -> Result<Beginning, Diagnostic> {
        let span = self.file.stages[index].node.span;
        Ok(match context {
            NamedContext::Files => {
                Beginning { files: Some(name), ..Beginning::new(Base::Scratch, platform) }
            }
            NamedContext::Image(image) if image == "scratch" => {
                Beginning::new(Base::Scratch, platform)
            }
            NamedContext::Image(image) => {
                let key = self.use_image(&image, platform.clone(), span, true);
                Beginning::new(Base::Image(key), platform)
            }
            NamedContext::Stage(stage) => {
                let found = context_stage(self.file, &name, &stage, index, span)?;
                Beginning::new(Base::Stage(found), platform)
            }
        })
    }
}

/// What a stage starts from.
struct Beginning {
    base: Base,
    platform: Platform,
    /// The named context whose files are its first layer.
    files: Option<String>,
    /// Whether a named context stands for all of it.
    is_replaced: bool,
}

impl Beginning {
    fn new(base: Base, platform: Platform) -> Self {
        Self { base, platform, files: None, is_replaced: false }
    }
}

/// Returns the stage that `--build-context NAME=target:STAGE` means in stage `current`.
fn context_stage(
    file: &Dockerfile,
    name: &str,
    stage: &str,
    current: usize,
    span: Span,
) -> Result<usize, Diagnostic> {
    find_stage(file, &stage.to_lowercase(), current).ok_or_else(|| {
        let message = format!("build context {name} is stage {stage:?}, which no earlier stage is");
        error(Code::UnknownStage, span, message)
    })
}

/// Returns the last stage of this name among the first `before` ones.
pub(super) fn find_stage(file: &Dockerfile, name: &str, before: usize) -> Option<usize> {
    file.stages[..before].iter().rposition(|stage| stage.name() == Some(name))
}

fn check_reference(name: &str, span: Span) -> Result<(), Diagnostic> {
    name.parse::<Reference>().map(drop).map_err(|reason| {
        error(Code::BadBase, span, format!("failed to parse stage name {name:?}: {reason}"))
    })
}

/// Returns what a `--from` in stage `current` means.
///
/// # Errors
/// Returns a diagnostic for the stage itself, a later one, and what is no name at all.
pub(super) fn origin(
    file: &Dockerfile,
    contexts: &NamedContexts,
    current: usize,
    from: &str,
    span: Span,
) -> Result<Origin, Diagnostic> {
    let later = |label: &str| {
        let own = file.stages[current].name().map_or_else(|| current.to_string(), str::to_owned);
        let message = format!(
            "cannot copy from stage {label:?}, it needs to be defined before current stage {own:?}"
        );
        error(Code::Cycle, span, message)
    };
    let lower = from.to_lowercase();
    if let Some(stage) = find_stage(file, &lower, current) {
        return Ok(Origin::Stage(stage));
    }
    if find_stage(file, &lower, file.stages.len()).is_some() {
        return Err(later(&lower));
    }
    if let Ok(index) = from.parse::<usize>() {
        return if index < current {
            Ok(Origin::Stage(index))
        } else if index < file.stages.len() {
            Err(later(from))
        } else {
            let message =
                format!("invalid stage index {index}: the file has {}", file.stages.len());
            Err(error(Code::UnknownStage, span, message))
        };
    }
    if let Some((name, context)) = contexts.get(from) {
        return Ok(match context {
            NamedContext::Files => Origin::Named(name),
            NamedContext::Image(image) => Origin::Image(image.clone()),
            NamedContext::Stage(stage) => {
                Origin::Stage(context_stage(file, &name, stage, current, span)?)
            }
        });
    }
    check_reference(from, span)?;
    Ok(Origin::Image(from.to_owned()))
}

/// `--label` wins over the Dockerfile.
fn apply_labels(stage: &mut Stage, labels: &BTreeMap<String, String>) {
    for (name, value) in labels {
        stage.config.config.labels.insert(name.clone(), value.clone());
    }
}

/// Warns about build arguments that no ARG takes, with the nearest one that is declared.
fn unused_arguments(file: &Dockerfile, options: &Options) -> Vec<String> {
    let instructions =
        file.globals.iter().chain(file.stages.iter().flat_map(|stage| &stage.instructions));
    let declared: BTreeSet<&str> = instructions
        .filter_map(|instruction| match &instruction.kind {
            Kind::Arg(declarations) => Some(declarations),
            _ => None,
        })
        .flatten()
        .map(|declaration| declaration.name.as_str())
        .collect();
    let unused = options
        .build_args
        .keys()
        .filter(|name| !declared.contains(name.as_str()) && !is_predefined(name));
    unused
        .map(|name| match nearest(name, declared.iter().copied()) {
            Some(near) => {
                format!("build argument {name} was not consumed: no ARG declares it (did you mean {near}?)")
            }
            None => format!("build argument {name} was not consumed: no ARG declares it"),
        })
        .collect()
}

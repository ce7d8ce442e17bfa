//! The result of planning: stages, their steps, and what the image will say about itself.

use std::collections::BTreeMap;

use oci::{Digest, ImageConfig, Platform};

use super::contexts::NamedContexts;
use super::policy::RunPolicy;
use crate::copy::Chmod;
use crate::dockerfile::{MountKind, RunNetwork, RunSecurity, Span};
use crate::fetch::GitRef;

/// What is to be built: the stages that the target needs, in the order of the file.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The stages by their index in the file; unreachable ones are not here.
    pub stages: BTreeMap<usize, Stage>,
    /// The stage whose image is wanted.
    pub target: usize,
    /// The images that FROM and `--from` name, by [`ImageUse::key`].
    pub images: BTreeMap<String, ImageUse>,
    /// What the user should know, with the place in the Dockerfile it is about.
    pub warnings: Vec<String>,
}

/// An image that the build starts from or copies from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUse {
    /// Its name as written after expansion.
    pub name: String,
    /// Which image of an index is wanted.
    pub platform: Platform,
    /// Where it is named first.
    pub span: Span,
    /// Whether its config is needed for planning (FROM), or only its files (`--from`).
    pub is_base: bool,
}

/// One stage.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its index in the file.
    pub index: usize,
    /// Its name for people: its own, or `stage-N` where there are several.
    pub label: Option<String>,
    /// What it starts from.
    pub base: Base,
    /// What its processes run on.
    pub platform: Platform,
    /// The platform as it is shown with the steps, where there are several.
    pub shown_platform: Option<String>,
    /// Where the FROM stands.
    pub span: Span,
    /// The steps that change files, in order.
    pub steps: Vec<Step>,
    /// One entry per instruction of this stage.
    pub history: Vec<HistoryLine>,
    /// The config of the stage's image, but for layers, history and times.
    pub config: ImageConfig,
}

/// What a stage starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image, by its key in [`Plan::images`].
    Image(String),
}

/// One entry of the image's history to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLine {
    /// The instruction in BuildKit's form.
    pub created_by: String,
    /// The step whose layer it describes, by its index in the stage; `None` for metadata.
    pub step: Option<usize>,
}

/// A step that makes a layer.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it does.
    pub action: Action,
    /// The instruction as people wrote it, on one line.
    pub text: String,
    /// Where it stands; `None` for triggers of a base image.
    pub span: Option<Span>,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Runs a process.
    Run(Run),
    /// Copies files.
    Copy(Copy),
    /// Makes sure a directory is there.
    Workdir(Workdir),
}

/// A RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The words to execute.
    pub args: Vec<String>,
    /// The variables that are part of the key, in order: ENV, then ARG.
    pub env: Vec<String>,
    /// Variables that are not: proxies.
    pub hidden_env: Vec<String>,
    /// The working directory.
    pub cwd: String,
    /// Who runs it, as the image config has it.
    pub user: String,
    /// A file `/dev/pipes/<name>` with the body of a heredoc that starts with `#!`.
    pub script: Option<(String, String)>,
    /// The mounts asked for.
    pub mounts: Vec<RunMount>,
    /// The network.
    pub network: RunNetwork,
    /// The confinement.
    pub security: RunSecurity,
}

/// One `--mount` of a RUN, its paths absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMount {
    /// Where it appears; `None` for a secret that is only a variable.
    pub target: Option<String>,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// What it is, `from` and `source` as written.
    pub kind: MountKind,
    /// What `from` means, where there is one.
    pub origin: Option<Origin>,
}

/// Where a COPY takes its files from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The build context.
    Context,
    /// The files of a named context, by its normal name.
    Named(String),
    /// A stage, by index.
    Stage(usize),
    /// An image, by its key in [`Plan::images`].
    Image(String),
}

/// A COPY or ADD, everything expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Whether it is an ADD.
    pub is_add: bool,
    /// Where the files are.
    pub origin: Origin,
    /// What to copy, in order.
    pub sources: Vec<CopySource>,
    /// The absolute destination; a trailing slash says that it is a directory.
    pub destination: String,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<Chmod>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// Whether archives are unpacked.
    pub unpack: bool,
}

/// One source of a COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// A path or pattern in the origin.
    Path(String),
    /// A file on a web server.
    Http {
        /// Its address.
        url: String,
        /// What it has to be.
        checksum: Option<Digest>,
        /// Whether it is unpacked if it is an archive.
        unpack: bool,
    },
    /// A git repository.
    Git {
        /// Which, and what of it.
        git: GitRef,
        /// Whether `.git` is kept.
        keep_git_dir: bool,
    },
    /// A heredoc, expanded.
    Inline {
        /// The file's name when the destination is a directory.
        name: String,
        /// Its content.
        content: String,
    },
}

/// A WORKDIR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workdir {
    /// The absolute directory.
    pub path: String,
    /// Whose it becomes when it has to be created.
    pub user: String,
}

impl Plan {
    /// Returns the stages that a stage needs directly.
    #[must_use]
    pub fn needs(&self, stage: usize) -> Vec<usize> {
        let Some(stage) = self.stages.get(&stage) else { return Vec::new() };
        let mut needs = Vec::new();
        if let Base::Stage(base) = stage.base {
            needs.push(base);
        }
        needs.extend(stage.steps.iter().flat_map(Step::origins).filter_map(
            |origin| match origin {
                Origin::Stage(stage) => Some(*stage),
                Origin::Context | Origin::Named(_) | Origin::Image(_) => None,
            },
        ));
        needs
    }
}

impl Plan {
    /// Returns a stage and those it starts from: their layers are its layers.
    #[must_use]
    pub fn lineage(&self, stage: usize) -> Vec<usize> {
        let base = |index: &usize| match self.stages.get(index)?.base {
            Base::Stage(parent) => Some(parent),
            Base::Scratch | Base::Image(_) => None,
        };
        std::iter::successors(Some(stage), base).collect()
    }
}

impl Stage {
    /// Returns how a step of this stage is shown: `[build 2/3] RUN make`.
    #[must_use]
    pub fn step_name(&self, step: usize) -> String {
        let shift = usize::from(matches!(self.base, Base::Image(_)));
        let text = self.steps.get(step).map_or("", |step| step.text.as_str());
        format!("{} {text}", self.prefix(step + 1 + shift))
    }

    /// Returns how the FROM of this stage is shown, where it takes an image.
    #[must_use]
    pub fn from_name(&self, image: &str) -> String {
        // The prefix says the platform where it matters.
        let name = image.split(' ').next().unwrap_or(image);
        format!("{} FROM {name}", self.prefix(1))
    }

    fn prefix(&self, number: usize) -> String {
        let total = self.steps.len() + usize::from(matches!(self.base, Base::Image(_)));
        let platform = self.shown_platform.iter().map(|platform| format!("{platform} "));
        let label = self.label.iter().map(|label| format!("{label} "));
        format!("[{}{number}/{total}]", platform.chain(label).collect::<String>())
    }
}

impl ImageUse {
    /// Returns what tells it from other uses of images in a build for `target`: its name, and
    /// the platform where that is another one.
    #[must_use]
    pub fn key(&self, target: &Platform) -> String {
        if self.platform == *target {
            return self.name.clone();
        }
        // No name has a space, so no key is another image's name.
        format!("{} {}", self.name, self.platform)
    }
}

impl Default for Options {
    /// Builds the last stage for this machine.
    fn default() -> Self {
        Self {
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platform: Platform::host(),
            build_platform: Platform::host(),
            show_platforms: false,
            contexts: NamedContexts::default(),
            run: RunPolicy::default(),
        }
    }
}

impl Step {
    /// Returns where the step takes files from, beside its own stage.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        let (copy, run) = match &self.action {
            Action::Copy(copy) => (Some(&copy.origin), None),
            Action::Run(run) => (None, Some(run)),
            Action::Workdir(_) => (None, None),
        };
        copy.into_iter().chain(
            run.into_iter().flat_map(|run| run.mounts.iter().filter_map(|m| m.origin.as_ref())),
        )
    }
}

/// What the user asks of a plan.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--target`: a stage by name or index; the last one without it.
    pub target: Option<String>,
    /// `--build-arg`, by name.
    pub build_args: BTreeMap<String, String>,
    /// `--label`, by name.
    pub labels: BTreeMap<String, String>,
    /// What is built for.
    pub platform: Platform,
    /// What it is built on: `BUILDPLATFORM`.
    pub build_platform: Platform,
    /// Whether steps are shown with their platform, because there are builds for others.
    pub show_platforms: bool,
    /// `--build-context`.
    pub contexts: NamedContexts,
    /// What RUN instructions may do.
    pub run: RunPolicy,
}

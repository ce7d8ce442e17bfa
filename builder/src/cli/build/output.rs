//! The flags that say what comes out of a build, and for which platforms.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use oci::{Platform, Reference};
use store::Lease;

use super::super::progress::{Progress, write_stderr};
use super::push::Pushing;
use super::write::Written;
use super::{metadata, summary};
use crate::output::{Annotations, Destination, Finished, Kind, Output};
use crate::solve::Cancel;

/// What comes out of a build.
#[derive(Debug, clap::Args)]
pub(super) struct OutputArgs {
    /// Name of the image (can be repeated)
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<Reference>,
    /// What to write, and where to, such as type=oci,dest=app.tar (can be repeated)
    #[arg(short, long, value_name = "DIR|type=TYPE[,NAME=VALUE]", value_parser = Output::parse)]
    output: Vec<Output>,
    /// Send the image to its registry: --output=type=registry
    #[arg(long)]
    push: bool,
    /// Keep the image in the store: --output=type=image, which is the default
    #[arg(long)]
    load: bool,
    /// Set a label of the image (can be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Annotate the image; TYPE is manifest, index, manifest-descriptor or index-descriptor
    /// (can be repeated)
    #[arg(long, value_name = "[TYPE:]NAME=VALUE")]
    annotation: Vec<String>,
    /// Write the image ID to this file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write digests and names to this file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Print nothing but the image ID
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Platforms to build for, such as linux/amd64,linux/arm64 [default: this machine's]
    #[arg(
        long,
        value_name = "OS/ARCH",
        value_delimiter = ',',
        value_parser = platform,
        env = "DOCKER_DEFAULT_PLATFORM"
    )]
    platform: Vec<Platform>,
    /// Tell no times, as with SOURCE_DATE_EPOCH=0: the same input gives the same digest
    #[arg(long)]
    reproducible: bool,
    /// Build twice, the second time without cache, and show the first difference
    #[arg(long)]
    pub(super) check_reproducible: bool,
}

/// Reads a platform; `local` is this machine's, as in docker.
fn platform(text: &str) -> oci::Result<Platform> {
    if text == "local" { Ok(Platform::host()) } else { text.parse() }
}

/// What a build is for.
#[derive(Debug)]
pub(super) struct Outputs {
    /// What is written, names and annotations in place.
    pub(super) list: Vec<Output>,
    /// What is built for.
    pub(super) platforms: Vec<Platform>,
    /// `--tag`
    pub(super) names: Vec<Reference>,
}

impl OutputArgs {
    /// Returns the labels by name.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let pairs = self.label.iter().map(|text| text.split_once('=').unwrap_or((text, "")));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Returns whether times are left out where nobody says which one to tell.
    pub(super) fn is_reproducible(&self) -> bool {
        self.reproducible || self.check_reproducible
    }

    /// Returns the platforms to build for, each once, in the order in which they were given.
    pub(super) fn platforms(&self) -> Vec<Platform> {
        let mut platforms: Vec<Platform> = Vec::new();
        for platform in &self.platform {
            if !platforms.contains(platform) {
                platforms.push(platform.clone());
            }
        }
        if platforms.is_empty() {
            platforms.push(Platform::host());
        }
        platforms
    }

    /// Returns what is to be written, or why that makes no sense.
    pub(super) fn outputs(&self) -> anyhow::Result<Outputs> {
        let platforms = self.platforms();
        let mut names: Vec<Reference> = Vec::new();
        for name in &self.tag {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let mut annotations = Annotations::default();
        for text in &self.annotation {
            annotations.add(text).map_err(anyhow::Error::msg)?;
        }
        let mut list = self.output.clone();
        let mut images = list.iter_mut().filter(|output| output.kind == Kind::Image).peekable();
        if self.push && images.peek().is_some() {
            images.for_each(|output| output.push.wanted = true);
        } else if self.push {
            list.push(Output::parse("type=registry").map_err(anyhow::Error::msg)?);
        }
        let is_kept = |output: &Output| output.kind == Kind::Image && !output.push.skip_store;
        if list.is_empty() || self.load && !list.iter().any(is_kept) {
            list.push(Output::new(Kind::Image));
        }
        for output in &mut list {
            if matches!(output.kind, Kind::Image | Kind::Oci { .. } | Kind::Docker { .. }) {
                if !names.is_empty() {
                    output.names.clone_from(&names);
                }
                output.form.annotations.add_missing(&annotations);
                if !output.form.annotations.is_empty() {
                    output.form.docker_types = false;
                }
                output.form.annotations.check(&platforms).map_err(anyhow::Error::msg)?;
            }
        }
        let outputs = Outputs { list, platforms, names };
        outputs.check()?;
        Ok(outputs)
    }

    /// Tells the user, and whoever asked for files, what was built.
    pub(super) fn report(
        &self,
        outputs: &Outputs,
        finished: &Finished,
        written: &Written,
        progress: &Progress,
        started: Instant,
    ) -> anyhow::Result<()> {
        let image_id = finished.image_id();
        if let Some(path) = &self.iidfile {
            fs::write(path, image_id.to_string())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        if let Some(path) = &self.metadata_file {
            metadata::write(path, finished, &written.image, outputs.shown_names())?;
        }
        let is_stdout_free = !outputs.uses_stdout();
        if self.quiet && is_stdout_free {
            writeln!(std::io::stdout(), "{image_id}")?;
        }
        summary::print(outputs.shown_names(), finished, written, progress, started.elapsed());
        if self.check_reproducible && progress.is_for_people() {
            write_stderr("reproducible: both builds came to the same\n");
        }
        Ok(())
    }
}

impl Outputs {
    fn check(&self) -> anyhow::Result<()> {
        let stdout = |output: &&Output| output.destination == Some(Destination::Stdout);
        if self.list.iter().filter(stdout).count() > 1 {
            bail!("only one output can go to stdout");
        }
        for output in &self.list {
            if output.push.wanted && output.names.is_empty() {
                bail!("tag is needed when pushing to registry");
            }
            let exporter = match output.kind {
                Kind::Docker { .. } if self.platforms.len() > 1 => {
                    bail!("docker exporter does not currently support exporting manifest lists");
                }
                Kind::Docker { .. } => "docker",
                Kind::Oci { .. } => "oci",
                Kind::Tar => "tar",
                Kind::Image | Kind::Local | Kind::CacheOnly => continue,
            };
            if stdout(&output) && std::io::stdout().is_terminal() {
                bail!(
                    "dest file is required for {exporter} exporter. refusing to write to console"
                );
            }
        }
        Ok(())
    }

    /// Returns the names of the image for people.
    pub(super) fn shown_names(&self) -> &[Reference] {
        let own = || self.list.iter().map(|output| &output.names[..]).find(|list| !list.is_empty());
        if self.names.is_empty() { own().unwrap_or_default() } else { &self.names }
    }

    pub(super) fn uses_stdout(&self) -> bool {
        self.list.iter().any(|output| output.destination == Some(Destination::Stdout))
    }

    /// Returns whether layers of base images that nobody reads can stay where they are.
    pub(super) fn may_be_partial(&self) -> bool {
        self.list.iter().all(|output| match output.kind {
            Kind::Image => output.push.skip_store && !output.form.force,
            Kind::CacheOnly => true,
            Kind::Oci { .. } | Kind::Docker { .. } | Kind::Tar | Kind::Local => false,
        })
    }

    /// Begins the pushes, one for each repository and form, in the order of the outputs.
    pub(super) fn start_pushes<'a>(
        &self,
        lease: &Lease,
        progress: &Arc<Progress>,
        insecure: bool,
        cancel: &'a Cancel,
    ) -> anyhow::Result<Vec<Pushing<'a>>> {
        let mut pushes = Vec::new();
        for output in self.list.iter().filter(|output| output.push.wanted) {
            for names in by_repository(&output.names) {
                let Output { form, push, .. } = output;
                pushes.push(Pushing::start(lease, names, form, *push, insecure, progress, cancel)?);
            }
        }
        Ok(pushes)
    }
}

/// Groups names by their repositories, in the order in which these occur.
pub(super) fn by_repository(names: &[Reference]) -> Vec<Vec<Reference>> {
    let repository = |name: &Reference| (name.registry().to_owned(), name.repository().clone());
    let mut groups: Vec<Vec<Reference>> = Vec::new();
    for name in names {
        match groups.iter_mut().find(|group| repository(&group[0]) == repository(name)) {
            Some(group) => group.push(name.clone()),
            None => groups.push(vec![name.clone()]),
        }
    }
    groups
}

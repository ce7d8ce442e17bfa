//! The flags that say what comes out of a build, and for which platform.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use oci::{Platform, Reference};
use store::Lease;

use super::super::progress::Progress;
use super::summary;
use crate::output::Finished;
use crate::solve::Built;

/// What comes out of a build.
#[derive(Debug, clap::Args)]
pub(super) struct OutputArgs {
    /// Name of the image (can be repeated)
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<Reference>,
    /// Set a label of the image (can be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Write the image ID to this file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
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
}

/// Reads a platform; `local` is this machine's, as in docker.
fn platform(text: &str) -> oci::Result<Platform> {
    if text == "local" { Ok(Platform::host()) } else { text.parse() }
}

impl OutputArgs {
    /// Returns the labels by name.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let pairs = self.label.iter().map(|text| text.split_once('=').unwrap_or((text, "")));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
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

    /// Makes one image of the builds and gives it its names, writing only what is new.
    pub(super) fn finish(&self, lease: &Lease, builds: Vec<Built>) -> crate::Result<Finished> {
        let finished = Finished::new(lease, builds)?;
        let images = lease.store().images();
        if self.tag.is_empty() {
            images.set_untagged(lease, &finished.image)?;
        }
        for tag in &self.tag {
            if images.get(tag)?.as_ref() != Some(&finished.image) {
                images.set(lease, tag, &finished.image)?;
            }
        }
        Ok(finished)
    }

    /// Tells the user, and whoever asked for files, what was built.
    pub(super) fn report(
        &self,
        finished: &Finished,
        progress: &Progress,
        started: Instant,
    ) -> anyhow::Result<()> {
        let image_id = finished.image_id();
        if let Some(path) = &self.iidfile {
            fs::write(path, image_id.to_string())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        if self.quiet {
            writeln!(std::io::stdout(), "{image_id}")?;
        }
        summary::print(&self.tag, finished, progress, started.elapsed());
        Ok(())
    }
}

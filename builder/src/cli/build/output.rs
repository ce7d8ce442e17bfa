//! The flags that say what comes out of a build, and for which platform.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, bail};
use oci::{Platform, Reference};
use store::Lease;

use super::super::progress::Progress;
use super::summary;
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
    /// Platform to build for; only the host's for now
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

impl OutputArgs {
    /// Returns the labels by name.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let pairs = self.label.iter().map(|text| text.split_once('=').unwrap_or((text, "")));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Returns the platform to build for.
    pub(super) fn platform(&self) -> anyhow::Result<Platform> {
        let host = Platform::host();
        let platform = self.platform.clone().unwrap_or_else(|| host.clone());
        if !host.matches(&platform) {
            bail!("building for {platform} on {host} is not supported yet");
        }
        Ok(platform)
    }

    /// Gives the image its names, writing only what is new.
    pub(super) fn name(&self, lease: &Lease, built: &Built) -> crate::Result<()> {
        let images = lease.store().images();
        if self.tag.is_empty() {
            images.set_untagged(lease, &built.manifest)?;
        }
        for tag in &self.tag {
            if images.get(tag)?.as_ref() != Some(&built.manifest) {
                images.set(lease, tag, &built.manifest)?;
            }
        }
        Ok(())
    }

    /// Tells the user, and whoever asked for files, what was built.
    pub(super) fn report(
        &self,
        built: &Built,
        progress: &Progress,
        started: Instant,
    ) -> anyhow::Result<()> {
        if let Some(path) = &self.iidfile {
            fs::write(path, built.image_id.to_string())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        if self.quiet {
            writeln!(std::io::stdout(), "{}", built.image_id)?;
        }
        summary::print(&self.tag, built, progress, started.elapsed());
        Ok(())
    }
}

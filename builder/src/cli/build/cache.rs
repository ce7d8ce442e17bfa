//! Flags about what a build takes over from earlier ones.

use store::Lease;

use super::super::transfer;
use crate::cache::{self, Caching, Export, Import, Policy, Refresh};
use crate::event::Sink;
use crate::solve::Built;

/// What a build takes over from earlier ones.
#[derive(Debug, clap::Args)]
pub(super) struct CacheArgs {
    /// Run every step, whatever is recorded
    #[arg(long)]
    no_cache: bool,
    /// Run every step of these stages (can be repeated)
    #[arg(long, value_name = "STAGE[,STAGE]", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// When base images are looked up in their registries
    #[arg(
        long,
        value_name = "POLICY",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "always",
        value_parser = policy
    )]
    pull: Option<Policy>,
    /// Look results up in a cache: NAME, or type=registry|local,… (can be repeated)
    #[arg(long, value_name = "NAME|FIELDS")]
    cache_from: Vec<Import>,
    /// Leave results in a cache: type=registry|local|inline,mode=min|max,… (can be repeated)
    #[arg(long, value_name = "FIELDS")]
    cache_to: Vec<Export>,
}

impl CacheArgs {
    /// Returns what the flags ask for.
    pub(super) fn caching(&self) -> Caching {
        let refresh = if self.no_cache {
            Refresh::Everything
        } else if self.no_cache_filter.is_empty() {
            Refresh::Nothing
        } else {
            Refresh::Stages(self.no_cache_filter.clone())
        };
        Caching {
            pull: self.pull.unwrap_or_default(),
            refresh,
            may_be_partial: false,
            import: self.cache_from.clone(),
            export: self.cache_to.clone(),
        }
    }

    /// Writes the caches that were asked for.
    pub(super) fn export(
        &self,
        builds: &[Built],
        lease: &Lease,
        base: &transfer::Base<'_>,
        events: Sink<'_>,
    ) -> crate::Result<()> {
        let Some(first) = builds.first() else { return Ok(()) };
        let trails: Vec<_> = builds.iter().map(|built| &built.trail).collect();
        let of = cache::Exporting {
            lease,
            sources: &first.sources,
            pull: base,
            events,
            cancel: base.cancel,
            push: &|manifest, to| Ok(base.push_cache(lease, manifest, to)?),
        };
        cache::export(&self.cache_to, &trails, &of)
    }
}

/// Reads a policy; docker's `--pull` is also written `--pull=true`.
fn policy(text: &str) -> Result<Policy, String> {
    match text {
        "true" => Ok(Policy::Always),
        "false" => Ok(Policy::Missing),
        _ => clap::ValueEnum::from_str(text, true)
            .map_err(|_unknown| "use always, missing, newer or never".to_owned()),
    }
}

//! Flags about what a build takes over from earlier ones.

use crate::cache::{Caching, Policy, Refresh};

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
        Caching { pull: self.pull.unwrap_or_default(), refresh, may_be_partial: false }
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

//! What a build demands of its RUN instructions, and what it lets them do.

use crate::dockerfile::RunNetwork;

/// The rules for every RUN of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunPolicy {
    /// `--network`: the network of a RUN that does not name one.
    pub network: RunNetwork,
    /// `--allow network.host`: whether `RUN --network=host` may be.
    pub allow_host_network: bool,
    /// `--allow security.insecure`: whether `RUN --security=insecure` may be.
    pub allow_insecure: bool,
}

impl Default for RunPolicy {
    /// Allows nothing beyond the usual sandbox.
    fn default() -> Self {
        Self { network: RunNetwork::Default, allow_host_network: false, allow_insecure: false }
    }
}

//! The health check of a new container.

use crate::engine::options::{HealthRequest, Interval, OnFailure};

/// How a new container is checked; what is not given is the image's.
#[derive(Debug, clap::Args)]
pub(super) struct HealthArgs {
    /// Command that finds out whether the container works, run by a shell in it
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between health checks (default 30s)
    #[arg(long, value_name = "DURATION")]
    health_interval: Option<Interval>,
    /// How long a health check may take (default 30s)
    #[arg(long, value_name = "DURATION")]
    health_timeout: Option<Interval>,
    /// How many health checks must fail in a row (default 3)
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u32>,
    /// How long failed health checks do not count after the start (default 0s)
    #[arg(long, value_name = "DURATION")]
    health_start_period: Option<Interval>,
    /// Time between health checks until one succeeds in that period (default 5s)
    #[arg(long, value_name = "DURATION")]
    health_start_interval: Option<Interval>,
    /// What becomes of the container when too many have failed
    #[arg(long, value_name = "ACTION", default_value_t = OnFailure::None, value_enum)]
    health_on_failure: OnFailure,
    /// Leave out the health check of the image
    #[arg(long)]
    no_healthcheck: bool,
}

impl HealthArgs {
    /// Turns the arguments into what the engine understands.
    pub(super) fn request(self) -> HealthRequest {
        HealthRequest {
            command: self.health_cmd,
            interval: self.health_interval,
            timeout: self.health_timeout,
            retries: self.health_retries,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
            on_failure: self.health_on_failure,
            none: self.no_healthcheck,
        }
    }
}

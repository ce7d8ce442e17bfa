//! `rrun ps`.

use std::io::{self, Write as _};

use serde_json::{Value, json};

use crate::engine::containers::Container;
use crate::engine::health::{Health, HealthStatus};
use crate::engine::network::Endpoint;
use crate::engine::options::{ContainerPort, NetworkMode};
use crate::engine::state::{Status, UNKNOWN_EXIT_CODE};
use crate::engine::timestamp::{Timestamp, in_words};

use super::filter::{self, Candidate, Filter};
use super::table::{printable, shorten, write};
use super::template::write_rows;
use super::{Context, now};

/// How much of a command and of an image's name is shown.
const COMMAND_WIDTH: usize = 20;

/// List containers
///
/// Shows the running ones. Whether a container runs is asked of the kernel,
/// not of a file.
#[derive(Debug, clap::Args)]
pub(super) struct PsArgs {
    /// Show also those that have ended
    #[arg(short, long)]
    all: bool,
    /// Show only those with, for example, status=exited, name=web, label=KEY[=VALUE] (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// Show the last ones that were made, running or not
    #[arg(short = 'n', long, value_name = "NUMBER", conflicts_with = "latest")]
    last: Option<usize>,
    /// Show the last one that was made, running or not
    #[arg(short, long)]
    latest: bool,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// Print json, or a template such as 'table {{.ID}}\t{{.Names}}'
    #[arg(long, value_name = "json|TEMPLATE", default_value = "table")]
    format: String,
    /// Print ids and commands in full
    #[arg(long)]
    no_trunc: bool,
}

/// A row: what is shown of a container.
struct Row {
    id: String,
    image: String,
    command: String,
    created: Timestamp,
    running_for: String,
    state: &'static str,
    status: String,
    names: String,
    labels: String,
    networks: String,
    ports: String,
}

pub(super) fn run(args: &PsArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    engine.sweep();
    let now = now();
    let tests: Vec<_> = args
        .filter
        .iter()
        .map(|filter| filter.prepare(engine.containers()))
        .collect::<Result<_, _>>()?;
    let last = if args.latest { Some(1) } else { args.last };
    let all = args.all || last.is_some() || args.filter.iter().any(Filter::is_about_all);
    let mut rows = Vec::new();
    // The newest come first.
    for container in engine.containers().list()? {
        let status = container.status()?;
        let state = container.state_word(&status);
        let candidate = Candidate { container: &container, status: &status, state };
        if (all || status.is_active())
            && last.is_none_or(|last| rows.len() < last)
            && filter::passes(&tests, &candidate)
        {
            rows.push(Row::new(&candidate, now, !args.no_trunc));
        }
    }
    let mut out = io::stdout().lock();
    if args.quiet {
        for row in &rows {
            writeln!(out, "{}", row.id)?;
        }
        return Ok(0);
    }
    match args.format.as_str() {
        "table" => {
            let heading =
                ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
            let mut table = vec![heading.map(str::to_owned).to_vec()];
            table.extend(rows.iter().map(Row::cells));
            write(&mut out, &table)?;
        }
        format => {
            write_rows(&mut out, format, &rows.iter().map(Row::to_json).collect::<Vec<_>>())?;
        }
    }
    Ok(0)
}

impl Row {
    fn new(candidate: &Candidate<'_>, now: Timestamp, shorten_it: bool) -> Self {
        let Candidate { container, status, state } = candidate;
        let config = &container.config;
        let command = printable(&config.process.args.join(" "));
        let created = config.created;
        let labels: Vec<_> =
            config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Self {
            id: if shorten_it { config.id.short().to_owned() } else { config.id.to_string() },
            image: printable(&config.image.reference),
            command: match shorten_it {
                true => format!("\"{}\"", shorten(&command, COMMAND_WIDTH)),
                false => format!("\"{command}\""),
            },
            created,
            running_for: format!("{} ago", in_words(created.elapsed(now))),
            state,
            status: describe(status, *state == "paused", health(container, status), now),
            names: config.name.to_string(),
            labels: printable(&labels.join(",")),
            networks: config.network.to_string(),
            ports: match status {
                Status::Running(_) => ports(container),
                Status::Created | Status::Restarting(..) | Status::Exited(..) | Status::Lost(_) => {
                    String::new()
                }
            },
        }
    }

    fn cells(&self) -> Vec<String> {
        let Self { id, image, command, running_for, status, ports, names, .. } = self;
        [id, image, command, running_for, status, ports, names].map(Clone::clone).to_vec()
    }

    /// Returns the fields by docker's names.
    fn to_json(&self) -> Value {
        json!({
            "ID": self.id,
            "Image": self.image,
            "Command": self.command,
            "CreatedAt": self.created.to_string(),
            "RunningFor": self.running_for,
            "State": self.state,
            "Status": self.status,
            "Ports": self.ports,
            "Names": self.names,
            "Labels": self.labels,
            "Networks": self.networks,
        })
    }
}

/// Says how the ports of a running container are reached, in docker's words.
fn ports(container: &Container) -> String {
    // One that is just being removed has none.
    let endpoint = Endpoint::read(container.dir()).ok().flatten();
    let bindings = endpoint.map(|endpoint| endpoint.ports).unwrap_or_default();
    let mut ports: Vec<String> = bindings
        .iter()
        .map(|port| format!("{}:{}->{}", port.host_ip, port.host_port, port.container))
        .collect();
    let place = &container.config.place;
    if matches!(container.config.network, NetworkMode::Named(_)) {
        let is_bound = |port: &&ContainerPort| bindings.iter().any(|it| it.container == **port);
        let others = place.exposed.iter().filter(|port| !is_bound(port));
        ports.extend(others.map(ToString::to_string));
    }
    ports.join(", ")
}

/// Says what its health checks have found.
fn health(container: &Container, status: &Status) -> Option<HealthStatus> {
    // One that is just being removed has none.
    Health::of(container, status).ok().flatten().map(|health| health.status)
}

/// Says what a container is doing, in docker's words.
fn describe(
    status: &Status,
    is_paused: bool,
    health: Option<HealthStatus>,
    now: Timestamp,
) -> String {
    match status {
        Status::Created => "Created".to_owned(),
        Status::Running(running) => {
            let remark = match health {
                _ if is_paused => " (Paused)",
                None => "",
                Some(HealthStatus::Starting) => " (health: starting)",
                Some(HealthStatus::Healthy) => " (healthy)",
                Some(HealthStatus::Unhealthy) => " (unhealthy)",
            };
            format!("Up {}{remark}", in_words(running.started.elapsed(now)))
        }
        Status::Restarting(_, exit) => {
            format!("Restarting ({}) {} ago", exit.code, in_words(exit.finished.elapsed(now)))
        }
        Status::Exited(_, exit) => {
            format!("Exited ({}) {} ago", exit.code, in_words(exit.finished.elapsed(now)))
        }
        Status::Lost(_) => format!("Exited ({UNKNOWN_EXIT_CODE}) at an unknown time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::state::{ExitRecord, Running};
    use std::time::{Duration, UNIX_EPOCH};

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn a_status_is_said_as_docker_says_it() {
        let running = Running {
            pid: 1,
            start_time: 1,
            shim_pid: 1,
            shim_start_time: 1,
            boot_id: String::new(),
            started: at(100),
            restarts: 0,
        };
        let exit = ExitRecord {
            pid: Some(1),
            start_time: Some(1),
            code: 137,
            signal: Some(9),
            oom_killed: false,
            finished: at(340),
            restart_ms: None,
            error: None,
        };
        for (status, expected) in [
            (Status::Created, "Created"),
            (Status::Running(running.clone()), "Up 5 minutes"),
            (
                Status::Restarting(running.clone(), exit.clone()),
                "Restarting (137) About a minute ago",
            ),
            (Status::Exited(None, exit), "Exited (137) About a minute ago"),
            (Status::Lost(running), "Exited (255) at an unknown time"),
        ] {
            assert_eq!(describe(&status, false, None, at(400)), expected);
            let paused = describe(&status, true, Some(HealthStatus::Healthy), at(400));
            assert_eq!(paused.ends_with(" (Paused)"), matches!(status, Status::Running(_)));
        }
    }
}

//! `rrun inspect`.

use std::io::{self, Write as _};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::engine::Engine;
use crate::engine::config::Config;
use crate::engine::containers::Container;
use crate::engine::health::{Health, Probe};
use crate::engine::network::Endpoint;
use crate::engine::options::{MountRequest, SeccompChoice, SwapLimit};
use crate::engine::state::{Running, Status, UNKNOWN_EXIT_CODE};
use crate::engine::volume::anonymous_dir;

use super::template::Template;
use super::{Context, for_each};

/// Docker's way to write that something has not happened yet.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Print everything known about containers, as JSON
#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// Print json on one line, or a template such as '{{.State.Pid}}'
    #[arg(short, long, value_name = "json|TEMPLATE")]
    format: Option<String>,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(super) fn run(args: &InspectArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    each(&args.containers, args.format.as_deref(), |name| {
        let container = engine.containers().find(name)?;
        let status = container.status()?;
        let mut value = describe(&engine, &container, &status);
        add_health(&mut value, &container, &status)?;
        Ok(value)
    })
}

/// Prints what `describe` says of each name, by a template or as one JSON array.
pub(super) fn each(
    names: &[String],
    format: Option<&str>,
    describe: impl Fn(&str) -> anyhow::Result<Value>,
) -> anyhow::Result<u8> {
    let template = match format {
        None | Some("json") => None,
        Some(text) => Some(Template::parse(text).map_err(anyhow::Error::msg)?),
    };
    let mut found = Vec::new();
    let code = for_each(names, |name| {
        let value = describe(name)?;
        match &template {
            Some(template) => {
                let text = template.render(&value).map_err(anyhow::Error::msg)?;
                writeln!(io::stdout(), "{text}")?;
            }
            None => found.push(value),
        }
        Ok(())
    })?;
    if template.is_none() {
        let text = match format {
            Some(_) => serde_json::to_string(&found)?,
            None => serde_json::to_string_pretty(&found)?,
        };
        writeln!(io::stdout(), "{text}")?;
    }
    Ok(code)
}

/// Returns a container under docker's names, as far as they mean something.
fn describe(engine: &Engine, container: &Container, status: &Status) -> Value {
    let config = &container.config;
    let (program, arguments) = match config.process.args.split_first() {
        Some((program, arguments)) => (program.as_str(), arguments),
        None => ("", &[][..]),
    };
    json!({
        "Id": config.id.as_str(),
        "Created": config.created.to_string(),
        "Path": program,
        "Args": arguments,
        "State": state(status, container.state_word(status)),
        "RestartCount": status.last_start().map_or(0, |running| running.restarts),
        "Image": config.image.id.to_string(),
        "ResolvConfPath": container.dir().join("resolv.conf"),
        "HostnamePath": container.dir().join("hostname"),
        "HostsPath": container.dir().join("hosts"),
        "LogPath": container.log(),
        "Name": format!("/{}", config.name),
        "Platform": "linux",
        "HostConfig": host_config(config),
        "Mounts": mounts(engine, container),
        "Config": {
            "Hostname": config.hostname,
            "User": config.process.user,
            "Tty": config.process.terminal,
            "OpenStdin": config.open_stdin,
            "Env": config.process.env,
            "Cmd": config.process.args,
            "Image": config.image.reference,
            "WorkingDir": config.process.cwd,
            "Labels": config.labels,
            "StopSignal": config.stop_signal.to_string(),
            "ExposedPorts": config.place.exposed.iter()
                .map(|port| (port.to_string(), json!({}))).collect::<Map<_, _>>(),
        },
        "NetworkSettings": network_settings(container, status),
    })
}

/// Adds what is only there of a container with a health check.
fn add_health(value: &mut Value, container: &Container, status: &Status) -> anyhow::Result<()> {
    if let Some(config) = &container.config.health {
        // Docker's times are nanoseconds.
        let time = |ms: u64| ms.saturating_mul(1_000_000);
        value["Config"]["Healthcheck"] = json!({
            "Test": config.test,
            "Interval": time(config.interval_ms),
            "Timeout": time(config.timeout_ms),
            "StartPeriod": time(config.start_period_ms),
            "StartInterval": time(config.start_interval_ms),
            "Retries": config.retries,
        });
        value["Config"]["HealthcheckOnFailureAction"] = json!(config.on_failure.to_string());
    }
    if let Some(health) = Health::of(container, status)? {
        let entry = |probe: &Probe| {
            json!({
                "Start": probe.start.to_string(),
                "End": probe.end.to_string(),
                "ExitCode": probe.code,
                "Output": probe.output,
            })
        };
        value["State"]["Health"] = json!({
            "Status": health.status.word(),
            "FailingStreak": health.streak,
            "Log": health.log.iter().map(entry).collect::<Vec<_>>(),
        });
    }
    Ok(())
}

/// Returns a container's place in its network: empty unless it runs.
fn network_settings(container: &Container, status: &Status) -> Value {
    let config = &container.config;
    let endpoint = match status {
        // One that is just being removed has none.
        Status::Running(_) => Endpoint::read(container.dir()).ok().flatten(),
        Status::Created | Status::Restarting(..) | Status::Exited(..) | Status::Lost(_) => None,
    };
    let mut ports: Map<String, Value> =
        config.place.exposed.iter().map(|port| (port.to_string(), Value::Null)).collect();
    for port in endpoint.iter().flat_map(|endpoint| &endpoint.ports) {
        let binding = json!({
            "HostIp": port.host_ip.to_string(),
            "HostPort": port.host_port.to_string(),
        });
        match ports.entry(port.container.to_string()).or_insert(Value::Null) {
            Value::Array(bindings) => bindings.push(binding),
            none => *none = json!([binding]),
        }
    }
    let text = |of: &dyn Fn(&Endpoint) -> String| endpoint.as_ref().map(of).unwrap_or_default();
    let place = json!({
        "IPAddress": text(&|it| it.address.to_string()),
        "IPPrefixLen": endpoint.as_ref().map_or(0, |it| it.prefix),
        "Gateway": text(&|it| it.gateway.to_string()),
        "MacAddress": text(&|it| it.mac.clone()),
    });
    let mut settings = place.clone();
    settings["Ports"] = Value::Object(ports);
    settings["Networks"] = json!({ config.network.to_string(): place });
    settings
}

fn state(status: &Status, word: &str) -> Value {
    let started = |running: Option<&Running>| {
        running.map_or(NEVER.to_owned(), |running| running.started.to_string())
    };
    let (running, code, oom_killed, started, finished) = match status {
        Status::Created => (None, 0, false, started(None), NEVER.to_owned()),
        Status::Running(running) => {
            (Some(running), 0, false, started(Some(running)), NEVER.to_owned())
        }
        Status::Restarting(running, exit) => {
            (None, exit.code, exit.oom_killed, started(Some(running)), exit.finished.to_string())
        }
        Status::Exited(running, exit) => {
            (None, exit.code, exit.oom_killed, started(running.as_ref()), exit.finished.to_string())
        }
        Status::Lost(running) => {
            (None, UNKNOWN_EXIT_CODE, false, started(Some(running)), NEVER.to_owned())
        }
    };
    let error = match status {
        Status::Lost(_) => "whoever watched it was killed, or the machine was switched off",
        Status::Exited(_, exit) => exit.error.as_deref().unwrap_or(""),
        Status::Created | Status::Running(_) | Status::Restarting(..) => "",
    };
    json!({
        "Status": word,
        "Running": status.is_active(),
        "Paused": word == "paused",
        "Restarting": matches!(status, Status::Restarting(..)),
        "OOMKilled": oom_killed,
        "Dead": false,
        "Pid": running.map_or(0, |running| running.pid),
        "ExitCode": code,
        "Error": error,
        "StartedAt": started,
        "FinishedAt": finished,
    })
}

fn host_config(config: &Config) -> Value {
    let limits = &config.limits;
    let names = |list: &[crate::engine::options::Capability]| -> Vec<String> {
        list.iter().map(|capability| format!("CAP_{}", capability.as_str())).collect()
    };
    let mut security: Vec<String> = Vec::new();
    if config.security.no_new_privileges {
        security.push("no-new-privileges".to_owned());
    }
    match &config.security.seccomp {
        SeccompChoice::Default => {}
        SeccompChoice::Unconfined => security.push("seccomp=unconfined".to_owned()),
        SeccompChoice::File(path) => security.push(format!("seccomp={}", path.display())),
    }
    json!({
        "AutoRemove": config.remove,
        "RestartPolicy": {
            "Name": config.restart.name(),
            "MaximumRetryCount": config.restart.limit(),
        },
        "NetworkMode": config.network.to_string(),
        "ReadonlyRootfs": config.read_only,
        "Init": config.process.init,
        "Memory": limits.memory.map_or(0, |memory| memory.0),
        "MemorySwap": match limits.memory_swap {
            None => json!(0),
            Some(SwapLimit::Unlimited) => json!(-1),
            Some(SwapLimit::Total(total)) => json!(total.0),
        },
        "NanoCpus": limits.cpus.map_or(0, |cpus| u64::from(cpus.milli) * 1_000_000),
        "PidsLimit": limits.pids.0,
        "Ulimits": limits.ulimits.iter().map(|limit| json!({
            "Name": limit.resource,
            "Soft": limit.soft.map_or(json!(-1), |soft| json!(soft)),
            "Hard": limit.hard.map_or(json!(-1), |hard| json!(hard)),
        })).collect::<Vec<_>>(),
        "CapAdd": names(&config.security.cap_add),
        "CapDrop": names(&config.security.cap_drop),
        "SecurityOpt": security,
    })
}

/// Returns what is mounted, and where it is on this machine.
fn mounts(engine: &Engine, container: &Container) -> Vec<Value> {
    let mut anonymous = 0;
    let mut described = Vec::new();
    for request in &container.config.mounts {
        described.push(match request {
            MountRequest::Bind(bind) => mount("bind", &bind.source, &bind.target, bind.readonly),
            MountRequest::Tmpfs(tmpfs) => {
                mount("tmpfs", Path::new(""), &tmpfs.target, tmpfs.readonly)
            }
            MountRequest::Volume(volume) => {
                let source = anonymous_dir(container.dir(), anonymous);
                anonymous += 1;
                volume_mount("", &source, &volume.target, volume.readonly)
            }
            MountRequest::Named(volume) => {
                let source = engine.volumes().data(&volume.name);
                volume_mount(volume.name.as_str(), &source, &volume.target, volume.readonly)
            }
        });
    }
    described
}

fn mount(kind: &str, source: &Path, target: &Path, readonly: bool) -> Value {
    json!({
        "Type": kind,
        "Source": source,
        "Destination": target,
        "Mode": "",
        "RW": !readonly,
        "Propagation": if kind == "bind" { "rprivate" } else { "" },
    })
}

/// Describes a volume; an anonymous one has no name here.
fn volume_mount(name: &str, source: &Path, target: &Path, readonly: bool) -> Value {
    let mut value = mount("volume", source, target, readonly);
    value["Name"] = json!(name);
    value["Driver"] = json!("local");
    value
}

//! The flags about RUN steps: what they may use, see and do.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use sandbox::{Limits, Resource, Rlimit, SecretBytes};

use super::environment;
use crate::dockerfile::{RunNetwork, csv_fields, units::parse_bytes};
use crate::plan::RunPolicy;
use crate::solve::{AgentSource, RunOptions, SecretSource};

/// Where an SSH agent is announced.
const AGENT: &str = "SSH_AUTH_SOCK";
/// The limit of a control group that is almost none: the least that `--cpus` takes.
const LEAST_CPUS: f64 = 0.001;

#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// Secret for `RUN --mount=type=secret`: id=ID[,src=FILE|,env=VARIABLE] (can be repeated)
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// SSH agent for `RUN --mount=type=ssh`: default, or ID=SOCKET, or ID=KEY[,KEY] (can be repeated)
    #[arg(long, value_name = "AGENT")]
    ssh: Vec<String>,
    /// Line of /etc/hosts in RUN: NAME:ADDRESS; `host-gateway` is this machine (can be repeated)
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = host)]
    add_host: Vec<(String, IpAddr)>,
    /// Network of RUN: default (this machine's), none or host
    #[arg(long, value_name = "MODE", default_value = "default", value_parser = network)]
    network: RunNetwork,
    /// Size of /dev/shm in RUN [default: 64m]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    shm_size: Option<u64>,
    /// Resource limit of RUN: NAME=SOFT[:HARD] (can be repeated)
    #[arg(long, value_name = "LIMIT", value_parser = ulimit)]
    ulimit: Vec<Rlimit>,
    /// Control group below which those of RUN are made
    #[arg(long, value_name = "PATH", value_parser = cgroup_parent)]
    cgroup_parent: Option<PathBuf>,
    /// Memory that a RUN may use, such as 512m
    #[arg(short, long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<u64>,
    /// Processors that a RUN may use, such as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = cpus)]
    cpus: Option<f64>,
    /// What RUN may ask for: network.host or security.insecure (can be repeated)
    #[arg(long, value_name = "WHAT", value_parser = entitlement)]
    allow: Vec<Entitlement>,
}

/// What a build has to permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entitlement {
    NetworkHost,
    SecurityInsecure,
}

impl RunArgs {
    /// Returns the rules for planning.
    pub(super) fn policy(&self) -> RunPolicy {
        RunPolicy {
            network: self.network,
            // Whoever asks for the host's network everywhere allows it, as with buildx.
            allow_host_network: self.allow.contains(&Entitlement::NetworkHost)
                || self.network == RunNetwork::Host,
            allow_insecure: self.allow.contains(&Entitlement::SecurityInsecure),
        }
    }

    /// Returns the surroundings of RUN steps.
    pub(super) fn options(&self) -> anyhow::Result<RunOptions> {
        let mut options = RunOptions {
            hosts: self.add_host.clone(),
            shm_bytes: self.shm_size,
            ulimits: self.ulimit.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            limits: Limits { memory_bytes: self.memory, cpus: self.cpus, ..Limits::default() },
            ..RunOptions::default()
        };
        for text in &self.secret {
            let (id, source) = secret(text, &environment::raw_variable)
                .with_context(|| format!("--secret {text}"))?;
            options.secrets.insert(&id, source);
        }
        for text in &self.ssh {
            let (id, source) =
                agent(text, &environment::variable).with_context(|| format!("--ssh {text}"))?;
            options.agents.insert(&id, source);
        }
        Ok(options)
    }
}

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads a secret as buildx does: without a place, its id names a variable, else a file.
fn secret(text: &str, variable: Lookup<'_>) -> anyhow::Result<(String, SecretSource)> {
    let (mut id, mut kind, mut file, mut name) = (None, None, None, None);
    for field in csv_fields(text).map_err(|error| anyhow!("{error}"))? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| anyhow!("invalid field '{field}' must be a key=value pair"))?;
        let value = value.to_owned();
        match key.to_ascii_lowercase().as_str() {
            "type" if value == "file" || value == "env" => kind = Some(value),
            "type" => bail!("unsupported secret type {value:?}"),
            "id" => id = Some(value),
            "source" | "src" => file = Some(value),
            "env" => name = Some(value),
            _ => bail!("unexpected key '{key}' in '{field}'"),
        }
    }
    let id = id.filter(|id| !id.is_empty()).context("secret missing ID")?;
    if kind.as_deref() == Some("env") && name.is_none() {
        name = file.take();
    }
    let name = name.or_else(|| {
        (file.is_none() && kind.as_deref() != Some("file") && variable(&id).is_some())
            .then(|| id.clone())
    });
    if let Some(name) = name {
        let value = variable(&name).with_context(|| format!("the variable {name} is not set"))?;
        return Ok((id, SecretSource::Value(SecretBytes::new(value.into_bytes()))));
    }
    let path = PathBuf::from(file.unwrap_or_else(|| id.clone()));
    std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((id, SecretSource::File(std::path::absolute(path)?)))
}

fn agent(text: &str, variable: Lookup<'_>) -> anyhow::Result<(String, AgentSource)> {
    use std::os::unix::fs::FileTypeExt as _;

    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { "default" } else { id };
    let paths: Vec<PathBuf> = if paths.is_empty() {
        let socket = variable(AGENT);
        vec![socket.with_context(|| format!("{AGENT} is not set: is an agent running?"))?.into()]
    } else {
        paths.split(',').map(PathBuf::from).collect()
    };
    let mut keys = Vec::new();
    let mut sockets = Vec::new();
    for path in paths {
        let kind = std::fs::metadata(&path)
            .with_context(|| format!("cannot use {}", path.display()))?
            .file_type();
        let path = std::path::absolute(path)?;
        if kind.is_socket() { sockets.push(path) } else { keys.push(path) }
    }
    match (sockets.pop(), keys.is_empty()) {
        (Some(socket), true) if sockets.is_empty() => {
            Ok((id.to_owned(), AgentSource::Socket(socket)))
        }
        (Some(_), _) => bail!("only a single socket is allowed, and no keys with it"),
        (None, _) => Ok((id.to_owned(), AgentSource::Keys(keys))),
    }
}

fn host(text: &str) -> Result<(String, IpAddr), String> {
    let bad = || format!("bad format for add-host: {text:?}");
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(bad());
    }
    if address == "host-gateway" {
        // RUN is in this machine's network.
        return Ok((name.to_owned(), Ipv4Addr::LOCALHOST.into()));
    }
    let inner = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let parsed = inner.unwrap_or(address).parse();
    let address = parsed.map_err(|_| format!("invalid IP address in add-host: {address:?}"))?;
    Ok((name.to_owned(), address))
}

fn network(text: &str) -> Result<RunNetwork, String> {
    match text {
        "" | "default" => Ok(RunNetwork::Default),
        "none" => Ok(RunNetwork::None),
        "host" => Ok(RunNetwork::Host),
        _ => Err(format!("there is no network {text:?} for a build, only default, none and host")),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| format!("{text:?} is not an amount such as 512k, 64m or 1.5g"))
}

fn cpus(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number
        .filter(|number| *number >= LEAST_CPUS)
        .ok_or_else(|| format!("{text:?} is not a number of processors such as 0.5 or 2"))
}

fn ulimit(text: &str) -> Result<Rlimit, String> {
    let (name, values) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=SOFT[:HARD]"))?;
    let resource = Resource::ALL.iter().copied().find(|known| known.name() == name);
    let resource = resource.ok_or_else(|| {
        let names: Vec<&str> = Resource::ALL.iter().map(|known| known.name()).collect();
        format!("no resource {name:?}; there are {}", names.join(", "))
    })?;
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| format!("{text:?} is not a number, or -1")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        return Err(format!("the soft limit of {text:?} is above the hard limit"));
    }
    Ok(Rlimit { resource, soft, hard, required: true })
}

fn cgroup_parent(text: &str) -> Result<PathBuf, String> {
    let is_path = !text.is_empty() && text.split('/').all(|part| part != ".." && part != ".");
    if !is_path || text.contains(':') {
        return Err(format!("{text:?} is not a path of control groups"));
    }
    Ok(PathBuf::from(text))
}

fn entitlement(text: &str) -> Result<Entitlement, String> {
    match text {
        "network.host" => Ok(Entitlement::NetworkHost),
        "security.insecure" => Ok(Entitlement::SecurityInsecure),
        _ => Err(format!("there is no {text:?}, only network.host and security.insecure")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        (name == "TOKEN").then(|| "canary".to_owned())
    }

    #[test]
    fn secrets_come_from_files_and_variables() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        std::fs::write(&path, "x").unwrap();
        let path = path.to_str().unwrap();
        let parsed = |text: &str| {
            secret(text, &variables).map(|(id, source)| match source {
                SecretSource::File(path) => format!("{id} file {}", path.display()),
                SecretSource::Value(value) => {
                    format!("{id} value {}", String::from_utf8_lossy(value.expose()))
                }
            })
        };
        assert_eq!(parsed(&format!("id=a,src={path}")).unwrap(), format!("a file {path}"));
        assert_eq!(
            parsed(&format!("type=file,id=a,source={path}")).unwrap(),
            format!("a file {path}")
        );
        assert_eq!(parsed("id=a,env=TOKEN").unwrap(), "a value canary");
        assert_eq!(parsed("id=a,type=env,src=TOKEN").unwrap(), "a value canary");
        assert_eq!(parsed("id=TOKEN").unwrap(), "TOKEN value canary");
        for (text, expected) in [
            ("src=/x", "secret missing ID"),
            ("id=a,env=NONE", "the variable NONE is not set"),
            ("id=a,type=vault", "unsupported secret type \"vault\""),
            ("id=a,mode=1", "unexpected key 'mode' in 'mode=1'"),
            ("id", "invalid field 'id' must be a key=value pair"),
            ("id=/no/such/file", "cannot read /no/such/file"),
        ] {
            assert_eq!(parsed(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn agents_are_sockets_or_keys() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let _listener = std::os::unix::net::UnixListener::bind(at("sock")).unwrap();
        std::fs::write(at("key"), "").unwrap();
        let socket = AgentSource::Socket(at("sock").into());
        let known = |name: &str| (name == AGENT).then(|| at("sock"));
        assert_eq!(agent("default", &known).unwrap(), ("default".into(), socket.clone()));
        assert_eq!(agent("", &known).unwrap(), ("default".into(), socket.clone()));
        assert_eq!(agent(&format!("gh={}", at("sock")), &|_| None).unwrap(), ("gh".into(), socket));
        let keys = AgentSource::Keys(vec![at("key").into(), at("key").into()]);
        let text = format!("gh={},{}", at("key"), at("key"));
        assert_eq!(agent(&text, &|_| None).unwrap(), ("gh".into(), keys));
        for text in
            ["default".to_owned(), format!("x={},{}", at("sock"), at("key")), "x=/no/such".into()]
        {
            assert!(agent(&text, &|_| None).is_err(), "accepted {text}");
        }
    }

    #[test]
    fn hosts_have_both_separators_and_no_second_line() {
        for (text, name, address) in [
            ("db:10.0.0.1", "db", "10.0.0.1"),
            ("db=10.0.0.1", "db", "10.0.0.1"),
            ("db:::1", "db", "::1"),
            ("db=[2001:db8::1]", "db", "2001:db8::1"),
            ("me:host-gateway", "me", "127.0.0.1"),
        ] {
            assert_eq!(host(text), Ok((name.to_owned(), address.parse().unwrap())), "{text}");
        }
        for text in ["db", ":1.2.3.4", "db:x", "a b:1.2.3.4", "a\nb:1.2.3.4", "a#:1.2.3.4", "db:"] {
            assert!(host(text).is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn limits_are_numbers_that_make_sense() {
        assert_eq!(bytes("64m"), Ok(64 << 20));
        assert!(bytes("0").is_err() && bytes("x").is_err() && bytes("-1").is_err());
        assert_eq!(cpus("1.5"), Ok(1.5));
        for text in ["0", "-1", "NaN", "inf", "x"] {
            assert!(cpus(text).is_err(), "accepted {text}");
        }
        let limit = ulimit("nofile=10:20").unwrap();
        assert_eq!(
            (limit.resource, limit.soft, limit.hard),
            (Resource::OpenFiles, Some(10), Some(20))
        );
        for text in ["nofile", "nofile=2:1", "files=1", "nofile=x"] {
            assert!(ulimit(text).is_err(), "accepted {text}");
        }
        for text in ["", "..", "/a/../b", "system.slice:rbuild:x"] {
            assert!(cgroup_parent(text).is_err(), "accepted {text}");
        }
        assert_eq!(network("none"), Ok(RunNetwork::None));
        assert!(network("bridge").is_err());
        assert!(entitlement("device").is_err());
    }
}

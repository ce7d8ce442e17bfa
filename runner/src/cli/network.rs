//! `rrun network`.

use std::io::{self, Write as _};
use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

use crate::engine::Engine;
use crate::engine::Error;
use crate::engine::name::Name;
use crate::engine::network::{NetworkConfig, NetworkRequest, Subnet};
use crate::engine::options::Label;

use super::inspect::each;
use super::table::write;
use super::template::Template;
use super::{Context, for_each, now};

/// Make, list and remove networks
#[derive(Debug, clap::Subcommand)]
pub(super) enum NetworkCommand {
    Create(CreateArgs),
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    Inspect(InspectArgs),
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    Prune(PruneArgs),
}

/// Make a network, and print its id
///
/// Containers in it reach each other, and nothing in other networks.
#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// Kind of network; there is only bridge
    #[arg(short, long, default_value = "bridge", value_parser = ["bridge"])]
    driver: String,
    /// Addresses, such as 10.5.0.0/24; chosen otherwise
    #[arg(long, value_name = "RANGE")]
    subnet: Option<Subnet>,
    /// Address of this machine in the network; the first one otherwise
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    /// Let nothing outside be reached from it
    #[arg(long)]
    internal: bool,
    /// Label the network (can be repeated)
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<Label>,
    /// Name
    name: Name,
}

/// List networks
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// Print json, or a template such as '{{.Name}}'
    #[arg(long, value_name = "json|TEMPLATE", default_value = "table")]
    format: String,
    /// Print ids in full
    #[arg(long)]
    no_trunc: bool,
}

/// Print everything known about networks, as JSON
#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// Print json on one line, or a template such as '{{.Driver}}'
    #[arg(short, long, value_name = "json|TEMPLATE")]
    format: Option<String>,
    /// Networks, by name or id
    #[arg(required = true)]
    networks: Vec<String>,
}

/// Remove networks that no running container is in
///
/// That of the name bridge can be removed, too: it comes back when a container
/// wants it.
#[derive(Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// A network that is not there is no error
    #[arg(short, long)]
    force: bool,
    /// Networks, by name or id
    #[arg(required = true)]
    networks: Vec<String>,
}

/// Remove every network that no running container is in
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Do not ask, which is never done
    #[arg(short, long)]
    force: bool,
}

pub(super) fn run(command: NetworkCommand, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    match command {
        NetworkCommand::Create(args) => create(args, &engine),
        NetworkCommand::Ls(args) => list(&args, &engine),
        NetworkCommand::Inspect(args) => inspect(&args, &engine),
        NetworkCommand::Rm(args) => remove(&args, &engine),
        NetworkCommand::Prune(_) => prune(&engine),
    }
}

fn create(args: CreateArgs, engine: &Engine) -> anyhow::Result<u8> {
    let request = NetworkRequest {
        subnet: args.subnet,
        gateway: args.gateway,
        internal: args.internal,
        mtu: None,
        labels: args.label.into_iter().map(|label| (label.key, label.value)).collect(),
    };
    let network = engine.networks().create(&args.name, request, now())?;
    writeln!(io::stdout(), "{}", network.id)?;
    Ok(0)
}

fn list(args: &ListArgs, engine: &Engine) -> anyhow::Result<u8> {
    let row = |id: &str, name: &str, driver: &str| json!({ "ID": id, "Name": name, "Driver": driver, "Scope": "local" });
    let mut rows: Vec<Value> = Vec::new();
    for network in engine.networks().list()? {
        let id = if args.no_trunc { network.id.as_str() } else { network.id.short() };
        rows.push(row(id, network.name.as_str(), "bridge"));
    }
    // Docker lists these, too; they are words and have no id.
    rows.extend(
        ["host", "none"].map(|name| row("-", name, if name == "host" { name } else { "null" })),
    );
    let cell = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let mut out = io::stdout().lock();
    if args.quiet {
        for row in rows.iter().filter(|row| row["ID"] != "-") {
            writeln!(out, "{}", cell(row, "ID"))?;
        }
        return Ok(0);
    }
    match args.format.as_str() {
        "json" => {
            for row in &rows {
                writeln!(out, "{row}")?;
            }
        }
        "table" => {
            let mut table =
                vec![["NETWORK ID", "NAME", "DRIVER", "SCOPE"].map(str::to_owned).to_vec()];
            table.extend(
                rows.iter().map(|row| {
                    ["ID", "Name", "Driver", "Scope"].map(|key| cell(row, key)).to_vec()
                }),
            );
            write(&mut out, &table)?;
        }
        text => {
            let template = Template::parse(text).map_err(anyhow::Error::msg)?;
            for row in &rows {
                writeln!(out, "{}", template.render(row).map_err(anyhow::Error::msg)?)?;
            }
        }
    }
    Ok(0)
}

fn inspect(args: &InspectArgs, engine: &Engine) -> anyhow::Result<u8> {
    each(&args.networks, args.format.as_deref(), |name| {
        describe(engine, &engine.networks().find(name)?)
    })
}

/// Returns a network under docker's names, as far as they mean something.
fn describe(engine: &Engine, network: &NetworkConfig) -> anyhow::Result<Value> {
    let mut containers = Map::new();
    for member in engine.networks().members(network)? {
        let place = json!({
            "Name": member.name.to_string(),
            "MacAddress": member.endpoint.mac,
            "IPv4Address": format!("{}/{}", member.endpoint.address, member.endpoint.prefix),
        });
        containers.insert(member.id.to_string(), place);
    }
    Ok(json!({
        "Name": network.name.to_string(),
        "Id": network.id.to_string(),
        "Created": network.created.to_string(),
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv6": false,
        "IPAM": {
            "Driver": "default",
            "Config": [{
                "Subnet": network.subnet.to_string(),
                "Gateway": network.gateway.to_string(),
            }],
        },
        "Internal": network.internal,
        "Containers": containers,
        "Options": {
            "com.docker.network.bridge.name": network.device,
            "com.docker.network.driver.mtu": network.mtu.to_string(),
        },
        "Labels": network.labels,
    }))
}

fn remove(args: &RemoveArgs, engine: &Engine) -> anyhow::Result<u8> {
    for_each(&args.networks, |name| {
        let network = match engine.networks().find(name) {
            Err(Error::NetworkUnknown { .. }) if args.force => return Ok(()),
            found => found?,
        };
        engine.networks().remove(&network)?;
        Ok(writeln!(io::stdout(), "{name}")?)
    })
}

fn prune(engine: &Engine) -> anyhow::Result<u8> {
    engine.sweep();
    let mut out = io::stdout().lock();
    for network in engine.networks().list()? {
        match engine.networks().remove(&network) {
            Ok(()) => writeln!(out, "{}", network.name)?,
            Err(Error::NetworkInUse { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(0)
}

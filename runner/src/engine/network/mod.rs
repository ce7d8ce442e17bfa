//! Networks: bridges of the host that containers are joined to.
//!
//! ```text
//! <root>/networks/
//! ├── .lock                   taken while networks, rules and places change
//! └── <name>/
//!     ├── config.json         device, addresses: without it there is no network
//!     ├── addresses           a lock on byte n is the address with number n
//!     └── members/<address>   the names of who has or had it, one a line
//!
//!              host                             container
//! eth0 ── rules (`ip rrun`) ── rrun0 ── rr-… ═══ eth0      a pair of devices that
//!                              bridge                      ends with its namespace
//! ```
//!
//! Nothing is resident and nothing is executed: everything is a message to the
//! kernel. `bridge` is made by the first container that wants it.
//!
//! # Invariants
//!
//! - What a container holds of a network is held by locks and sockets of
//!   whoever stays with it: `kill -9` gives it back. What the packet filter
//!   still says then is taken away by the next command that looks.
//! - The bridge of a network is known by its hardware address. Any other device
//!   that has its name is left alone.

mod addresses;
mod config;
mod device;
mod endpoint;
mod members;
mod nft;
mod ports;
mod resolver;
mod rules;
mod subnet;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::containers::{Containers, make_private_dir};
use super::error::{Error, IoContext as _, Result};
use super::id::ContainerId;
use super::name::Name;
use super::state::{read_json, write_json};
use super::timestamp::Timestamp;
use addresses::Addresses;
pub use config::{NetworkConfig, VERSION, mac_of, mac_text};
use device::Devices;
pub use endpoint::{Endpoint, Membership, PortBinding};
pub use members::{Guest, Member, Place};
pub use resolver::{Resolver, resolv_conf};
use rules::Rules;
pub use subnet::Subnet;

/// What the names of all our bridges begin with; rules of the packet filter
/// know them by it.
pub const DEVICE_PREFIX: &str = "rrun";

/// The name of the network that every machine has.
pub const DEFAULT: &str = "bridge";

/// More networks than a machine has; reached only if all names are taken.
const DEVICES_MAX: u32 = 4096;

/// What a new network is to be like.
#[derive(Clone, Debug, Default)]
pub struct NetworkRequest {
    /// The addresses of its containers; chosen otherwise.
    pub subnet: Option<Subnet>,
    /// The address of the host in it; the first one otherwise.
    pub gateway: Option<Ipv4Addr>,
    /// Whether nothing outside is reached from it.
    pub internal: bool,
    /// The size of the largest packet in bytes; that of the way out otherwise.
    pub mtu: Option<u32>,
    /// Its labels.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// The networks of one state directory.
#[derive(Clone, Debug)]
pub struct Networks {
    dir: PathBuf,
    containers: Containers,
}

impl Networks {
    /// Returns the networks below `root`, which exists.
    pub fn new(root: &Path, containers: Containers) -> Self {
        Self { dir: root.join("networks"), containers }
    }

    /// Finds a network by its name, its id or the beginning of that.
    ///
    /// # Errors
    ///
    /// [`Error::NetworkUnknown`], and when its files cannot be read.
    pub fn find(&self, text: &str) -> Result<NetworkConfig> {
        if let Ok(name) = text.parse::<Name>()
            && let Some(config) = self.load(&name)?
        {
            return Ok(config);
        }
        let mut found = self.list()?;
        found.retain(|network| text.len() >= 4 && network.id.as_str().starts_with(text));
        match (found.pop(), found.is_empty()) {
            (Some(network), true) => Ok(network),
            _ => Err(Error::NetworkUnknown { name: text.to_owned() }),
        }
    }

    /// Returns every network, by name.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or understood.
    pub fn list(&self) -> Result<Vec<NetworkConfig>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.doing("list", &self.dir)?,
        };
        let mut networks = Vec::new();
        for entry in entries {
            let entry = entry.doing("list", &self.dir)?;
            let name = entry.file_name().to_str().and_then(|name| name.parse::<Name>().ok());
            if let Some(name) = name
                && let Some(network) = self.load(&name)?
            {
                networks.push(network);
            }
        }
        networks.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(networks)
    }

    /// Makes a network. Its bridge appears with the first container.
    ///
    /// # Errors
    ///
    /// [`Error::NetworkExists`], and when its addresses are in use elsewhere.
    pub fn create(
        &self,
        name: &Name,
        request: NetworkRequest,
        now: Timestamp,
    ) -> Result<NetworkConfig> {
        let _guard = self.lock()?;
        let is_word = ["host", "none", "default", DEFAULT].contains(&name.as_str());
        if is_word || self.load(name)?.is_some() {
            return Err(Error::NetworkExists { name: name.clone() });
        }
        self.make(name, request, now)
    }

    /// Removes a network and its bridge. That of [`DEFAULT`] comes back when it is
    /// wanted.
    ///
    /// # Errors
    ///
    /// [`Error::NetworkInUse`] if a running container is in it, and when
    /// something cannot be removed.
    pub fn remove(&self, network: &NetworkConfig) -> Result<()> {
        let _guard = self.lock()?;
        if let Some(member) = self.members(network)?.into_iter().next() {
            return Err(Error::NetworkInUse {
                name: network.name.clone(),
                container: member.name.to_string(),
            });
        }
        if self.addresses(network).are_taken()? {
            let (name, container) = (network.name.clone(), "that is just starting".to_owned());
            return Err(Error::NetworkInUse { name, container });
        }
        Devices::open()?.remove_bridge(network)?;
        let dir = self.dir(&network.name);
        let config = dir.join("config.json");
        fs::remove_file(&config).doing("remove", &config)?;
        super::tree::remove(&dir)?;
        if self.list()?.is_empty() {
            // Another state directory makes it again when it needs it.
            let mut rules = Rules::open()?;
            if rules.is_there()? && rules.published()?.is_empty() {
                rules.remove()?;
            }
        }
        Ok(())
    }

    /// Takes from the packet filter what killed programs have left there.
    ///
    /// # Errors
    ///
    /// When the packet filter or a file refuses.
    pub fn sweep(&self) -> Result<()> {
        if !self.dir.exists() {
            return Ok(());
        }
        let _guard = self.lock()?;
        let mut rules = Rules::open()?;
        if rules.is_there()? { self.sweep_rules(&mut rules) } else { Ok(()) }
    }

    /// Takes away what leads to an address that nobody has. Addresses of other
    /// state directories' networks are theirs to judge.
    fn sweep_rules(&self, rules: &mut Rules) -> Result<()> {
        let mut stale = rules.published()?;
        if stale.is_empty() {
            return Ok(());
        }
        let networks = self.list()?;
        let mut failed = Ok(());
        stale.retain(|entry| {
            let address = *entry.to.ip();
            let network = networks.iter().find(|network| network.subnet.contains(address));
            match network.map(|network| self.addresses(network).is_taken(address)) {
                Some(Ok(is_taken)) => !is_taken,
                Some(Err(error)) => {
                    failed = Err(error);
                    false
                }
                None => false,
            }
        });
        rules.withdraw(&stale)?;
        failed
    }

    fn make(&self, name: &Name, request: NetworkRequest, now: Timestamp) -> Result<NetworkConfig> {
        let mut devices = Devices::open()?;
        let surroundings = devices.surroundings()?;
        let mut taken = surroundings.taken;
        taken.extend(self.list()?.iter().map(|network| network.subnet));
        let subnet = match request.subnet {
            Some(subnet) => match taken.iter().find(|other| other.overlaps(subnet)) {
                Some(other) => {
                    return Err(Error::SubnetInUse { subnet, other: *other });
                }
                None => subnet,
            },
            None => {
                taken.extend(resolver::servers_of_host());
                Subnet::free(&taken).ok_or_else(|| Error::Invalid {
                    what: "every range of addresses for a network is in use; give one".to_owned(),
                })?
            }
        };
        let gateway = request.gateway.unwrap_or_else(|| subnet.address(1));
        if subnet.number(gateway).is_none() {
            return Err(Error::Invalid {
                what: format!("the gateway {gateway} is not an address of {subnet}"),
            });
        }
        let config = NetworkConfig {
            version: VERSION,
            id: ContainerId::random()?,
            name: name.clone(),
            created: now,
            device: self.free_device(&mut devices)?,
            subnet,
            gateway,
            mtu: request.mtu.unwrap_or(surroundings.mtu),
            internal: request.internal,
            labels: request.labels,
        };
        self.save(&config)?;
        Ok(config)
    }

    /// Returns a name that no device and no network of ours has.
    fn free_device(&self, devices: &mut Devices) -> Result<String> {
        let networks = self.list()?;
        for number in 0..DEVICES_MAX {
            let name = format!("{DEVICE_PREFIX}{number}");
            let is_ours = networks.iter().any(|network| network.device == name);
            if !is_ours && devices.find(&name)?.is_none() {
                return Ok(name);
            }
        }
        Err(Error::Invalid { what: "no name is left for the bridge of a network".to_owned() })
    }

    /// Makes sure that the bridge of a network is there, and returns its index.
    /// Where its name is taken it gets another one.
    fn ensure_bridge(&self, config: &mut NetworkConfig, rules: &mut Rules) -> Result<u32> {
        let devices = &mut Devices::open()?;
        if let Some(index) = devices.find_bridge(config)? {
            return Ok(index);
        }
        for _ in 0..DEVICES_MAX {
            // Before the bridge is there: one that is up lacks nothing.
            rules.join_within(&config.device)?;
            if let Some(index) = devices.make_bridge(config)? {
                return Ok(index);
            }
            config.device = self.free_device(devices)?;
            self.save(config)?;
        }
        Err(Error::Invalid { what: "no name is left for the bridge of a network".to_owned() })
    }

    fn load(&self, name: &Name) -> Result<Option<NetworkConfig>> {
        let path = self.dir(name).join("config.json");
        let Some(config) = read_json::<NetworkConfig>(&path)? else { return Ok(None) };
        if config.version > VERSION {
            return Err(Error::StateVersion { path, found: config.version, supported: VERSION });
        }
        Ok(Some(config))
    }

    fn save(&self, config: &NetworkConfig) -> Result<()> {
        let dir = self.dir(&config.name);
        make_private_dir(&dir)?;
        write_json(&dir.join("config.json"), config)
    }

    fn dir(&self, name: &Name) -> PathBuf {
        self.dir.join(name.as_str())
    }

    fn addresses(&self, config: &NetworkConfig) -> Addresses {
        Addresses::new(&self.dir(&config.name), config.subnet, config.gateway)
    }

    fn lock(&self) -> Result<File> {
        make_private_dir(&self.dir)?;
        let path = self.dir.join(".lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.doing("open", &path)?;
        flock(&file, FlockOperation::LockExclusive).doing("lock", &path)?;
        Ok(file)
    }
}

//! The packet filter's table of ours, `ip rrun`. `nft list table ip rrun` shows
//! it, and docs/containers.md says what each chain is for.
//!
//! ```text
//! map  published      protocol . port            → address . port of a container
//! map  published_at   address . protocol . port  → the same, for one address of the host
//! set  within         device . device            bridges, each with itself
//!
//! raw          prerouting  -300   from a bridge to 127.0.0.0/8: dropped
//! prerouting   nat         -100   what comes from outside to a published port
//! output       nat         -100   what this machine sends to one
//! forward      filter         0   to a container: only replies, published ports, its own network
//! postrouting  nat          100   containers speak with the host's address
//! ```
//!
//! # Invariants
//!
//! - Nothing of another table is changed, and nothing is accepted that another
//!   table drops.
//! - What is published leads to an address that is taken
//!   ([`super::addresses`]). Where it is not, somebody was killed, and whoever
//!   looks takes it away.

use std::net::{Ipv4Addr, SocketAddrV4};

use nix::libc;
use sandbox::netlink::{Attributes, Messages, Socket, flags};

use super::DEVICE_PREFIX;
use super::nft::{
    self, ANY, DELETE_ELEMENT, DELETE_TABLE, GET_CHAIN, GET_ELEMENT, GET_RULE, GET_TABLE, Hook,
    INET, IPV4, Meta, NAME_BYTES, NEW_ELEMENT, NEW_TABLE, Set, TYPE_ADDRESS, TYPE_DEVICE,
    TYPE_PORT, TYPE_PROTOCOL, concatenation, header, kind, new_chain, new_rule, new_set, number,
};
use crate::engine::error::{IoContext as _, Result};
use crate::engine::options::{ContainerPort, Protocol};

/// The name of the table.
const TABLE: &str = "rrun";

/// What is said about it, with the number of its form: one of another form is
/// made anew.
const COMMENT: &str = "containers of rrun, form 1";

const TARGET: Option<(u32, u32)> = Some((concatenation(&[TYPE_ADDRESS, TYPE_PORT]), 8));

const PUBLISHED: Set = Set {
    name: "published",
    id: 1,
    key: (concatenation(&[TYPE_PROTOCOL, TYPE_PORT]), 8),
    data: TARGET,
};

const PUBLISHED_AT: Set = Set {
    name: "published_at",
    id: 2,
    key: (concatenation(&[TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT]), 12),
    data: TARGET,
};

const WITHIN: Set = Set {
    name: "within",
    id: 3,
    key: (concatenation(&[TYPE_DEVICE, TYPE_DEVICE]), 2 * 16),
    data: None,
};

/// The states of connections that were let through before, and of what belongs
/// to them: established and related.
const KNOWN: u32 = 2 | 4;

/// The mark of connections whose destination was changed.
const REDIRECTED: u32 = 1 << 5;

/// A port of a container as it is reached from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) host_ip: Ipv4Addr,
    pub(super) host_port: u16,
    pub(super) address: Ipv4Addr,
    pub(super) container: ContainerPort,
}

/// An element of one of the maps, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    set: &'static str,
    key: Vec<u8>,
    /// Where it leads to.
    pub(super) to: SocketAddrV4,
}

/// A chain of another table that drops what passes through this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    family: u8,
    table: String,
    chain: String,
}

/// The packet filter of the network namespace that the program is in.
#[derive(Debug)]
pub(super) struct Rules {
    socket: Socket,
}

impl Rules {
    pub(super) fn open() -> Result<Self> {
        Ok(Self { socket: Socket::netfilter().trying("open a netlink socket")? })
    }

    /// Tells whether the table is there, in the form this version makes.
    pub(super) fn is_there(&mut self) -> Result<bool> {
        let mut messages = Messages::new();
        messages.message(kind(GET_TABLE), 0, &header(IPV4), |message| message.text(1, TABLE));
        match self.socket.get(&messages) {
            Ok(reply) => {
                let attributes = Attributes::of(reply.body.get(4..).unwrap_or_default());
                Ok(attributes.find(6) == Some(&nft::user_data(COMMENT)))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error).trying("look at the packet filter's tables"),
        }
    }

    /// Makes the table, in place of one of another form, for these bridges and
    /// published ports.
    pub(super) fn make(&mut self, devices: &[String], ports: &[(Published, String)]) -> Result<()> {
        let messages = nft::batch(|messages| {
            // Removing what is not there would be an error.
            table(messages, NEW_TABLE);
            table(messages, DELETE_TABLE);
            table(messages, NEW_TABLE);
            for set in [&PUBLISHED, &PUBLISHED_AT, &WITHIN] {
                new_set(messages, TABLE, set);
            }
            fill(messages);
            for device in devices {
                within(messages, device);
            }
            for (port, comment) in ports {
                change(messages, NEW_ELEMENT, port, comment);
            }
        });
        self.socket.request(&messages).trying("make the packet filter's table \"ip rrun\"")
    }

    /// Lets the containers on a bridge reach each other.
    pub(super) fn join_within(&mut self, device: &str) -> Result<()> {
        let messages = nft::batch(|messages| within(messages, device));
        self.socket.request(&messages).trying("change the packet filter's table \"ip rrun\"")
    }

    /// Publishes ports; `comment` says whose they are.
    pub(super) fn publish(&mut self, ports: &[Published], comment: &str) -> Result<()> {
        let messages = nft::batch(|messages| {
            for port in ports {
                change(messages, NEW_ELEMENT, port, comment);
            }
        });
        self.socket.request(&messages).trying("publish the container's ports")
    }

    /// Returns everything that is published, by whomever.
    pub(super) fn published(&mut self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for set in [&PUBLISHED, &PUBLISHED_AT] {
            let mut messages = Messages::new();
            messages.message(kind(GET_ELEMENT), flags::DUMP, &header(IPV4), |message| {
                message.text(1, TABLE);
                message.text(2, set.name);
            });
            let replies = self.socket.dump(&messages).trying("list the published ports")?;
            for (key, data) in replies.iter().flat_map(|reply| nft::elements(&reply.body)) {
                if let Some(to) = target(&data) {
                    entries.push(Entry { set: set.name, key, to });
                }
            }
        }
        Ok(entries)
    }

    /// Takes published ports away; one that has gone meanwhile is fine.
    pub(super) fn withdraw(&mut self, entries: &[Entry]) -> Result<()> {
        for entry in entries {
            let messages = nft::batch(|messages| {
                let place = (TABLE, entry.set);
                nft::element(messages, (DELETE_ELEMENT, 0), place, (&entry.key, None), "");
            });
            match self.socket.request(&messages) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                other => other.trying("take a published port away")?,
            }
        }
        Ok(())
    }

    /// Removes the table.
    pub(super) fn remove(&mut self) -> Result<()> {
        let messages = nft::batch(|messages| table(messages, DELETE_TABLE));
        match self.socket.request(&messages) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other.trying("remove the packet filter's table \"ip rrun\""),
        }
    }

    /// Returns the chains of other tables that drop what passes through this
    /// machine, and have no rule about our bridges.
    pub(super) fn obstacles(&mut self) -> Result<Vec<Obstacle>> {
        let mut messages = Messages::new();
        messages.message(kind(GET_CHAIN), flags::DUMP, &header(ANY), |_| {});
        let replies = self.socket.dump(&messages).trying("list the packet filter's chains")?;
        let mut obstacles = Vec::new();
        for chain in replies.iter().filter_map(|reply| dropping(&reply.body)) {
            if !self.knows_us(&chain)? {
                obstacles.push(chain);
            }
        }
        Ok(obstacles)
    }

    /// Tells whether a table has a rule that names our bridges: then its owner
    /// has decided. Chains that the obstacle jumps to count, too.
    fn knows_us(&mut self, chain: &Obstacle) -> Result<bool> {
        let mut messages = Messages::new();
        messages.message(kind(GET_RULE), flags::DUMP, &header(chain.family), |message| {
            message.text(1, &chain.table);
        });
        let replies = self.socket.dump(&messages).trying("list the packet filter's rules")?;
        let names_us = |body: &[u8]| {
            body.windows(DEVICE_PREFIX.len()).any(|window| window == DEVICE_PREFIX.as_bytes())
        };
        Ok(replies.iter().any(|reply| names_us(&reply.body)))
    }
}

/// Returns the messages that take published ports away again, for whoever
/// stays with the container.
pub(super) fn withdrawal(ports: &[Published]) -> Messages {
    if ports.is_empty() {
        return Messages::new();
    }
    nft::batch(|messages| {
        for port in ports {
            change(messages, DELETE_ELEMENT, port, "");
        }
    })
}

impl Obstacle {
    /// Says what it does and how to allow our traffic in it.
    pub(super) fn warning(&self) -> String {
        let family = if self.family == INET { "inet" } else { "ip" };
        let place = format!("{family} {} {}", self.table, self.chain);
        format!(
            "the packet filter's chain \"{place}\" drops what passes through this machine: containers reach nothing outside, and \
             published ports are not reached from other machines; allow it with \
             nft 'insert rule {place} iifname \"{DEVICE_PREFIX}*\" accept' and nft 'insert rule {place} oifname \"{DEVICE_PREFIX}*\" accept', \
             or as docs/containers.md says for docker, ufw and firewalld"
        )
    }
}

/// Reads a message about a chain; none unless it drops by itself what passes
/// through.
fn dropping(body: &[u8]) -> Option<Obstacle> {
    let family = *body.first()?;
    let attributes = Attributes::of(body.get(4..)?);
    let hook = Attributes::of(attributes.clone().find(4)?).find(1)?;
    let policy = attributes.clone().find(5)?;
    let is_ours = attributes.clone().text(1) == Some(TABLE);
    let is_in_the_way = matches!(family, IPV4 | INET)
        && hook == (Hook::Forward as u32).to_be_bytes()
        && policy == 0_u32.to_be_bytes();
    (is_in_the_way && !is_ours).then_some(())?;
    Some(Obstacle {
        family,
        table: attributes.clone().text(1)?.to_owned(),
        chain: attributes.text(3)?.to_owned(),
    })
}

fn table(messages: &mut Messages, message: u16) {
    messages.message(kind(message), 0, &header(IPV4), |table| {
        table.text(1, TABLE);
        if message == NEW_TABLE {
            number(table, 2, 0);
            table.attribute(6, &nft::user_data(COMMENT));
        }
    });
}

/// Adds the chains and their rules.
fn fill(messages: &mut Messages) {
    let m = messages;
    new_chain(m, TABLE, ("raw", "filter"), (Hook::Prerouting, -300));
    new_chain(m, TABLE, ("prerouting", "nat"), (Hook::Prerouting, -100));
    new_chain(m, TABLE, ("output", "nat"), (Hook::Output, -100));
    new_chain(m, TABLE, ("forward", "filter"), (Hook::Forward, 0));
    new_chain(m, TABLE, ("postrouting", "nat"), (Hook::Postrouting, 100));
    let (input, output) = (Meta::InName, Meta::OutName);
    // The switch `route_localnet` of a bridge would let its containers in.
    new_rule(m, TABLE, "raw", |rule| {
        rule.device_begins(input, true, DEVICE_PREFIX).goes_to_loopback().drop();
    });
    // A neighbour must not reach what is published on 127.0.0.1 only.
    new_rule(m, TABLE, "prerouting", |rule| {
        rule.goes_to_loopback().accept();
    });
    for chain in ["prerouting", "output"] {
        new_rule(m, TABLE, chain, |rule| {
            rule.send_to(PUBLISHED_AT.name, true);
        });
        new_rule(m, TABLE, chain, |rule| {
            rule.goes_to_this_machine().send_to(PUBLISHED.name, false);
        });
    }
    new_rule(m, TABLE, "forward", |rule| {
        rule.device_begins(output, true, DEVICE_PREFIX).connection_is(KNOWN).accept();
    });
    new_rule(m, TABLE, "forward", |rule| {
        rule.device_begins(output, true, DEVICE_PREFIX).connection_has(REDIRECTED).accept();
    });
    new_rule(m, TABLE, "forward", |rule| {
        rule.devices_are_in(WITHIN.name).accept();
    });
    new_rule(m, TABLE, "forward", |rule| {
        rule.device_begins(output, true, DEVICE_PREFIX).drop();
    });
    new_rule(m, TABLE, "postrouting", |rule| {
        rule.device_begins(output, true, DEVICE_PREFIX).comes_from_loopback().masquerade();
    });
    // Containers of one network that meet through the host: the answer must
    // come back this way, too.
    new_rule(m, TABLE, "postrouting", |rule| {
        rule.device_begins(input, true, DEVICE_PREFIX)
            .device_begins(output, true, DEVICE_PREFIX)
            .connection_has(REDIRECTED)
            .masquerade();
    });
    new_rule(m, TABLE, "postrouting", |rule| {
        rule.device_begins(input, true, DEVICE_PREFIX)
            .device_begins(output, false, DEVICE_PREFIX)
            .masquerade();
    });
}

fn within(messages: &mut Messages, device: &str) {
    let mut key = [0; 2 * NAME_BYTES];
    for place in [0, NAME_BYTES] {
        key[place..place + device.len()].copy_from_slice(device.as_bytes());
    }
    let message = (NEW_ELEMENT, flags::CREATE);
    nft::element(messages, message, (TABLE, WITHIN.name), (&key, None), "");
}

/// Adds a published port or takes it away.
fn change(messages: &mut Messages, message: u16, port: &Published, comment: &str) {
    let mut key = Vec::new();
    let set = if port.host_ip.is_unspecified() {
        PUBLISHED.name
    } else {
        key.extend_from_slice(&port.host_ip.octets());
        PUBLISHED_AT.name
    };
    key.extend_from_slice(&[protocol(port.container.protocol), 0, 0, 0]);
    key.extend_from_slice(&port.host_port.to_be_bytes());
    key.extend_from_slice(&[0, 0]);
    let mut data = port.address.octets().to_vec();
    data.extend_from_slice(&port.container.port.to_be_bytes());
    data.extend_from_slice(&[0, 0]);
    let data = (message == NEW_ELEMENT).then_some(data.as_slice());
    let flags = if message == NEW_ELEMENT { flags::CREATE } else { 0 };
    nft::element(messages, (message, flags), (TABLE, set), (&key, data), comment);
}

fn protocol(protocol: Protocol) -> u8 {
    protocol.number()
}

/// Reads where an element of a map leads to.
fn target(data: &[u8]) -> Option<SocketAddrV4> {
    let address: [u8; 4] = data.get(..4)?.try_into().ok()?;
    let port: [u8; 2] = data.get(4..6)?.try_into().ok()?;
    Some(SocketAddrV4::new(address.into(), u16::from_be_bytes(port)))
}

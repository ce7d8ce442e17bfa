//! `--network` and `--add-host`: which network a container is in, and whom it
//! knows there.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::engine::name::Name;

/// What names another container's network.
const CONTAINER: &str = "container:";

/// The network a container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NetworkMode {
    /// The host's own interfaces and ports.
    #[default]
    Host,
    /// Only a loopback interface of its own.
    None,
    /// That of another container, by name or id.
    Container(String),
    /// A network of this machine by its name: `bridge`, or one that a user has
    /// made.
    Named(Name),
}

impl NetworkMode {
    /// Returns the network that every machine has.
    ///
    /// # Panics
    ///
    /// Never: its name is one.
    pub fn bridge() -> Self {
        Self::Named("bridge".parse().expect("it obeys the grammar of names"))
    }
}

impl FromStr for NetworkMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "host" => Ok(Self::Host),
            "none" => Ok(Self::None),
            "default" => Ok(Self::bridge()),
            _ => match text.strip_prefix(CONTAINER) {
                Some("") => Err(format!("\"{text}\" names no container")),
                Some(container) => Ok(Self::Container(container.to_owned())),
                None => text.parse().map(Self::Named).map_err(|_| {
                    format!(
                        "\"{text}\" is no network; there are bridge, host, none, container:NAME and those of `rrun network ls`"
                    )
                }),
            },
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::None => f.write_str("none"),
            Self::Container(container) => write!(f, "{CONTAINER}{container}"),
            Self::Named(name) => f.write_str(name.as_str()),
        }
    }
}

impl TryFrom<String> for NetworkMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<NetworkMode> for String {
    fn from(mode: NetworkMode) -> Self {
        mode.to_string()
    }
}

/// A name of a host, as it may stand in files and questions about names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub String);

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = (1..=253).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("\"{text}\" is not the name of a host"))
        }
    }
}

/// A name that a container knows without asking, from `--add-host`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// What it stands for.
    pub address: HostAddress,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostAddress {
    /// An address.
    Ip(IpAddr),
    /// The host, by the address it has in the container's network.
    Gateway,
}

impl FromStr for ExtraHost {
    type Err = String;

    /// Parses `name:address` or `name=address`; the address may be in brackets.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not NAME:ADDRESS");
        let (name, address) = text.split_once([':', '=']).ok_or_else(wrong)?;
        let HostName(name) = name.parse()?;
        let inner = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = match inner.unwrap_or(address) {
            "host-gateway" => HostAddress::Gateway,
            address => HostAddress::Ip(address.parse().map_err(|_| wrong())?),
        };
        Ok(Self { name, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_addresses() {
        for (text, address) in [
            ("db:10.0.0.1", HostAddress::Ip("10.0.0.1".parse().unwrap())),
            ("db=::1", HostAddress::Ip("::1".parse().unwrap())),
            ("db:[::1]", HostAddress::Ip("::1".parse().unwrap())),
            ("db:host-gateway", HostAddress::Gateway),
        ] {
            let expected = ExtraHost { name: "db".to_owned(), address };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "db", ":10.0.0.1", "a b:10.0.0.1", "db:x", "db:10.0.0.1\n"] {
            assert!(text.parse::<ExtraHost>().is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn networks_have_dockers_words() {
        for (text, expected) in [
            ("host", NetworkMode::Host),
            ("none", NetworkMode::None),
            ("bridge", NetworkMode::bridge()),
            ("default", NetworkMode::bridge()),
            ("container:web", NetworkMode::Container("web".to_owned())),
            ("back-end", NetworkMode::Named("back-end".parse().unwrap())),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "container:", "a/b", "..", "-x"] {
            assert!(text.parse::<NetworkMode>().is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["host", "none", "bridge", "container:web"] {
            let mode: NetworkMode = text.parse().unwrap();
            let json = serde_json::to_string(&mode).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<NetworkMode>(&json).unwrap(), mode);
        }
    }
}

//! `-p`: which ports of a container are reached through the host.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What ports belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Returns the number that IP has for it.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Err("ports of sctp cannot be published".to_owned()),
            _ => Err(format!("\"{text}\" is not a protocol; there are tcp and udp")),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of a container, such as `80/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerPort {
    /// Its number.
    pub port: u16,
    /// What it belongs to.
    pub protocol: Protocol,
}

impl FromStr for ContainerPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (port, protocol) = split_protocol(text)?;
        Ok(Self { port: number(port)?, protocol })
    }
}

impl fmt::Display for ContainerPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// One port of a container, and where on the host it is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The address of the host; all of them if it is 0.0.0.0.
    pub host_ip: Ipv4Addr,
    /// The ports of the host to choose from, first and last; 0 is any free one.
    pub host_ports: (u16, u16),
    /// The port of the container.
    pub container: ContainerPort,
}

/// What one `-p` asks for: a range is several ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish(pub Vec<PublishedPort>);

impl FromStr for Publish {
    type Err = String;

    /// Parses `[[ip:][host]:]container[/protocol]`, where both ports may be
    /// ranges.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |reason: String| format!("\"{text}\" cannot be published: {reason}");
        let (ports, protocol) = split_protocol(text).map_err(wrong)?;
        if ports.contains('[') {
            return Err(wrong("addresses of IPv6 are not supported yet".to_owned()));
        }
        let parts: Vec<&str> = ports.split(':').collect();
        let (ip, host, container) = match parts.as_slice() {
            [container] => ("", "", *container),
            [host, container] => ("", *host, *container),
            [ip, host, container] => (*ip, *host, *container),
            _ => return Err(wrong("it is not [ip:][host:]container".to_owned())),
        };
        let host_ip = match ip {
            "" => Ipv4Addr::UNSPECIFIED,
            "localhost" => Ipv4Addr::LOCALHOST,
            ip => ip.parse().map_err(|_| wrong(format!("\"{ip}\" is not an address")))?,
        };
        let container = range(container).map_err(wrong)?;
        let host = if host.is_empty() { (0, 0) } else { range(host).map_err(wrong)? };
        let count = container.1 - container.0;
        let of = |offset: u16| PublishedPort {
            host_ip,
            host_ports: match host {
                (0, _) => host,
                // One port of the container has a whole range to choose from.
                (first, last) if count == 0 => (first, last),
                (first, _) => (first + offset, first + offset),
            },
            container: ContainerPort { port: container.0 + offset, protocol },
        };
        if host.0 != 0 && count != 0 && host.1 - host.0 != count {
            return Err(wrong("the ranges are not of the same length".to_owned()));
        }
        Ok(Self((0..=count).map(of).collect()))
    }
}

fn split_protocol(text: &str) -> Result<(&str, Protocol), String> {
    match text.split_once('/') {
        Some((ports, protocol)) => Ok((ports, protocol.parse()?)),
        None => Ok((text, Protocol::Tcp)),
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(format!("the range {text} is empty"));
    }
    Ok((first, last))
}

fn number(text: &str) -> Result<u16, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|port| is_number && *port != 0)
        .ok_or_else(|| format!("\"{text}\" is not a port from 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<String> {
        let Publish(ports) = text.parse().unwrap();
        ports
            .iter()
            .map(|port| {
                let (first, last) = port.host_ports;
                format!("{} {first}-{last} {}", port.host_ip, port.container)
            })
            .collect()
    }

    #[test]
    fn ports_are_written_as_docker_writes_them() {
        for (text, expected) in [
            ("80", &["0.0.0.0 0-0 80/tcp"][..]),
            ("8080:80", &["0.0.0.0 8080-8080 80/tcp"]),
            ("8080:80/udp", &["0.0.0.0 8080-8080 80/udp"]),
            ("127.0.0.1:8080:80", &["127.0.0.1 8080-8080 80/tcp"]),
            ("127.0.0.1::80", &["127.0.0.1 0-0 80/tcp"]),
            ("localhost:1:2", &["127.0.0.1 1-1 2/tcp"]),
            ("8000-8010:80", &["0.0.0.0 8000-8010 80/tcp"]),
            ("8000-8001:90-91", &["0.0.0.0 8000-8000 90/tcp", "0.0.0.0 8001-8001 91/tcp"]),
            ("90-91", &["0.0.0.0 0-0 90/tcp", "0.0.0.0 0-0 91/tcp"]),
            ("65535:65535", &["0.0.0.0 65535-65535 65535/tcp"]),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for (text, words) in [
            ("", "\"\" is not a port"),
            ("0:80", "\"0\" is not a port"),
            ("80:0", "\"0\" is not a port"),
            ("65536", "\"65536\" is not a port"),
            ("+80", "\"+80\" is not a port"),
            ("80/", "\"\" is not a protocol"),
            ("80/icmp", "\"icmp\" is not a protocol"),
            ("80/sctp", "sctp cannot be published"),
            ("a.b.c.d:80:80", "\"a.b.c.d\" is not an address"),
            ("1:2:3:4", "it is not [ip:][host:]container"),
            ("[::1]:80:80", "IPv6 are not supported yet"),
            ("90-80", "the range 90-80 is empty"),
            ("8000-8002:90-91", "not of the same length"),
            ("8000:90-91", "not of the same length"),
        ] {
            let error = text.parse::<Publish>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}

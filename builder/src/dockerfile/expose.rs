//! EXPOSE: port words → the keys of the image config.

use std::net::{IpAddr, Ipv6Addr};

use super::quote::quote;

/// A port word that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Nothing before the `/`, or a protocol that is not tcp, udp or sctp.
    #[error("invalid port: {}: {reason}", quote(word))]
    Invalid {
        /// The whole word.
        word: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A port or range that is no number from 0 to 65535, or runs backwards.
    #[error("invalid containerPort: {0}")]
    ContainerPort(String),
    /// The same of the port in front of a colon.
    #[error("invalid hostPort: {0}")]
    HostPort(String),
    /// Ranges of different lengths.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// The ports behind the colon.
        container: String,
        /// The ports in front of it.
        host: String,
    },
    /// An address that is none.
    #[error("invalid IP address: {0}")]
    Address(String),
}

/// A port word taken apart: `[address:][host:]port[-port][/protocol]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortWord<'a> {
    /// The address, without effect on an image.
    pub address: &'a str,
    /// The host's port, without effect on an image.
    pub host: &'a str,
    /// The port or range.
    pub ports: &'a str,
    /// The protocol as written; empty if none is.
    pub protocol: &'a str,
}

impl<'a> PortWord<'a> {
    /// Takes `word` apart at its colons and slash.
    #[must_use]
    pub fn split(word: &'a str) -> Self {
        let (front, last) = word.rsplit_once(':').unwrap_or(("", word));
        let (address, host) = front.rsplit_once(':').unwrap_or(("", front));
        let (ports, protocol) = last.split_once('/').unwrap_or((last, ""));
        Self { address, host, ports, protocol }
    }
}

/// Returns the exposed ports of expanded EXPOSE words, `8080/tcp`, in their
/// order: ranges are written out; addresses and host ports are checked and dropped.
///
/// # Errors
///
/// Fails on the first word that is no port.
pub fn ports(words: &[String]) -> Result<Vec<String>, PortError> {
    let mut ports = Vec::new();
    for word in words {
        let (first, last, protocol) = parse(word)?;
        ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    }
    Ok(ports)
}

fn parse(word: &str) -> Result<(u16, u16, &'static str), PortError> {
    let parts = PortWord::split(word);
    let invalid = |reason: String| PortError::Invalid { word: word.to_owned(), reason };
    if parts.ports.is_empty() {
        return Err(invalid("no port specified".to_owned()));
    }
    let protocol = match parts.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return Err(invalid(format!("invalid proto: {}", parts.protocol))),
    };
    check_address(parts.address)?;
    let (first, last) =
        range(parts.ports).ok_or_else(|| PortError::ContainerPort(parts.ports.to_owned()))?;
    if !parts.host.is_empty() {
        let (low, high) =
            range(parts.host).ok_or_else(|| PortError::HostPort(parts.host.to_owned()))?;
        // One port may take any of a range of the host's.
        if last - first != high - low && last != first {
            let (container, host) = (parts.ports.to_owned(), parts.host.to_owned());
            return Err(PortError::Ranges { container, host });
        }
    }
    Ok((first, last, protocol))
}

fn check_address(address: &str) -> Result<(), PortError> {
    let inside = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_good = match inside {
        Some(inside) => inside.parse::<Ipv6Addr>().is_ok() || inside.parse::<IpAddr>().is_ok(),
        None => address.is_empty() || address.parse::<IpAddr>().is_ok(),
    };
    if is_good { Ok(()) } else { Err(PortError::Address(address.to_owned())) }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.strip_prefix('+').unwrap_or(text).parse::<u16>().ok();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::ports;

    fn list(words: &str) -> Result<String, String> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        ports(&words).map(|ports| ports.join(" ")).map_err(|error| error.to_string())
    }

    #[test]
    fn words_become_ports() {
        for (words, expected) in [
            ("80", "80/tcp"),
            ("8080/tcp 53/UDP 1/sctp", "8080/tcp 53/udp 1/sctp"),
            ("80 443", "80/tcp 443/tcp"),
            ("8000-8002/udp", "8000/udp 8001/udp 8002/udp"),
            ("80-80", "80/tcp"),
            ("0", "0/tcp"),
            ("65535", "65535/tcp"),
            ("80/", "80/tcp"),
            ("8080:80", "80/tcp"),
            ("127.0.0.1:8080:80/udp", "80/udp"),
            ("127.0.0.1::80", "80/tcp"),
            ("[::1]:8080:80", "80/tcp"),
            ("::1:8080:80", "80/tcp"),
            ("8000-9000:80", "80/tcp"),
            ("8000-8001:80-81", "80/tcp 81/tcp"),
        ] {
            assert_eq!(list(words).as_deref(), Ok(expected), "{words}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for (words, expected) in [
            ("/tcp", r#"invalid port: "/tcp": no port specified"#),
            ("80/icmp", r#"invalid port: "80/icmp": invalid proto: icmp"#),
            ("80/tcp/udp", r#"invalid port: "80/tcp/udp": invalid proto: tcp/udp"#),
            ("http", "invalid containerPort: http"),
            ("65536", "invalid containerPort: 65536"),
            ("-1", "invalid containerPort: -1"),
            ("90-80", "invalid containerPort: 90-80"),
            ("80-", "invalid containerPort: 80-"),
            ("x:80", "invalid hostPort: x"),
            ("1-2:80-82", "invalid ranges specified for container and host Ports: 80-82 and 1-2"),
            ("host:1:80", "invalid IP address: host"),
        ] {
            assert_eq!(list(words).unwrap_err(), expected, "{words}");
        }
    }
}

//! `/etc/resolv.conf` of containers: who is asked for names.

use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::DEFAULT;
use super::subnet::Subnet;
use crate::engine::options::NetworkMode;

/// What the host itself asks.
const HOST: &str = "/etc/resolv.conf";

/// Where programs that answer on the host's loopback device say whom they ask
/// themselves: systemd-resolved and NetworkManager.
const UPSTREAM: [&str; 2] =
    ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

/// The largest file of the host's that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Whom a container is to ask instead of those that the host asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// The servers, by address.
    pub servers: Vec<IpAddr>,
    /// What is put behind short names; `.` is nothing.
    pub search: Vec<String>,
    /// Options of resolv.conf(5).
    pub options: Vec<String>,
}

/// Returns the file for a container in this network, and what the user should
/// know about it.
pub fn resolv_conf(network: &NetworkMode, asked: &Resolver) -> (String, Option<String>) {
    match network {
        NetworkMode::Host if *asked == Resolver::default() => (read(HOST), None),
        // Nobody can be asked.
        NetworkMode::None if asked.servers.is_empty() => (String::new(), None),
        // It is that of the other container.
        NetworkMode::Container(_) => (String::new(), None),
        NetworkMode::Host | NetworkMode::None => (merge(&read(HOST), asked).0, None),
        // The container's own, which asks those that were given.
        NetworkMode::Named(name) if name.as_str() != DEFAULT => {
            let servers = vec![sandbox::dns::ADDRESS.into()];
            (merge(&read(HOST), &Resolver { servers, ..asked.clone() }).0, None)
        }
        NetworkMode::Named(_) => {
            let mut text = read(HOST);
            if asked.servers.is_empty() && reachable(&text).is_empty() {
                // The host's resolver is on its loopback device, where no
                // container gets; it says whom it asks.
                let upstream = UPSTREAM.iter().map(|path| read(path));
                text =
                    upstream.into_iter().find(|text| !reachable(text).is_empty()).unwrap_or(text);
            }
            let (text, has_servers) = merge(&text, asked);
            let warning = "the container cannot look up names: every resolver in the host's /etc/resolv.conf is on its loopback device; name one with --dns";
            (text, (!has_servers).then(|| warning.to_owned()))
        }
    }
}

/// Returns the file with what was asked for in place of what the host has, and
/// whether it names a server.
fn merge(host: &str, asked: &Resolver) -> (String, bool) {
    let servers = if asked.servers.is_empty() { reachable(host) } else { asked.servers.clone() };
    let mut text = String::new();
    for server in &servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    let mut list = |word: &str, asked: &[String]| {
        let values = match asked {
            [] => words(host, word).into_iter().next_back().unwrap_or_default(),
            [dot] if dot == "." => String::new(),
            asked => asked.join(" "),
        };
        if !values.is_empty() {
            text.push_str(&format!("{word} {values}\n"));
        }
    };
    list("search", &asked.search);
    list("options", &asked.options);
    (text, !servers.is_empty())
}

/// Returns the servers that a container on a bridge can reach: not those on the
/// host's loopback device, and as yet none of IPv6.
fn reachable(text: &str) -> Vec<IpAddr> {
    let servers = words(text, "nameserver");
    let servers = servers.iter().filter_map(|server| server.parse::<IpAddr>().ok());
    servers.filter(|server| server.is_ipv4() && !server.is_loopback()).collect()
}

/// Returns what is behind a word at the beginning of a line.
fn words(text: &str, word: &str) -> Vec<String> {
    let rest = text.lines().filter_map(|line| line.trim().strip_prefix(word));
    let rest = rest.filter(|rest| rest.starts_with([' ', '\t']));
    rest.map(|rest| rest.split(['#', ';']).next().unwrap_or_default().trim().to_owned()).collect()
}

/// Returns the servers that the host asks: no network may cover them.
pub(super) fn servers_of_host() -> Vec<Subnet> {
    let text = std::iter::once(HOST).chain(UPSTREAM).map(read).collect::<String>();
    let servers = words(&text, "nameserver");
    let servers = servers.iter().filter_map(|server| server.parse::<Ipv4Addr>().ok());
    servers.filter_map(|server| Subnet::around(server, 32)).collect()
}

/// Reads a file of the host. One that is not there, or may not be read, says
/// nothing.
fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(Path::new(path))
        && let Err(error) = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)
    {
        tracing::debug!(%path, %error, "the host's file cannot be read");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_on_the_loopback_device_is_of_no_use() {
        let text = "# stub\nnameserver 127.0.0.53\nnameserver ::1\nnameserver fd00::1\n";
        assert!(reachable(text).is_empty());
        assert_eq!(
            reachable("nameserver 127.0.0.1\n nameserver\t192.0.2.1 # first\nnameservers 8.8.8.8"),
            ["192.0.2.1".parse::<IpAddr>().unwrap()]
        );
    }

    #[test]
    fn what_is_asked_for_replaces_what_the_host_has() {
        let host = "nameserver 192.0.2.1\nsearch a.example b.example\noptions ndots:2\n";
        for (asked, expected) in [
            (Resolver::default(), host),
            (
                Resolver { servers: vec!["192.0.2.9".parse().unwrap()], ..Resolver::default() },
                "nameserver 192.0.2.9\nsearch a.example b.example\noptions ndots:2\n",
            ),
            (
                Resolver { search: vec![".".to_owned()], ..Resolver::default() },
                "nameserver 192.0.2.1\noptions ndots:2\n",
            ),
            (
                Resolver {
                    search: vec!["x".to_owned(), "y".to_owned()],
                    options: vec!["rotate".to_owned()],
                    ..Resolver::default()
                },
                "nameserver 192.0.2.1\nsearch x y\noptions rotate\n",
            ),
        ] {
            assert_eq!(merge(host, &asked), (expected.to_owned(), true));
        }
    }
}

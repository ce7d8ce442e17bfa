//! Ports of the host that are a container's.
//!
//! A socket is bound to each for as long as the container lives: that another
//! program has the port is found before anything starts, nobody can take it
//! later, and it is free again when the container's shim ends, however it ends.
//! No packet arrives there: they are sent to the container before.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with};

use super::rules::Published;
use crate::engine::error::{Error, Result};
use crate::engine::options::{Protocol, PublishedPort};

/// Takes the ports of the host that a container with this address is to be
/// reached by.
///
/// # Errors
///
/// [`Error::PortInUse`], and when the address is not this machine's.
pub(super) fn reserve(
    ports: &[PublishedPort],
    address: Ipv4Addr,
) -> Result<(Vec<Published>, Vec<OwnedFd>)> {
    let mut published = Vec::with_capacity(ports.len());
    let mut sockets = Vec::with_capacity(ports.len());
    for port in ports {
        let (host_port, socket) = take(port)?;
        published.push(Published {
            host_ip: port.host_ip,
            host_port,
            address,
            container: port.container,
        });
        sockets.push(socket);
    }
    Ok((published, sockets))
}

/// Takes the first free one of the ports to choose from.
fn take(port: &PublishedPort) -> Result<(u16, OwnedFd)> {
    let (first, last) = port.host_ports;
    for number in first..=last {
        let address = SocketAddrV4::new(port.host_ip, number);
        match take_one(address, port.container.protocol) {
            Ok(taken) => return Ok(taken),
            Err(Errno::ADDRINUSE) => {}
            Err(source) => {
                return Err(Error::PortRefused {
                    address,
                    protocol: port.container.protocol,
                    source: io::Error::from(source),
                });
            }
        }
    }
    Err(Error::PortInUse {
        host_ip: port.host_ip,
        ports: port.host_ports,
        protocol: port.container.protocol,
        holder: None,
    })
}

fn take_one(address: SocketAddrV4, protocol: Protocol) -> rustix::io::Result<(u16, OwnedFd)> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    if protocol == Protocol::Tcp {
        // Connections of an earlier user that are not quite over are no hindrance.
        set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        // Otherwise another one that says the same could have the port, too.
        listen(&socket, 1)?;
    }
    let bound = SocketAddrV4::try_from(getsockname(&socket)?)?;
    Ok((bound.port(), socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::options::ContainerPort;

    fn port(first: u16, last: u16, protocol: Protocol) -> PublishedPort {
        PublishedPort {
            host_ip: Ipv4Addr::LOCALHOST,
            host_ports: (first, last),
            container: ContainerPort { port: 80, protocol },
        }
    }

    #[test]
    fn a_port_that_somebody_has_is_refused() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (published, held) =
                reserve(&[port(0, 0, protocol)], Ipv4Addr::new(10, 5, 0, 2)).unwrap();
            let number = published[0].host_port;
            assert_ne!(number, 0);
            let error =
                reserve(&[port(number, number, protocol)], Ipv4Addr::LOCALHOST).unwrap_err();
            assert!(matches!(error, Error::PortInUse { .. }), "{error}");
            drop(held);
            reserve(&[port(number, number, protocol)], Ipv4Addr::LOCALHOST).unwrap();
        }
    }

    #[test]
    fn of_a_range_the_first_free_one_is_taken() {
        let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = first.local_addr().unwrap().port();
        let Some(last) = number.checked_add(20) else { return };
        let (published, _held) =
            reserve(&[port(number, last, Protocol::Tcp)], Ipv4Addr::LOCALHOST).unwrap();
        assert!((number + 1..=last).contains(&published[0].host_port));
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let elsewhere = PublishedPort {
            host_ip: Ipv4Addr::new(192, 0, 2, 77),
            ..port(8080, 8080, Protocol::Tcp)
        };
        let error = reserve(&[elsewhere], Ipv4Addr::LOCALHOST).unwrap_err();
        assert_eq!(error.to_string(), "cannot publish a port at 192.0.2.77:8080/tcp");
    }
}

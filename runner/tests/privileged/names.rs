//! Names of containers in a network.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use crate::harness::{Host, in_network};

/// Where a container asks.
const SERVER: &str = "127.0.0.11:53";

const A: u8 = 1;
const PTR: u8 = 12;
const AAAA: u8 = 28;

fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut bytes = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, kind, 0, 1]);
    bytes
}

/// Returns what an answer says: an error, or the ends of its records.
fn read(answer: &[u8], question: &[u8]) -> String {
    assert_eq!(answer[..2], question[..2]);
    match answer[3] & 0x0f {
        0 => {
            let mut rest = &answer[question.len()..];
            let mut records = Vec::new();
            for _ in 0..answer[7] {
                let length = usize::from(rest[11]);
                let data = &rest[12..12 + length];
                records.push(match length {
                    4 => data.iter().map(u8::to_string).collect::<Vec<_>>().join("."),
                    _ => data.iter().map(|&b| if b < 32 { '.' } else { b.into() }).collect(),
                });
                rest = &rest[12 + length..];
            }
            records.sort();
            records.join(" ")
        }
        2 => "failure".to_owned(),
        3 => "unknown".to_owned(),
        code => panic!("code {code}"),
    }
}

impl Host {
    /// Asks for a name in a container's network.
    #[track_caller]
    fn ask(&self, container: &str, name: &str, kind: u8) -> String {
        let pid = self.inspect(container, "{{.State.Pid}}");
        let question = question(name, kind);
        let answer = in_network(Path::new(&format!("/proc/{pid}/ns/net")), || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
            socket.connect(SERVER).unwrap();
            socket.send(&question).unwrap();
            let mut buffer = [0; 512];
            let length = socket.recv(&mut buffer).unwrap();
            buffer[..length].to_vec()
        });
        read(&answer, &question)
    }

    #[track_caller]
    fn address(&self, container: &str) -> String {
        self.inspect(container, "{{.NetworkSettings.IPAddress}}")
    }

    #[track_caller]
    fn sleeper(&self, name: &str, options: &[&str]) {
        let mut words = vec!["run", "-d", "--name", name];
        words.extend(options);
        words.extend(["busybox", "sleep", "1000"]);
        self.rrun(&words).ok();
    }
}

#[test]
fn privileged_containers_of_a_network_know_each_other_by_name() {
    let host = Host::new();
    for network in ["lab", "other"] {
        host.rrun(&["network", "create", "--internal", network]).ok();
    }
    host.sleeper("web", &["--network", "lab", "--network-alias", "www", "--hostname", "box"]);
    host.sleeper("web2", &["--network", "lab", "--network-alias", "www"]);
    host.sleeper("far", &["--network", "other", "--network-alias", "www"]);
    let (web, web2) = (host.address("web"), host.address("web2"));
    let mut both = [web.clone(), web2.clone()];
    both.sort();
    let id = host.inspect("web", "{{.Id}}");
    for (name, kind, expected) in [
        ("web", A, web.as_str()),
        ("WEB", A, &web),
        ("web.lab", A, &web),
        ("box", A, &web),
        (&id[..12], A, &web),
        ("web2", A, &web2),
        ("www", A, &both.join(" ")),
        // It is there, but has no such address.
        ("web", AAAA, ""),
        // In another network, and nowhere.
        ("far", A, "unknown"),
        ("web.other", A, "unknown"),
        ("nobody", A, "unknown"),
    ] {
        assert_eq!(host.ask("web2", name, kind), expected, "{name}");
    }
    let mut digits: Vec<_> = web.split('.').collect();
    digits.reverse();
    let reverse = format!("{}.in-addr.arpa", digits.join("."));
    assert_eq!(host.ask("web2", &reverse, PTR), ".web.lab.");
    let resolv = host.rrun(&["exec", "web", "cat", "/etc/resolv.conf"]).ok();
    assert!(resolv.starts_with("nameserver 127.0.0.11"), "{resolv}");

    // Names follow containers, whatever becomes of them.
    host.rrun(&["rename", "web", "site"]).ok();
    assert_eq!(host.ask("web2", "site", A), web);
    assert_eq!(host.ask("web2", "web", A), "unknown");
    host.rrun(&["stop", "site"]).ok();
    assert_eq!(host.ask("web2", "site", A), "unknown");
    assert_eq!(host.ask("web2", "www", A), web2);
    host.rrun(&["start", "site"]).ok();
    assert_eq!(host.ask("web2", "site", A), host.address("site"));
    host.rrun(&["rm", "-f", "site", "web2", "far"]).ok();
    host.rrun(&["network", "prune"]).ok();
    assert_eq!(host.rrun(&["network", "ls", "-q"]).ok(), "");
    host.assert_empty();
}

/// The one that is asked is on the host's loopback device, where no container
/// gets.
#[test]
fn privileged_other_names_are_asked_of_the_hosts_resolver() {
    let host = Host::new();
    host.rrun(&["network", "create", "lab"]).ok();
    host.sleeper("web", &["--network", "lab", "--dns", "127.0.0.1"]);
    assert_eq!(host.ask("web", "example.org", A), "failure", "nobody is there");
    let upstream = host.inside(|| UdpSocket::bind("127.0.0.1:53").unwrap());
    let connections = host.inside(|| std::net::TcpListener::bind("127.0.0.1:53").unwrap());
    upstream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let reply = |question: &[u8]| {
        let mut answer = question.to_vec();
        answer[2] = 0x81;
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 80]);
        answer
    };
    let answering = std::thread::spawn(move || {
        let mut buffer = [0; 512];
        let (length, from) = upstream.recv_from(&mut buffer).unwrap();
        upstream.send_to(&reply(&buffer[..length]), from).unwrap();
        let (mut stream, _) = connections.accept().unwrap();
        let length = stream.read(&mut buffer).unwrap();
        let answer = reply(&buffer[2..length]);
        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &answer].concat()).unwrap();
    });
    assert_eq!(host.ask("web", "example.org", A), "192.0.2.80");
    // And over a connection.
    let pid = host.inspect("web", "{{.State.Pid}}");
    let question = question("example.org", A);
    let answer = in_network(Path::new(&format!("/proc/{pid}/ns/net")), || {
        let mut stream = TcpStream::connect(SERVER).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        let length = u16::try_from(question.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &question].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).unwrap();
        answer
    });
    assert_eq!(read(&answer, &question), "192.0.2.80");
    answering.join().unwrap();
    // Its own name needs nobody.
    assert_eq!(host.ask("web", "web", A), host.address("web"));
    host.rrun(&["rm", "-f", "web"]).ok();
}

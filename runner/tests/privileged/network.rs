//! Networks: bridges, published ports, and what is left of them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Host, finish, in_network};

/// A web server whose only page is the file `seed`.
const SERVE: [&str; 7] = ["busybox", "httpd", "-f", "-p", "80", "-h", "/data"];

/// Asks a web server for the page; `Err` if nobody answers in time.
fn get(address: SocketAddr) -> std::io::Result<String> {
    let timeout = Duration::from_millis(1500);
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(b"GET /seed HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    Ok(body.to_owned())
}

impl Host {
    /// Asks a web server from this host, until it is up.
    #[track_caller]
    fn get(&self, address: &str, port: u16) -> String {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.inside(|| get(address)) {
                Ok(text) => return text,
                Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asserts that nothing listens at an address, and that this is said at once.
    #[track_caller]
    fn refuses(&self, address: &str, port: u16) {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        let error = self.inside(|| get(address)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{address}: {error}");
    }

    #[track_caller]
    fn run(&self, name: &str, options: &[&str], command: &[&str]) -> String {
        let mut words = vec!["run", "-d", "--name", name];
        words.extend(options);
        words.extend(command);
        self.rrun(&words).ok()
    }

    fn rules(&self) -> String {
        self.shell("nft list ruleset").ok()
    }

    /// Returns the devices there are beside `lo`.
    fn devices(&self) -> Vec<String> {
        let text = self.shell("ip -o link show").ok();
        let names = text.lines().filter_map(|line| line.split(": ").nth(1));
        let names = names.map(|name| name.split('@').next().unwrap().to_owned());
        names.filter(|name| name != "lo").collect()
    }

    /// Waits until only these devices are there: the kernel takes those of a
    /// container down behind everybody's back.
    #[track_caller]
    fn wait_for_devices(&self, expected: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.devices() != expected {
            assert!(Instant::now() < deadline, "{:?}", self.devices());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn privileged_a_published_port_is_reached_through_the_host() {
    let host = Host::new();
    // Another machine, behind a cable.
    let cable = "ip link add cable type veth peer name far netns $2; ip addr add 192.0.2.1/24 dev cable; ip link set cable up";
    let other = Host::new();
    let script = format!("set -- x {}; {cable}", other.namespace().display());
    host.shell(&script).ok();
    other.shell("ip addr add 192.0.2.2/24 dev far; ip link set far up").ok();

    let id = host.run("web", &["-p", "8080:80", "-p", "127.0.0.1:8081:80"], &SERVE);
    for address in ["127.0.0.1", "127.0.0.9", "192.0.2.1"] {
        assert_eq!(host.get(address, 8080), "from the image\n", "{address}");
    }
    assert_eq!(other.get("192.0.2.1", 8080), "from the image\n");
    assert_eq!(host.get("127.0.0.1", 8081), "from the image\n");
    other.refuses("192.0.2.1", 8081);
    // The container by its own address: from this machine, not from others.
    let address = host.inspect("web", "{{.NetworkSettings.IPAddress}}");
    assert_eq!(host.get(&address, 80), "from the image\n");
    other.shell(&format!("ip route add {address} via 192.0.2.1")).ok();
    let direct = SocketAddr::new(address.parse().unwrap(), 80);
    assert!(other.inside(|| get(direct)).is_err(), "others reach what is not published");
    // A neighbour must not reach what is published on 127.0.0.1 only.
    other.shell("echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet; ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via 192.0.2.1 src 192.0.2.2").ok();
    let local = SocketAddr::from(([127, 0, 0, 1], 8081));
    assert!(other.inside(|| get(local)).is_err(), "a neighbour reaches 127.0.0.1");

    assert_eq!(
        host.rrun(&["port", "web"]).ok(),
        "80/tcp -> 0.0.0.0:8080\n80/tcp -> 127.0.0.1:8081"
    );
    assert_eq!(host.rrun(&["port", "web", "80"]).ok(), "0.0.0.0:8080\n127.0.0.1:8081");
    let error = host.rrun(&["port", "web", "81/udp"]).fails(1);
    assert!(error.contains("port 81/udp of container web is not published"), "{error}");
    let ports = host.rrun(&["ps", "--format", "{{.Ports}}"]).ok();
    assert_eq!(ports, "0.0.0.0:8080->80/tcp, 127.0.0.1:8081->80/tcp");
    assert!(host.rules().contains(&format!("comment \"{id}\"")), "{}", host.rules());

    host.rrun(&["stop", "web"]).ok();
    host.refuses("127.0.0.1", 8080);
    host.refuses("192.0.2.1", 8080);
    assert!(!host.rules().contains(&id), "{}", host.rules());
    host.rrun(&["start", "web"]).ok();
    assert_eq!(host.get("127.0.0.1", 8080), "from the image\n");
    assert_eq!(host.inspect("web", "{{.NetworkSettings.IPAddress}}"), address);
    host.rrun(&["rm", "-f", "web"]).ok();
    host.refuses("127.0.0.1", 8080);
    host.wait_for_devices(&["cable", "rrun0"]);
    host.rrun(&["network", "rm", "bridge"]).ok();
    assert_eq!(host.devices(), ["cable"]);
    assert_eq!(host.rules(), "");
    host.assert_empty();
}

#[test]
fn privileged_ports_of_udp_are_published_too() {
    let host = Host::new();
    host.run("echo", &["-p", "5353:53/udp"], &["busybox", "sleep", "100"]);
    let pid = host.inspect("echo", "{{.State.Pid}}");
    let patience = Some(Duration::from_secs(5));
    let server = in_network(Path::new(&format!("/proc/{pid}/ns/net")), || {
        UdpSocket::bind("0.0.0.0:53").unwrap()
    });
    server.set_read_timeout(patience).unwrap();
    let client = host.inside(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    client.set_read_timeout(patience).unwrap();
    client.connect("127.0.0.1:5353").unwrap();
    client.send(b"ping").unwrap();
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"ping");
    server.send_to(b"pong", from).unwrap();
    let length = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"pong");
    assert_eq!(host.rrun(&["port", "echo"]).ok(), "53/udp -> 0.0.0.0:5353");
    host.rrun(&["rm", "-f", "echo"]).ok();
}

#[test]
fn privileged_free_ports_are_found() {
    let host = Host::new();
    host.add_image("exposing", crate::harness::busybox_tar(), |config| {
        config.config.exposed_ports =
            ["80/tcp".to_owned(), "53/udp".to_owned(), "9/sctp".to_owned()].into();
    });
    host.run("web", &["-P"], &["exposing", "/bin/httpd", "-f", "-p", "80", "-h", "/data"]);
    let lines = host.rrun(&["port", "web"]).ok();
    let [udp, tcp]: [&str; 2] = lines.lines().collect::<Vec<_>>().try_into().unwrap();
    assert!(udp.starts_with("53/udp -> 0.0.0.0:"), "{lines}");
    let port: u16 = tcp.strip_prefix("80/tcp -> 0.0.0.0:").unwrap().parse().unwrap();
    assert_eq!(host.get("127.0.0.1", port), "from the image\n");
    // Without -P they are only shown.
    host.run("shy", &[], &["exposing", "/bin/sleep", "100"]);
    let shown = host.rrun(&["ps", "-f", "name=shy", "--format", "{{.Ports}}"]).ok();
    assert_eq!(shown, "53/udp, 80/tcp");
    host.rrun(&["rm", "-f", "web", "shy"]).ok();
}

#[test]
fn privileged_a_port_in_use_is_found_before_anything_starts() {
    let host = Host::new();
    let taken = host.inside(|| TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let publish = format!("{port}:80");
    let run = ["run", "--rm", "-p", &publish, "busybox", "sh", "-c", "echo started"];
    let outcome = host.rrun(&run);
    assert_eq!(outcome.stdout, "");
    let error = outcome.fails(125);
    assert!(
        error.contains(&format!(
            "cannot publish a port at 0.0.0.0:{port}/tcp: another program has it"
        )),
        "{error}"
    );
    drop(taken);
    host.rrun(&run).ok();

    host.run("web", &["-p", &publish], &SERVE);
    let error = host.rrun(&run).fails(125);
    assert!(error.contains("container web has it\nhint: choose another port"), "{error}");
    // Nobody else can have it either.
    let error = host.inside(|| TcpListener::bind(("0.0.0.0", port.parse().unwrap()))).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    // Twice in one container.
    let twice = ["run", "-d", "-p", "7001:80", "-p", "7001:81", "busybox", "true"];
    let error = host.rrun(&twice).fails(125);
    assert!(error.contains("cannot publish a port at 0.0.0.0:7001/tcp"), "{error}");
    let error = host.rrun(&["run", "--rm", "-p", "192.0.2.7:1:1", "busybox", "true"]).fails(125);
    assert!(error.contains("cannot publish a port at 192.0.2.7:1/tcp: "), "{error}");
    host.rrun(&["rm", "-f", "web"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_containers_of_one_network_reach_each_other_and_no_others() {
    let host = Host::new();
    for network in ["front", "back"] {
        host.rrun(&["network", "create", network]).ok();
    }
    host.run("web", &["--network", "front"], &SERVE);
    let address = host.inspect("web", "{{.NetworkSettings.IPAddress}}");
    assert_eq!(host.get(&address, 80), "from the image\n");
    let ask =
        format!("printf 'GET /seed HTTP/1.0\\r\\n\\r\\n' | timeout 2 nc {address} 80 | tail -n 1");
    let from = |network: &str| {
        host.rrun(&["run", "--rm", "--network", network, "busybox", "sh", "-c", &ask]).stdout
    };
    assert_eq!(from("front"), "from the image\n");
    assert_eq!(from("back"), "");
    assert_eq!(from("bridge"), "");
    // What is published is reached by all, through the host.
    host.run("open", &["--network", "back", "-p", "8080:80"], &SERVE);
    assert_eq!(host.get("127.0.0.1", 8080), "from the image\n");
    let gateway = host.inspect("web", "{{.NetworkSettings.Gateway}}");
    let through = ask.replace(&format!("{address} 80"), &format!("{gateway} 8080"));
    for network in ["front", "back"] {
        let words = ["run", "--rm", "--network", network, "busybox", "sh", "-c", &through];
        assert_eq!(host.rrun(&words).stdout, "from the image\n", "{network}");
    }
    // No way leads to what listens on the host's loopback device.
    let listener = host.inside(|| TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let loopback =
        format!("ip route replace 127.0.0.1 via {gateway}; timeout 2 nc {gateway} {port}");
    let words = ["run", "--rm", "--network", "front", "busybox", "sh", "-c", &loopback];
    assert_ne!(host.rrun(&words).code, 0);

    let error = host.rrun(&["network", "rm", "front"]).fails(1);
    assert!(error.contains("network front is in use by container web"), "{error}");
    host.rrun(&["rm", "-f", "web", "open"]).ok();
    assert_eq!(host.rrun(&["network", "prune"]).ok(), "back\nbridge\nfront");
    host.wait_for_devices(&[]);
    assert_eq!(host.rules(), "");
}

#[test]
fn privileged_a_network_is_described() {
    let host = Host::new();
    let id =
        host.rrun(&["network", "create", "--subnet", "10.5.0.0/24", "--label", "a=b", "lab"]).ok();
    assert_eq!(id.len(), 64);
    host.run("box", &["--network", "lab", "--ip", "10.5.0.77"], &["busybox", "sleep", "100"]);
    let inspect =
        |template: &str| host.rrun(&["network", "inspect", "--format", template, "lab"]).ok();
    assert_eq!(inspect("{{.Name}} {{.Driver}} {{.Internal}} {{.Labels.a}}"), "lab bridge false b");
    assert!(inspect("{{json .Containers}}").contains("\"IPv4Address\":\"10.5.0.77/24\""));
    assert!(
        inspect("{{json .IPAM}}").contains("{\"Subnet\":\"10.5.0.0/24\",\"Gateway\":\"10.5.0.1\"}")
    );
    let exec = |script: &str| host.rrun(&["exec", "box", "sh", "-c", script]).ok();
    assert!(exec("ip -4 addr show eth0").contains("inet 10.5.0.77/24"));
    assert!(exec("ip route").contains("default via 10.5.0.1 dev eth0"));
    assert_eq!(exec("cat /sys/class/net/eth0/address"), "02:42:0a:05:00:4d");
    assert!(exec("cat /etc/hosts").contains(&format!("10.5.0.77\t{}", exec("hostname"))));
    assert_eq!(exec("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "0");

    let run = |options: &[&str]| {
        let mut words = vec!["run", "--rm"];
        words.extend(options);
        words.extend(["busybox", "true"]);
        host.rrun(&words).fails(125)
    };
    for (options, words) in [
        (
            &["--network", "lab", "--ip", "10.5.0.77"][..],
            "10.5.0.77 is in use by another container",
        ),
        (
            &["--network", "lab", "--ip", "10.6.0.7"],
            "10.6.0.7 is not an address for containers of network lab",
        ),
        (&["--network", "lab", "--ip", "10.5.0.1"], "10.5.0.1 is not an address for containers"),
        (
            &["--network", "none", "--ip", "10.5.0.9"],
            "can only be given in a network with a bridge",
        ),
        (&["--network", "nowhere"], "no such network: nowhere"),
        (&["--network", "container:nobody"], "no such container: nobody"),
    ] {
        let error = run(options);
        assert!(error.contains(words), "{options:?}: {error}");
    }
    for (words, expected) in [
        (&["network", "create", "lab"][..], "there is a network \"lab\" already"),
        (&["network", "create", "host"], "there is a network \"host\" already"),
        (&["network", "create", "--subnet", "10.5.0.128/25", "lab2"], "has a route to 10.5.0.0/24"),
        (&["network", "rm", "nowhere"], "no such network: nowhere"),
    ] {
        let error = host.rrun(words).fails(1);
        assert!(error.contains(expected), "{words:?}: {error}");
    }
    assert_eq!(
        host.rrun(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"]).ok(),
        "lab bridge\nhost host\nnone null"
    );
    host.rrun(&["rm", "-f", "box"]).ok();
}

#[test]
fn privileged_a_network_chooses_addresses_that_lead_nowhere_else() {
    let host = Host::new();
    host.shell("ip link add other type bridge; ip addr add 10.89.1.1/24 dev other; ip link set other up; ip link add rrun0 type bridge").ok();
    host.run("box", &[], &["busybox", "sleep", "100"]);
    let address: Ipv4Addr = host.inspect("box", "{{.NetworkSettings.IPAddress}}").parse().unwrap();
    assert_eq!(address.octets()[..2], [10, 89]);
    assert_eq!(address.octets()[2] & 0xfc, 4, "{address}");
    // A device that is not ours keeps its name.
    assert!(host.devices().contains(&"rrun1".to_owned()), "{:?}", host.devices());
    host.rrun(&["rm", "-f", "box"]).ok();
}

#[test]
fn privileged_a_container_is_in_the_network_of_another() {
    let host = Host::new();
    host.run("web", &["-p", "8080:80", "--hostname", "inner"], &["busybox", "sleep", "100"]);
    host.run("server", &["--network", "container:web"], &SERVE);
    assert_eq!(host.get("127.0.0.1", 8080), "from the image\n");
    let exec = |name: &str, script: &str| host.rrun(&["exec", name, "sh", "-c", script]).ok();
    let of = |name: &str| exec(name, "readlink /proc/self/ns/net; cat /etc/hosts; hostname");
    assert_eq!(of("web"), of("server"));
    assert_eq!(exec("server", "ls /sys/class/net"), "eth0\nlo");
    let error =
        host.rrun(&["run", "--rm", "--network", "container:web", "-p", "1:1", "busybox", "true"]);
    assert!(error.fails(125).contains("publish them for that one"));
    host.rrun(&["rm", "-f", "server"]).ok();
    host.rrun(&["create", "--name", "late", "--network", "container:web", "busybox", "true"]).ok();
    host.rrun(&["stop", "web"]).ok();
    let error = host.rrun(&["start", "late"]).fails(1);
    assert!(error.contains("whose network is to be shared, is not running"), "{error}");
    host.rrun(&["rm", "-f", "web", "late"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_what_a_killed_shim_had_is_given_back() {
    let host = Host::new();
    let place = ["-p", "8080:80", "--ip", "10.89.0.50"];
    let id = host.run("web", &place, &SERVE);
    host.get("127.0.0.1", 8080);
    let state = host.root().join("containers").join(&id).join("running");
    let running: serde_json::Value =
        serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap();
    let shim = i32::try_from(running["shim_pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    host.wait_for("web", "exited");
    assert!(host.rules().contains(&id), "nobody could take it away yet");
    host.rrun(&["ps"]).ok();
    assert!(!host.rules().contains(&id), "{}", host.rules());
    host.refuses("127.0.0.1", 8080);
    // Address and port are another container's without further ado.
    host.run("next", &place, &SERVE);
    assert_eq!(host.get("127.0.0.1", 8080), "from the image\n");
    host.rrun(&["rm", "-f", "web", "next"]).ok();

    // In the foreground, and with a next command that starts something itself.
    let mut words = vec!["run", "--name", "front"];
    words.extend(place);
    words.extend(SERVE);
    let mut front = host.start(&words);
    host.get("127.0.0.1", 8080);
    front.kill().unwrap();
    front.wait().unwrap();
    host.wait_for("front", "exited");
    let mut words = vec!["run", "--rm"];
    words.extend(place);
    words.extend(["busybox", "true"]);
    host.rrun(&words).ok();
    host.refuses("127.0.0.1", 8080);
    assert!(!host.rules().contains("10.89.0.50"), "{}", host.rules());
    host.rrun(&["rm", "front"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_rules_that_were_flushed_come_back_with_the_next_start() {
    let host = Host::new();
    host.run("web", &["-p", "8080:80"], &SERVE);
    host.get("127.0.0.1", 8080);
    host.shell("nft flush ruleset").ok();
    host.rrun(&["run", "--rm", "busybox", "true"]).ok();
    assert_eq!(host.get("127.0.0.1", 8080), "from the image\n");
    host.rrun(&["rm", "-f", "web"]).ok();
}

#[test]
fn privileged_a_firewall_that_drops_is_named() {
    let host = Host::new();
    host.shell("nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'").ok();
    let outcome = host.rrun(&["run", "--rm", "busybox", "true"]);
    assert_eq!(outcome.code, 0);
    assert!(
        outcome
            .stderr
            .starts_with("warning: the packet filter's chain \"ip filter FORWARD\" drops"),
        "{}",
        outcome.stderr
    );
    // What it says to do helps.
    for way in ["iifname", "oifname"] {
        let command = format!("nft 'insert rule ip filter FORWARD {way} \"rrun*\" accept'");
        assert!(outcome.stderr.contains(&command), "{}", outcome.stderr);
        host.shell(&command).ok();
    }
    let outcome = host.rrun(&["run", "--rm", "busybox", "true"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    let theirs = host.rules();
    assert!(theirs.contains("policy drop"), "{theirs}");
}

#[test]
fn privileged_many_containers_have_many_addresses() {
    let host = Host::new();
    let children: Vec<_> = (0..12)
        .map(|_| {
            host.start(&[
                "run",
                "--rm",
                "-p",
                "80",
                "busybox",
                "sh",
                "-c",
                "ip -4 addr show eth0 | grep inet; sleep 1",
            ])
        })
        .collect();
    let mut lines: Vec<String> = children.into_iter().map(|child| finish(child).ok()).collect();
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 12, "{lines:?}");
    host.wait_for_devices(&["rrun0"]);
    assert!(!host.rules().contains("comment \"0"), "{}", host.rules());
    host.assert_empty();
}

#[test]
fn privileged_names_come_from_the_hosts_resolver_or_from_the_one_given() {
    let host = Host::new();
    let run = |options: &[&str], file: &str| {
        let mut words = vec!["run", "--rm"];
        words.extend(options);
        words.extend(["busybox", "cat", file]);
        host.rrun(&words).ok()
    };
    let given = ["--dns", "192.0.2.53", "--dns-search", "example.org", "--dns-option", "ndots:2"];
    let expected = "nameserver 192.0.2.53\nsearch example.org\noptions ndots:2";
    assert_eq!(run(&given, "/etc/resolv.conf"), expected);
    let hosts = run(
        &["--add-host", "db:10.0.0.5", "--add-host", "host:host-gateway", "--hostname", "box"],
        "/etc/hosts",
    );
    assert!(hosts.contains("10.0.0.5\tdb\n"), "{hosts}");
    assert!(hosts.contains("10.89.0.1\thost"), "{hosts}");
    // The host's resolver on its loopback device: it says itself whom it asks.
    let etc = host.path("resolv");
    std::fs::create_dir_all(etc.join("systemd/resolve")).unwrap();
    std::fs::write(etc.join("stub"), "nameserver 127.0.0.53\noptions edns0\n").unwrap();
    std::fs::write(etc.join("systemd/resolve/resolv.conf"), "nameserver 192.0.2.9\n").unwrap();
    let script = format!(
        "mount --bind {0}/stub /etc/resolv.conf; mount --bind {0} /run; exec \"$@\"",
        etc.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", &script, "sh"]);
    let rrun = host.command();
    command.arg(rrun.get_program()).args(rrun.get_args());
    command.args(["run", "--rm", "busybox", "cat", "/etc/resolv.conf"]).env_clear();
    for (key, value) in rrun.get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "nameserver 192.0.2.9\n", "{output:?}");
}

/// As root of a container mostly is.
#[test]
fn privileged_root_without_the_right_to_make_devices_is_told_what_to_do() {
    let host = Host::new();
    let rrun = host.command();
    let run = |network: &[&str]| {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", "--"]);
        command.arg(rrun.get_program()).args(rrun.get_args()).args(["run", "--rm"]);
        command.args(network).args(["busybox", "true"]).env("RBUILD_ROOT", host.root());
        command.env("RRUN_INIT", crate::harness::helper()).output().unwrap()
    };
    let output = run(&[]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{error}");
    assert!(error.contains("not permitted") && error.contains("hint: a bridge takes"), "{error}");
    assert_eq!(run(&["--network", "host"]).status.code(), Some(0));
    host.assert_empty();
}

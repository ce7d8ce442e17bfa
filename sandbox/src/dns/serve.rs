//! Answering, and asking others.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::message::{NAME_ERROR, NO_ERROR, Question, SERVER_FAILURE, TYPE_A, TYPE_PTR};
use super::{PORT, Resolver, Sockets, names};

/// The largest message over UDP, with what EDNS allows.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// How long one server is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many questions may be on their way at once. What is more is dropped, and
/// asked again by whoever asked: a container must not take all descriptors.
const PENDING_MAX: usize = 64;

/// How many connections are served at once.
const CONNECTIONS_MAX: usize = 8;

/// Enough for a loop without recursion.
const STACK_BYTES: usize = 128 << 10;

/// A question that was passed on.
struct Pending {
    socket: UdpSocket,
    from: SocketAddr,
    question: Vec<u8>,
    servers: Vec<SocketAddr>,
    until: Instant,
}

/// What becomes of a question.
enum Outcome {
    Answer(Vec<u8>),
    PassOn(Vec<SocketAddr>),
}

pub(super) fn start(resolver: Resolver, sockets: Sockets) -> io::Result<()> {
    let resolver = Arc::new(resolver);
    let Sockets { udp, tcp } = sockets;
    udp.set_nonblocking(true)?;
    let shared = Arc::clone(&resolver);
    let builder = || thread::Builder::new().name("names".into()).stack_size(STACK_BYTES);
    builder().spawn(move || serve(&shared, &udp))?;
    builder().spawn(move || accept(&resolver, &tcp))?;
    Ok(())
}

/// Serves datagrams for ever.
fn serve(resolver: &Resolver, socket: &UdpSocket) {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let mut pending: Vec<Pending> = Vec::new();
    loop {
        wait(socket, &pending);
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question = &buffer[..length];
            match answer(resolver, question) {
                // One that does not take its answer asks again.
                Some(Outcome::Answer(answer)) => drop(socket.send_to(&answer, from)),
                Some(Outcome::PassOn(servers)) if pending.len() < PENDING_MAX => {
                    pending.extend(pass_on(question, from, servers));
                }
                Some(Outcome::PassOn(_)) | None => {}
            }
        }
        let now = Instant::now();
        let mut next = Vec::with_capacity(pending.len());
        for one in pending.drain(..) {
            next.extend(one.advance(socket, &mut buffer, now));
        }
        pending = next;
    }
}

/// Waits until something can be read, or somebody was waited for long enough.
fn wait(socket: &UdpSocket, pending: &[Pending]) {
    let mut fds = vec![PollFd::new(socket, PollFlags::IN)];
    fds.extend(pending.iter().map(|one| PollFd::new(&one.socket, PollFlags::IN)));
    let now = Instant::now();
    let timeout = pending.iter().map(|one| one.until.saturating_duration_since(now)).min();
    // A millisecond more: it must be over then.
    let timeout = timeout.map(|timeout| timeout + Duration::from_millis(1));
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    // A signal is as good as a message: both are looked for.
    poll(&mut fds, timeout.as_ref()).ok();
}

/// Says what becomes of a message; none if it is not one.
fn answer(resolver: &Resolver, bytes: &[u8]) -> Option<Outcome> {
    let servers = || servers(resolver);
    let Some(question) = Question::parse(bytes) else {
        // Whatever it is, somebody else may know.
        return Some(Outcome::PassOn(servers())).filter(|_| bytes.len() >= 12);
    };
    if let Some(address) = question.reverse().filter(|_| question.kind == TYPE_PTR)
        && let Some(name) = names::name_of(resolver, address)
    {
        return Some(Outcome::Answer(question.answer_name(&name)));
    }
    let mut addresses = names::addresses_of(resolver, &question.name);
    if !addresses.is_empty() {
        // Several share a name: each is the first one now and then.
        let turn = usize::from(bytes[1]) % addresses.len();
        addresses.rotate_left(turn);
        // Other than addresses they have nothing, which is not the same as not
        // being there.
        return Some(Outcome::Answer(match question.kind {
            TYPE_A => question.answer_addresses(&addresses),
            _ => question.answer_empty(NO_ERROR),
        }));
    }
    let servers = servers();
    if servers.is_empty() {
        let code = if resolver.forwards { SERVER_FAILURE } else { NAME_ERROR };
        return Some(Outcome::Answer(question.answer_empty(code)));
    }
    Some(Outcome::PassOn(servers))
}

/// Returns whom to ask. The host's file is read each time: networks change.
fn servers(resolver: &Resolver) -> Vec<SocketAddr> {
    let of = |address: IpAddr| SocketAddr::new(address, PORT);
    if !resolver.forwards {
        return Vec::new();
    }
    if !resolver.servers.is_empty() {
        return resolver.servers.iter().copied().map(of).collect();
    }
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let words = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let servers = words.filter_map(|word| word.trim().parse().ok().map(of));
    // As in resolv.conf(5): three at most.
    servers.take(3).collect()
}

fn pass_on(question: &[u8], from: SocketAddr, mut servers: Vec<SocketAddr>) -> Option<Pending> {
    servers.reverse();
    let server = servers.pop()?;
    let any: IpAddr = match server.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.set_nonblocking(true).ok()?;
    // A connected socket hears of nobody but the server. One that cannot be
    // reached is like one that is silent.
    socket.connect(server).and_then(|()| socket.send(question)).ok();
    let until = Instant::now() + PATIENCE;
    Some(Pending { socket, from, question: question.to_vec(), servers, until })
}

impl Pending {
    /// Returns what is still to be waited for.
    fn advance(self, client: &UdpSocket, buffer: &mut [u8], now: Instant) -> Option<Self> {
        match self.socket.recv(buffer) {
            Ok(length) if buffer[..length].starts_with(&self.question[..2]) => {
                client.send_to(&buffer[..length], self.from).ok();
                None
            }
            Ok(_) => Some(self),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && now < self.until => {
                Some(self)
            }
            // Silent, or refused at once: the next one.
            Err(_) if !self.servers.is_empty() => {
                let mut servers = self.servers;
                servers.reverse();
                pass_on(&self.question, self.from, servers)
            }
            Err(_) => {
                if let Some(question) = Question::parse(&self.question) {
                    client.send_to(&question.answer_empty(SERVER_FAILURE), self.from).ok();
                }
                None
            }
        }
    }
}

/// Serves connections for ever.
fn accept(resolver: &Arc<Resolver>, listener: &TcpListener) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // No descriptors are left: they may be later.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (resolver, count) = (Arc::clone(resolver), Arc::clone(&open));
        let started = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            // Whoever asked sees the end of the connection.
            talk(&resolver, stream).ok();
            count.fetch_sub(1, Ordering::Relaxed);
        });
        if started.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Answers the questions of one connection.
fn talk(resolver: &Resolver, mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    loop {
        let question = receive(&mut stream)?;
        let answer = match answer(resolver, &question) {
            Some(Outcome::Answer(answer)) => answer,
            Some(Outcome::PassOn(servers)) => servers
                .iter()
                .find_map(|server| ask(*server, &question).ok())
                .or_else(|| Some(Question::parse(&question)?.answer_empty(SERVER_FAILURE)))
                .ok_or(io::ErrorKind::InvalidData)?,
            None => return Ok(()),
        };
        send(&mut stream, &answer)?;
    }
}

fn ask(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(&mut stream, question)?;
    receive(&mut stream)
}

/// Over a connection the length is in front of a message.
fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn send(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat())
}

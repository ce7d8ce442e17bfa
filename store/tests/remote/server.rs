//! A small HTTP server that can misbehave: it answers, cuts off, and stays silent as told.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request whose body is still on its way.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, Vec<String>>,
    pub(crate) headers: BTreeMap<String, String>,
    reader: BufReader<TcpStream>,
    unread: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name)?.first().map(String::as_str)
    }

    /// Reads the body, or so much of it; what is not read stays on the line.
    pub(crate) fn body(&mut self, limit: usize) -> Vec<u8> {
        let wanted = self.unread.min(limit);
        let mut body = Vec::new();
        // What came before the client broke off counts.
        drop((&mut self.reader).take(wanted as u64).read_to_end(&mut body));
        self.unread = if body.len() < wanted { 0 } else { self.unread - wanted };
        body
    }
}

/// What to answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether to announce another length than the body has.
    pub(crate) length: Option<usize>,
    /// Whether to cut the connection after so many bytes of the body; `Some(0)` without a status
    /// cuts it before anything is said.
    pub(crate) cut_after: Option<usize>,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), length: None, cut_after: None }
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Ends the connection without a word.
    pub(crate) fn silence() -> Self {
        Self { cut_after: Some(0), ..Self::new(0) }
    }
}

type Handler = dyn Fn(&mut Request) -> Reply + Send + Sync;

/// A server on a free port of this machine, until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    /// One line per request: method, path, and `+` where there was an `Authorization`.
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&mut Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (is_over, log) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::default()));
        let handler: Arc<Handler> = Arc::new(handler);
        let (over, lines) = (Arc::clone(&is_over), Arc::clone(&log));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (handler, lines) = (Arc::clone(&handler), Arc::clone(&lines));
                thread::spawn(move || serve(stream.unwrap(), &*handler, &lines));
            }
        });
        Self { address, is_over, log }
    }

    /// Returns `127.0.0.1:<port>`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Counts the requests whose line starts like this.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.log().iter().filter(|line| line.starts_with(start)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: TcpStream, handler: &Handler, log: &Mutex<Vec<String>>) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let Some(mut request) = read_head(reader) else { return };
        let mark = if request.header("authorization").is_some() { " +" } else { "" };
        log.lock().unwrap().push(format!("{} {}{mark}", request.method, request.path));
        let is_head = request.method == "HEAD";
        let reply = handler(&mut request);
        if reply.status == 0 || request.unread > 0 && reply.cut_after.is_some() {
            // With unread bytes on the line, closing resets the connection.
            drop(writer.shutdown(Shutdown::Both));
            return;
        }
        request.body(usize::MAX);
        let length = reply.length.unwrap_or(reply.body.len());
        let mut head = format!("HTTP/1.1 {} X\r\ncontent-length: {length}\r\n", reply.status);
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut answer = (head + "\r\n").into_bytes();
        if !is_head {
            let end = reply.cut_after.unwrap_or(reply.body.len()).min(reply.body.len());
            answer.extend(&reply.body[..end]);
        }
        if writer.write_all(&answer).is_err() || reply.cut_after.is_some() || reply.length.is_some()
        {
            drop(writer.shutdown(Shutdown::Both));
            return;
        }
        reader = request.reader;
    }
}

fn read_head(mut reader: BufReader<TcpStream>) -> Option<Request> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|count| *count > 0)?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let unread = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let path = path.to_owned();
    let query = pairs(query);
    Some(Request { method, path, query, headers, reader, unread })
}

/// Reads `a=b&c=d`, as addresses and forms have it.
pub(crate) fn pairs(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut pairs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
        pairs.entry(decoded(name)).or_default().push(decoded(value));
    }
    pairs
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let hex: Vec<u8> = rest.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}

//! A small web server: files with versions, and git repositories as plain files.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What is at a path.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) body: Vec<u8>,
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    pages: BTreeMap<String, Page>,
    /// Serves the files below, too.
    root: Option<PathBuf>,
    log: Vec<String>,
}

/// A server on a free port of this machine, until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (is_over, state) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<State>>::default());
        let (over, shared) = (Arc::clone(&is_over), Arc::clone(&state));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { address, is_over, state }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn serve_directory(&self, root: PathBuf) {
        self.state.lock().unwrap().root = Some(root);
    }

    pub(crate) fn put(&self, path: &str, body: impl Into<Vec<u8>>, etag: Option<&str>) {
        let page = Page {
            body: body.into(),
            etag: etag.map(str::to_owned),
            last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
        };
        self.state.lock().unwrap().pages.insert(path.to_owned(), page);
    }

    /// Returns the requests since the last call: status and path.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut known = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("if-none-match")
        {
            known = Some(value.trim().to_owned());
        }
    }
    let (page, root) = {
        let state = state.lock().unwrap();
        (state.pages.get(&path).cloned(), state.root.clone())
    };
    let plain = path.split('?').next().unwrap().trim_start_matches('/').to_owned();
    let file = root.and_then(|root| std::fs::read(root.join(plain)).ok());
    let page = page.or(file.map(|body| Page { body, etag: None, last_modified: None }));
    let (status, page) = match page {
        None => (404, Page { body: b"none".to_vec(), etag: None, last_modified: None }),
        Some(page) if page.etag.is_some() && page.etag == known => {
            (304, Page { body: Vec::new(), ..page })
        }
        Some(page) => (200, page),
    };
    state.lock().unwrap().log.push(format!("{status} {path}"));
    let mut head = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n",
        page.body.len()
    );
    for (name, value) in [("etag", page.etag), ("last-modified", page.last_modified)] {
        if let Some(value) = value {
            head += &format!("{name}: {value}\r\n");
        }
    }
    let _closed = writer.write_all(&[head.as_bytes(), b"\r\n", &page.body].concat());
}

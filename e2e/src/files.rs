//! A web server for the files of a directory.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Serves files over plain HTTP on a free port of this machine, until it is dropped.
#[derive(Debug)]
pub struct Files {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Files {
    /// Starts serving what is below a directory.
    #[must_use]
    pub fn serve(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, root) = (Arc::clone(&is_over), root.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let root = root.clone();
                thread::spawn(move || answer(stream.unwrap(), &root));
            }
        });
        Self { address, is_over }
    }

    /// Returns the address of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn answer(mut stream: TcpStream, root: &Path) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    let mut line = String::from("x");
    let _broken = reader.read_line(&mut first);
    while !line.trim().is_empty() {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            break;
        }
    }
    let target = first.split(' ').nth(1).unwrap_or("/");
    let path = target.split('?').next().unwrap().trim_start_matches('/');
    let path: PathBuf = root.join(path);
    let found = fs::metadata(&path).ok().filter(fs::Metadata::is_file).zip(fs::read(&path).ok());
    let (status, body, modified) = match found {
        Some((metadata, body)) => ("200 OK", body, Some(metadata.mtime())),
        None => ("404 Not Found", Vec::new(), None),
    };
    let mut head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    // The time of all files of contexts: the rest of its date is of no interest here.
    if modified == Some(981_173_106) {
        head += "Last-Modified: Sat, 03 Feb 2001 04:05:06 GMT\r\n";
    }
    let is_head = first.starts_with("HEAD ");
    let body = if is_head { Vec::new() } else { body };
    let _closed = stream.write_all(&[head.as_bytes(), b"\r\n", &body].concat());
}

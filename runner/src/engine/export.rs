//! `export`: the files of a container as one tar.
//!
//! They are read from the container's own layers, the writable one on top, and
//! not through its mounts: what volumes and other mounts cover is shown, what is
//! in them is not, as with docker. Nothing is mounted for it and the container
//! may run or not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use store::layers::tar::Writer;
use store::layers::{Entry, Kind, MergedView, Metadata, Node};

use super::Engine;
use super::containers::Container;
use super::error::{Error, IoContext as _, Result};
use super::state::Status;
use super::stubs;

/// How much of a file is read at once.
const BUFFER_BYTES: usize = 256 * 1024;

impl Engine {
    /// Writes everything in a container's root as a tar: parents before
    /// children, names in order. Sockets are left out.
    ///
    /// Returns the paths of files that were cut off while they were read; zeros
    /// stand for what is missing.
    ///
    /// # Errors
    ///
    /// When the layers of its image are gone or cannot be read, when the
    /// container is removed meanwhile, and when `output` cannot be written.
    pub fn export(&self, container: &Container, output: impl Write) -> Result<Vec<PathBuf>> {
        // One that does not run must not be removed meanwhile; one that waits to be started again
        // must not be kept from it.
        let _ownership = match container.status()? {
            Status::Running(_) | Status::Restarting(..) => None,
            Status::Created | Status::Exited(..) | Status::Lost(_) => container.own()?,
        };
        let layers = &container.config.image.layers;
        let snapshot = self.store().pinned_snapshot(layers)?.ok_or_else(|| Error::Invalid {
            what: format!("the layers of container {} are not in the store", container.config.name),
        })?;
        let mut stack = vec![container.dir().join("upper")];
        stack.extend_from_slice(snapshot.lowers());
        stack.push(stubs::lower(self.store().root().path())?);
        let view = MergedView::open(&stack).doing("open the layers at", &stack[0])?;
        let mut export = Export {
            view: &view,
            writer: Writer::new(output),
            links: BTreeMap::new(),
            cut_off: Vec::new(),
        };
        export.all()?;
        export.writer.finish().trying(WRITE)?;
        // What is gone looked like what was never there.
        if !container.dir().join("config.json").exists() {
            return Err(Error::ContainerUnknown { text: container.config.name.to_string() });
        }
        Ok(export.cut_off)
    }
}

/// What is said when the reader of the archive refuses.
const WRITE: &str = "write the archive";

struct Export<'v, W: Write> {
    view: &'v MergedView,
    writer: Writer<W>,
    /// Files with several names, by identity, and the name each was written by.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    cut_off: Vec<PathBuf>,
}

impl<W: Write> Export<'_, W> {
    /// Writes everything, without recursion: a container may nest directories as
    /// deeply as it likes.
    fn all(&mut self) -> Result<()> {
        let mut waiting = vec![PathBuf::new()];
        while let Some(path) = waiting.pop() {
            let shown = || Path::new("/").join(&path);
            let node = match self.view.lstat(&path) {
                // A socket leads nowhere without whoever listens.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => continue,
                found => found.doing("read", &shown())?,
            };
            // What is gone meanwhile is not there.
            let Some(node) = node else { continue };
            if node.kind == Kind::Directory {
                let names = self.view.list(&path).doing("read", &shown())?.unwrap_or_default();
                waiting.extend(names.into_iter().rev().map(|name| path.join(name)));
            }
            // As with docker, the root itself is not in it.
            if path != Path::new("") {
                self.write(&path, node)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, path: &Path, node: Node) -> Result<()> {
        let mut name = path.as_os_str().as_bytes().to_vec();
        let Node { mut kind, metadata, identity, links } = node;
        if kind == Kind::Directory {
            name.push(b'/');
        } else if links > 1 {
            match self.links.get(&identity) {
                Some(first) => kind = Kind::HardLink { target: first.clone() },
                None => drop(self.links.insert(identity, name.clone())),
            }
        }
        if let Kind::File { .. } = kind {
            return self.file(path, name, metadata);
        }
        self.writer.entry(&entry(name, kind, metadata)).trying(WRITE)
    }

    fn file(&mut self, path: &Path, name: Vec<u8>, metadata: Metadata) -> Result<()> {
        let shown = || Path::new("/").join(path);
        let file = match self.view.open_file(path) {
            // It was removed, or something else took its place.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::InvalidInput
                        | io::ErrorKind::IsADirectory
                ) =>
            {
                None
            }
            opened => opened.doing("read", &shown())?,
        };
        let Some(file) = file else {
            self.links.retain(|_, first| *first != name);
            return Ok(());
        };
        let size = file.metadata().doing("read", &shown())?.len();
        self.writer.entry(&entry(name, Kind::File { size }, metadata)).trying(WRITE)?;
        self.content(file, size, path)
    }

    /// Writes exactly as much as was announced, however the file changes.
    fn content(&mut self, file: File, size: u64, path: &Path) -> Result<()> {
        let mut file = file.take(size);
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut left = size;
        while left > 0 {
            let read = match file.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.doing("read", &Path::new("/").join(path))?,
            };
            self.writer.data(&buffer[..read]).trying(WRITE)?;
            left -= read as u64;
        }
        if left > 0 {
            self.cut_off.push(Path::new("/").join(path));
            buffer.fill(0);
        }
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
            self.writer.data(&buffer[..length]).trying(WRITE)?;
            left -= length as u64;
        }
        Ok(())
    }
}

fn entry(path: Vec<u8>, kind: Kind, mut metadata: Metadata) -> Entry {
    metadata.mtime = metadata.mtime.in_tar(None);
    Entry { path, kind, metadata }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    /// Writes stacked directories, topmost first, as a tar.
    fn export(stack: &[PathBuf]) -> (Vec<u8>, Vec<PathBuf>) {
        let view = MergedView::open(stack).unwrap();
        let (links, cut_off) = (BTreeMap::new(), Vec::new());
        let mut export = Export { view: &view, writer: Writer::new(Vec::new()), links, cut_off };
        export.all().unwrap();
        (export.writer.finish().unwrap(), export.cut_off)
    }

    /// Returns what the system's tar says is in an archive.
    fn listed(tar: &[u8]) -> Vec<String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(tar).unwrap();
        let output = Command::new("tar")
            .args(["--list", "--verbose", "--file"])
            .arg(file.path())
            .output()
            .unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        // Permissions, and what follows the time.
        let short = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("{} {}", &words[0][..1], words[5..].join(" "))
        };
        text.lines().map(short).collect()
    }

    #[test]
    fn layers_are_one_tree_and_sockets_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
        fs::create_dir_all(lower.join("etc")).unwrap();
        fs::create_dir(lower.join("bin")).unwrap();
        fs::write(lower.join("etc/old"), "old").unwrap();
        fs::write(lower.join("bin/one"), "one").unwrap();
        fs::hard_link(lower.join("bin/one"), lower.join("bin/two")).unwrap();
        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::write(upper.join("etc/new"), "new").unwrap();
        symlink("/nowhere", upper.join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(upper.join("socket")).unwrap();
        let (tar, cut_off) = export(&[upper, lower]);
        assert!(cut_off.is_empty(), "{cut_off:?}");
        assert_eq!(
            listed(&tar),
            [
                "d bin/",
                "- bin/one",
                "h bin/two link to bin/one",
                "d etc/",
                "- etc/new",
                "- etc/old",
                "l link -> /nowhere"
            ]
        );
    }

    #[test]
    fn a_file_that_shrinks_is_filled_up_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "short").unwrap();
        let view = MergedView::open(&[dir.path().to_owned()]).unwrap();
        let (links, cut_off) = (BTreeMap::new(), Vec::new());
        let mut export = Export { view: &view, writer: Writer::new(Vec::new()), links, cut_off };
        let size = BUFFER_BYTES as u64 * 2 + 7;
        let metadata = Metadata::implied_directory();
        export.writer.entry(&entry(b"log".to_vec(), Kind::File { size }, metadata)).unwrap();
        export.content(File::open(&path).unwrap(), size, Path::new("log")).unwrap();
        assert_eq!(export.cut_off, [PathBuf::from("/log")]);
        let tar = export.writer.finish().unwrap();
        assert_eq!(&tar[512..520], b"short\0\0\0");
        assert_eq!(listed(&tar), ["- log"]);
    }

    #[test]
    fn no_tree_is_too_deep() {
        let dir = tempfile::tempdir().unwrap();
        let mut deep = dir.path().to_owned();
        for _ in 0..1500 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(listed(&export(&[dir.path().to_owned()]).0).len(), 1500);
        // Deeper than what a temporary directory removes by itself.
        crate::engine::tree::remove(dir.path()).unwrap();
    }
}

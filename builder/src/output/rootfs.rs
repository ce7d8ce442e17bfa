//! The files of a finished image: layers stacked and read, without a mount.

use std::collections::BTreeMap;
use std::io::{Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use oci::Platform;
use store::Lease;
use store::layers::tar::Writer;
use store::layers::{Entry, Kind, MergedView, Metadata, Node, Snapshot, Timestamp};

use crate::error::{Error, IoContext as _, Result};
use crate::solve::Built;

/// How much of a file is copied at once.
const COPY_BYTES: usize = 256 * 1024;

/// The root file system of one image.
#[derive(Debug)]
pub struct Rootfs {
    snapshot: Snapshot,
}

/// Something that files are written to.
pub(super) trait Take {
    /// Takes one file; `content` is there for regular ones.
    fn take(&mut self, path: &Path, node: &Node, content: Option<std::fs::File>) -> Result<()>;
}

impl Rootfs {
    /// Unpacks the layers of an image, as far as that was not done.
    ///
    /// # Errors
    /// Fails when a layer is not in the store or cannot be unpacked.
    pub fn open(lease: &Lease, built: &Built) -> Result<Self> {
        let image = lease.store().image(&built.manifest, &built.platform)?;
        for (layer, diff_id) in image.manifest.layers.iter().zip(image.diff_ids()) {
            if !lease.is_unpacked(*diff_id)? {
                lease.unpack(layer, *diff_id)?;
            }
        }
        Ok(Self { snapshot: lease.snapshot(image.diff_ids())? })
    }

    /// Gives everything below the root to `to`, parents before children, names in byte order.
    /// With an `epoch`, that is everything's time.
    pub(super) fn walk(&self, epoch: Option<i64>, to: &mut dyn Take) -> Result<()> {
        let view = self.snapshot.view()?;
        let mut links: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
        let mut pending = children(view, Path::new(""))?;
        while let Some(path) = pending.pop() {
            let Some(mut node) = view.lstat(&path).doing("look at", &path)? else { continue };
            if let Some(seconds) = epoch {
                node.metadata.mtime = Timestamp::from_seconds(seconds);
            }
            let mut content = None;
            if matches!(node.kind, Kind::File { .. }) {
                match links.get(&node.identity) {
                    Some(first) if node.links > 1 => {
                        let target = first.as_os_str().as_bytes().to_vec();
                        node.kind = Kind::HardLink { target };
                    }
                    _ => {
                        if node.links > 1 {
                            links.insert(node.identity, path.clone());
                        }
                        content = view.open_file(&path).doing("open", &path)?;
                    }
                }
            }
            to.take(&path, &node, content)?;
            if node.kind == Kind::Directory {
                pending.extend(children(view, &path)?);
            }
        }
        Ok(())
    }
}

/// Returns the paths in a directory, the last first.
fn children(view: &MergedView, directory: &Path) -> Result<Vec<PathBuf>> {
    let names = view.list(directory).doing("read directory", directory)?.unwrap_or_default();
    Ok(names.into_iter().rev().map(|name| directory.join(name)).collect())
}

/// Returns the directory of a platform's files, where there are several: `linux_arm_v7`.
#[must_use]
pub fn platform_directory(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

/// Writes root file systems as one tar, those with a name into a directory of that name.
///
/// # Errors
/// Fails when a file cannot be read, or the output written.
pub fn write_tar(
    roots: &[(Option<String>, Rootfs)],
    epoch: Option<i64>,
    output: impl Write,
) -> Result<()> {
    let output = std::io::BufWriter::with_capacity(COPY_BYTES, output);
    let mut tar = Tar { writer: Writer::new(output), prefix: PathBuf::new(), buffer: Vec::new() };
    tar.buffer.resize(COPY_BYTES, 0);
    for (name, rootfs) in roots {
        tar.prefix = PathBuf::new();
        if let Some(name) = name {
            let mtime = Timestamp::from_seconds(epoch.unwrap_or(0));
            let metadata = Metadata { mtime, ..Metadata::implied_directory() };
            let node = Node { kind: Kind::Directory, metadata, identity: (0, 0), links: 1 };
            tar.take(Path::new(name), &node, None)?;
            tar.prefix = PathBuf::from(name);
        }
        rootfs.walk(epoch, &mut tar)?;
    }
    let finished = tar.writer.finish().and_then(|mut output| output.flush());
    finished.doing("write", Path::new("the tar"))
}

struct Tar<W: Write> {
    writer: Writer<W>,
    prefix: PathBuf,
    buffer: Vec<u8>,
}

impl<W: Write> Take for Tar<W> {
    fn take(&mut self, path: &Path, node: &Node, content: Option<std::fs::File>) -> Result<()> {
        let full = self.prefix.join(path);
        let mut name = full.as_os_str().as_bytes().to_vec();
        let kind = match &node.kind {
            Kind::Directory => {
                name.push(b'/');
                Kind::Directory
            }
            Kind::HardLink { target } => {
                let target = self.prefix.join(std::ffi::OsStr::from_bytes(target));
                Kind::HardLink { target: target.into_os_string().into_encoded_bytes() }
            }
            other => other.clone(),
        };
        let mut metadata = node.metadata.clone();
        metadata.mtime = metadata.mtime.in_tar(None);
        let to = Path::new("the tar");
        self.writer.entry(&Entry { path: name, kind, metadata }).doing("write", to)?;
        let Some(mut content) = content else { return Ok(()) };
        loop {
            let count = content.read(&mut self.buffer).doing("read", path)?;
            if count == 0 {
                return Ok(());
            }
            self.writer.data(&self.buffer[..count]).map_err(|source| Error::Io {
                action: "write",
                path: to.to_owned(),
                source,
            })?;
        }
    }
}

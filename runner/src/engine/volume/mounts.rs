//! Anonymous volumes: directories of a container's own, outside its overlay.
//!
//! A new one begins with what the image has at its place, as with docker.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    lsetxattr, makedev, mknodat, symlinkat, utimensat,
};
use sandbox::{Mount, MountKind};
use store::layers::{Kind, MergedView, Metadata, Node};

use super::config::Config;
use super::containers::make_private_dir;
use super::error::{IoContext as _, Result};
use super::options::MountRequest;

/// Makes the anonymous volumes of a container in `dir` and returns how they
/// are mounted; those it has had from an earlier start are kept as they are.
/// `view` opens the image's tree, if anything needs it.
///
/// # Errors
///
/// When the image's files cannot be read, or the volume's not written.
pub fn make<'v>(
    dir: &Path,
    config: &Config,
    view: impl Fn() -> Result<&'v MergedView>,
) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    let targets = config.mounts.iter().filter_map(|mount| match mount {
        MountRequest::Volume { target } => Some(target),
        MountRequest::Bind(_) | MountRequest::Tmpfs(_) => None,
    });
    let parent = dir.join("volumes");
    for (number, target) in targets.enumerate() {
        make_private_dir(&parent)?;
        let path = parent.join(number.to_string());
        // A container is complete only when all of its volumes are.
        if !path.exists() {
            fill(&path, view()?, target)?;
        }
        mounts.push(Mount {
            target: target.clone(),
            kind: MountKind::Bind { source: path, readonly: false, recursive: false },
        });
    }
    Ok(mounts)
}

/// Makes the directory `path` with what the image has at `target`, which may
/// be nothing.
fn fill(path: &Path, view: &MergedView, target: &Path) -> Result<()> {
    let found = view.resolve(target, true).doing("look in the image for", target)?;
    let (source, node) = match found {
        Some((source, node)) if node.kind == Kind::Directory => (source, Some(node)),
        // Nothing, or no directory: the sandbox makes room for the mount.
        _ => (PathBuf::new(), None),
    };
    fs::create_dir(path).doing("create", path)?;
    let implied = Metadata::implied_directory();
    match node {
        None => set_metadata(path, &implied, false).doing("create", path),
        Some(node) => Copier { view, links: BTreeMap::new() }.directory(&source, path, &node),
    }
}

/// Copies a part of an image's tree out of its layers.
struct Copier<'v> {
    view: &'v MergedView,
    /// Files with several names, by identity: where the first copy is.
    links: BTreeMap<(u64, u64), PathBuf>,
}

impl Copier<'_> {
    /// Fills the directory `to`, which exists, from `from`.
    fn directory(&mut self, from: &Path, to: &Path, node: &Node) -> Result<()> {
        let names = self.view.list(from).doing("list in the image", from)?.unwrap_or_default();
        for name in names {
            let (from, to) = (from.join(&name), to.join(&name));
            let Some(child) = self.view.lstat(&from).doing("look in the image for", &from)? else {
                continue;
            };
            if child.kind == Kind::Directory {
                fs::create_dir(&to).doing("create", &to)?;
                self.directory(&from, &to, &child)?;
            } else {
                self.other(&from, &to, &child)?;
            }
        }
        // Last, or the children would change the time again.
        set_metadata(to, &node.metadata, false).doing("write", to)
    }

    fn other(&mut self, from: &Path, to: &Path, node: &Node) -> Result<()> {
        if node.links > 1 {
            if let Some(first) = self.links.get(&node.identity) {
                return fs::hard_link(first, to).doing("link", to);
            }
            self.links.insert(node.identity, to.to_owned());
        }
        match &node.kind {
            Kind::File { .. } => {
                let Some(mut source) = self.view.open_file(from).doing("read", from)? else {
                    return Ok(());
                };
                File::create_new(to)
                    .and_then(|mut file| io::copy(&mut source, &mut file))
                    .doing("write", to)?;
            }
            Kind::Symlink { target } => {
                symlinkat(OsStr::from_bytes(target), CWD, to).doing("create", to)?;
            }
            Kind::CharDevice { major, minor } => {
                make_node(to, FileType::CharacterDevice, makedev(*major, *minor))?;
            }
            Kind::BlockDevice { major, minor } => {
                make_node(to, FileType::BlockDevice, makedev(*major, *minor))?;
            }
            Kind::Fifo => make_node(to, FileType::Fifo, 0)?,
            // A tree has no such thing: it is a second name of a file.
            Kind::HardLink { .. } | Kind::Directory => return Ok(()),
        }
        let is_link = matches!(node.kind, Kind::Symlink { .. });
        set_metadata(to, &node.metadata, is_link).doing("write", to)
    }
}

fn make_node(path: &Path, kind: FileType, device: u64) -> Result<()> {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device).doing("create", path)
}

/// Sets owner, permissions, attributes and time, in this order: a change of
/// the owner takes permissions and attributes away.
fn set_metadata(path: &Path, metadata: &Metadata, is_link: bool) -> io::Result<()> {
    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
    let owner = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
    chownat(CWD, path, Some(owner.0), Some(owner.1), no_follow)?;
    if !is_link {
        chmodat(CWD, path, Mode::from_raw_mode(metadata.mode), AtFlags::empty())?;
    }
    for (name, value) in &metadata.xattrs {
        lsetxattr(path, OsStr::from_bytes(name), value, XattrFlags::empty())?;
    }
    let time =
        Timespec { tv_sec: metadata.mtime.seconds, tv_nsec: i64::from(metadata.mtime.nanos) };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, no_follow)?;
    Ok(())
}

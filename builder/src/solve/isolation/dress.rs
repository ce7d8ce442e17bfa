//! Mounts without mounting: what a process is to see is put into its root before it starts,
//! and taken out when it has ended.
//!
//! What was in its place is set aside meanwhile. What is read-only for others is a copy
//! here, so that a change is lost with it; what is writable and lasts (a cache) is a copy
//! that takes the place of the original at the end, as a whole.

use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, makedev, mknodat};
use rustix::io::Errno;
use sandbox::{Mount, MountKind, Network, Root, Spec};
use store::layers::{Kind, MergedView, copy_tree};

use super::beneath::{self, At};
use super::{PlainRoot, refused};
use crate::error::{Error, IoContext as _, Result};

/// The device nodes that programs expect: name, major, minor.
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// A root with everything in it that a process is to see.
#[derive(Debug)]
pub(in crate::solve) struct Dressed<'a> {
    root: &'a PlainRoot,
    fd: OwnedFd,
    places: Vec<Taken>,
    next: usize,
    /// What is missing that others have.
    pub(in crate::solve) warnings: Vec<String>,
}

/// The two ends of an output stream.
pub(in crate::solve) type Pipe = (OwnedFd, OwnedFd);

/// A place in the root, and what becomes of it at the end.
#[derive(Debug)]
struct Taken {
    at: At,
    /// What was there, by its name in the directory for such things.
    aside: Option<PathBuf>,
    /// What is replaced by what is there now.
    lasting: Option<PathBuf>,
}

impl<'a> Dressed<'a> {
    /// Puts everything in its place, and rewrites `spec` so that it mounts nothing. Returns
    /// the streams that standard output and error must be, so that their names in /dev work.
    pub(in crate::solve) fn new(root: &'a PlainRoot, spec: &mut Spec) -> Result<(Self, [Pipe; 2])> {
        match spec.network {
            Network::Host => {}
            Network::None | Network::Bridged { .. } | Network::Shared { .. } => {
                return Err(refused("RUN --network=none"));
            }
        }
        if spec.privileged {
            return Err(refused("RUN --security=insecure"));
        }
        let fd = beneath::open(root.directory())?;
        let mut dressed = Self { root, fd, places: Vec::new(), next: 0, warnings: Vec::new() };
        let streams = dressed.builtin()?;
        let mut mounts = std::mem::take(&mut spec.mounts);
        // Outer places before inner ones.
        mounts.sort_by_key(|mount| mount.target.components().count());
        for mount in &mounts {
            dressed.mount(mount)?;
        }
        spec.root = Root::Chroot { path: root.directory().to_owned() };
        spec.hostname = None;
        Ok((dressed, streams))
    }

    /// Makes /proc, /sys and /dev.
    fn builtin(&mut self) -> Result<[Pipe; 2]> {
        for name in ["/proc", "/sys"] {
            let empty = self.made_directory(0o555)?;
            self.put(Path::new(name), &empty, None)?;
        }
        let dev = self.made_directory(0o755)?;
        let mut missing = Vec::new();
        for (name, major, minor) in NODES {
            let path = dev.join(name);
            let mode = Mode::from_raw_mode(0o666);
            match mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor)) {
                // Root of a user namespace makes none. A file takes what is written.
                Err(Errno::PERM) => {
                    missing.push(name);
                    if name == "null" {
                        File::create(&path).doing("create", &path)?;
                    }
                }
                other => other.doing("create", &path)?,
            }
            if path.exists() {
                fs::set_permissions(&path, Permissions::from_mode(0o666)).doing("change", &path)?;
            }
        }
        if !missing.is_empty() {
            let names = missing.join(", ");
            self.warnings.push(format!("device nodes cannot be made here: /dev has no {names}"));
        }
        for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "null")] {
            let path = dev.join(link);
            std::os::unix::fs::symlink(target, &path).doing("create", &path)?;
        }
        let shm = dev.join("shm");
        fs::create_dir(&shm).doing("create", &shm)?;
        fs::set_permissions(&shm, Permissions::from_mode(0o1777)).doing("change", &shm)?;
        let streams = [fifo(&dev.join("stdout"))?, fifo(&dev.join("stderr"))?];
        self.put(Path::new("/dev"), &dev, None)?;
        Ok(streams)
    }

    fn mount(&mut self, mount: &Mount) -> Result<()> {
        let mut lasting = None;
        let made = match &mount.kind {
            MountKind::Bind { source, readonly, .. } => {
                if !readonly {
                    lasting = Some(source.clone());
                }
                self.copied(source)?
            }
            MountKind::Tmpfs { mode, .. } => self.made_directory(*mode)?,
            MountKind::Tree { lowers, writable, path, readonly, .. } => {
                let view = MergedView::open(lowers).doing("open", path)?;
                let found = view.resolve(path, true).doing("look at", path)?;
                let Some((found, node)) = found else {
                    return Err(Error::SourceMissing { path: path.clone(), ignored: false });
                };
                if let ([directory], None, false) = (&lowers[..], writable, readonly) {
                    lasting = Some(directory.join(&found));
                }
                let file = || view.open_file(&found).doing("open", &found);
                if node.kind == Kind::Directory {
                    let made = self.made_directory(0o700)?;
                    copy_tree(&view, &found, &made).map_err(|source| {
                        store::Error::LayerInvalid { source: Box::new(source) }
                    })?;
                    made
                } else {
                    let file = file()?.ok_or_else(|| refused("a bind mount of this kind"))?;
                    let metadata = &node.metadata;
                    let owner = (metadata.mode, metadata.uid, metadata.gid);
                    self.made_file(file, owner)?
                }
            }
            MountKind::File { content, mode, uid, gid } => {
                self.made_file(content.expose(), (*mode, *uid, *gid))?
            }
        };
        self.put(&mount.target, &made, lasting)
    }

    /// Puts something that was made in its place.
    fn put(&mut self, target: &Path, made: &Path, lasting: Option<PathBuf>) -> Result<()> {
        let at = beneath::at(&self.fd, target)?;
        let aside = self.new_name();
        let aside = match rustix::fs::renameat(&at.parent, &at.name, CWD, &aside) {
            Ok(()) => Some(aside),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno).doing("set aside", target),
        };
        self.places.push(Taken { at, aside, lasting });
        let at = &self.places.last().expect("it was just added").at;
        rustix::fs::renameat(CWD, made, &at.parent, &at.name).doing("put something at", target)
    }

    /// Takes everything out again, and puts back what was there.
    pub(in crate::solve) fn undress(mut self) -> Result<()> {
        self.take_all()
    }

    fn take_all(&mut self) -> Result<()> {
        while let Some(Taken { at, aside, lasting }) = self.places.pop() {
            let used = self.new_name();
            let shown = Path::new(&at.name).to_owned();
            match rustix::fs::renameat(&at.parent, &at.name, CWD, &used) {
                Ok(()) => {
                    if let Some(original) = lasting {
                        keep(&used, &original)?;
                    }
                }
                // The command has removed it.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).doing("take away", &shown),
            }
            if let Some(aside) = aside {
                match rustix::fs::renameat(CWD, &aside, &at.parent, &at.name) {
                    // The command has removed the directory around it.
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno).doing("put back", &shown),
                }
            }
            at.remove_made();
        }
        Ok(())
    }

    fn new_name(&mut self) -> PathBuf {
        self.next += 1;
        self.root.aside().join(self.next.to_string())
    }

    fn made_directory(&mut self, mode: u32) -> Result<PathBuf> {
        let path = self.new_name();
        fs::DirBuilder::new().mode(0o700).create(&path).doing("create", &path)?;
        fs::set_permissions(&path, Permissions::from_mode(mode)).doing("change", &path)?;
        Ok(path)
    }

    fn made_file(
        &mut self,
        mut content: impl std::io::Read,
        (mode, uid, gid): (u32, u32, u32),
    ) -> Result<PathBuf> {
        let path = self.new_name();
        let mut file = File::create_new(&path).doing("create", &path)?;
        file.set_permissions(Permissions::from_mode(0o600)).doing("change", &path)?;
        std::io::copy(&mut content, &mut file).doing("write", &path)?;
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).doing("change", &path)?;
        file.set_permissions(Permissions::from_mode(mode)).doing("change", &path)?;
        Ok(path)
    }

    /// Copies a file or directory of ours; a socket gets a second name.
    fn copied(&mut self, source: &Path) -> Result<PathBuf> {
        let metadata = fs::metadata(source).doing("look at", source)?;
        if metadata.is_dir() {
            let made = self.made_directory(0o700)?;
            let view = MergedView::open(&[source.to_owned()]).doing("open", source)?;
            copy_tree(&view, Path::new(""), &made)
                .map_err(|source| store::Error::LayerInvalid { source: Box::new(source) })?;
            return Ok(made);
        }
        if metadata.file_type().is_socket() {
            let path = self.new_name();
            fs::hard_link(source, &path).doing("link", source)?;
            return Ok(path);
        }
        let file = File::open(source).doing("open", source)?;
        let owner = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
        self.made_file(file.take(u64::MAX), owner)
    }
}

impl Drop for Dressed<'_> {
    /// After an error, for the caches: the root itself is thrown away.
    fn drop(&mut self) {
        if let Err(error) = self.take_all() {
            tracing::debug!(%error, "a root that is thrown away keeps what was put into it");
        }
    }
}

/// Puts a directory or file in the place of another, which is then removed with the rest.
fn keep(used: &Path, original: &Path) -> Result<()> {
    match rustix::fs::renameat_with(CWD, used, CWD, original, RenameFlags::EXCHANGE) {
        // A file system without that: for a moment there is nothing.
        Err(Errno::INVAL | Errno::NOSYS) => {
            let mut old = used.as_os_str().to_owned();
            old.push(".old");
            let old = PathBuf::from(old);
            fs::rename(original, &old).doing("replace", original)?;
            fs::rename(used, original).doing("replace", original)
        }
        other => other.doing("replace", original),
    }
}

/// Makes a named pipe and opens both ends.
fn fifo(path: &Path) -> Result<Pipe> {
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, path, FileType::Fifo, mode, 0).doing("create", path)?;
    rustix::fs::chmodat(CWD, path, mode, AtFlags::empty()).doing("change", path)?;
    // Open for both, opening it for one does not wait for the other.
    let _both = File::options().read(true).write(true).open(path).doing("open", path)?;
    let read = File::open(path).doing("open", path)?;
    let write = File::options().write(true).open(path).doing("open", path)?;
    Ok((read.into(), write.into()))
}

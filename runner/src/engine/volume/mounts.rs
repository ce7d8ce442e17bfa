//! The volumes of one container: made, filled, and described as mounts.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use sandbox::{Mount, MountKind};
use store::layers::{Kind, MergedView, copy_tree};

use super::fill::Filler;
use super::{Held, VERSION, VolumeConfig, Volumes};
use crate::engine::config::Config;
use crate::engine::containers::make_private_dir;
use crate::engine::error::{Error, IoContext as _, Result};
use crate::engine::options::{AnonymousVolume, MountRequest, NamedVolume};
use crate::engine::timestamp::Timestamp;

/// How often the kernel is asked again that was disturbed by renames.
const ATTEMPTS: u32 = 128;

/// When volumes with names are filled with the image's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// Now, where they are empty: the container is new.
    IfEmpty,
    /// Not any more: what is not there was removed.
    Never,
}

/// Makes what volumes a container needs, and returns how they are mounted.
/// Those with a name, and those the container has had from an earlier start,
/// are kept as they are. `dir` is the container's directory; `view` opens the
/// image's tree, if anything needs it.
///
/// # Errors
///
/// When the image's files cannot be read, or the volume's not written, and when
/// a part of a volume is asked for that is not there.
pub fn make<'v>(
    volumes: &Volumes,
    dir: &Path,
    config: &Config,
    filling: Filling,
    now: Timestamp,
    view: impl Fn() -> Result<&'v MergedView>,
) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    let mut number = 0;
    for request in &config.mounts {
        mounts.push(match request {
            MountRequest::Volume(volume) => {
                let path = anonymous_dir(dir, number);
                number += 1;
                make_anonymous(&path, volume, &view)?;
                bind(&volume.target, path, volume.readonly)
            }
            MountRequest::Named(volume) => {
                volumes.make_named(volume, filling, now, &view)?;
                volumes.mount(volume)?
            }
            MountRequest::Bind(_) | MountRequest::Tmpfs(_) => continue,
        });
    }
    Ok(mounts)
}

/// Keeps the volumes of a container that is being made from being removed; there
/// is nothing to do where it has none with a name.
///
/// # Errors
///
/// When the lock cannot be taken.
pub fn hold(volumes: &Volumes, config: &Config) -> Result<Option<Held>> {
    let has_named = config.mounts.iter().any(|mount| matches!(mount, MountRequest::Named(_)));
    has_named.then(|| volumes.hold()).transpose()
}

/// Returns the directory of a container's anonymous volume; they are numbered
/// in the order of its mounts.
pub fn anonymous_dir(dir: &Path, number: usize) -> PathBuf {
    dir.join("volumes").join(number.to_string())
}

fn make_anonymous<'v>(
    path: &Path,
    volume: &AnonymousVolume,
    view: impl Fn() -> Result<&'v MergedView>,
) -> Result<()> {
    // A container is complete only when all of its volumes are.
    if path.exists() {
        return Ok(());
    }
    path.parent().map_or(Ok(()), make_private_dir)?;
    fs::create_dir(path).doing("create", path)?;
    // Set afterwards, so that the caller's umask takes nothing away.
    fs::set_permissions(path, Permissions::from_mode(0o755)).doing("create", path)?;
    if volume.nocopy {
        return Ok(());
    }
    let view = view()?;
    match directory_of(view, &volume.target)? {
        Some(source) => copy(view, &source, path),
        None => Ok(()),
    }
}

impl Volumes {
    fn make_named<'v>(
        &self,
        volume: &NamedVolume,
        filling: Filling,
        now: Timestamp,
        view: impl Fn() -> Result<&'v MergedView>,
    ) -> Result<()> {
        let name = volume.name.clone();
        let labels = Default::default();
        // Whoever makes a container holds the lock longer than this.
        let held = self.hold()?;
        self.ensure(VolumeConfig { version: VERSION, name, created: now, labels }, &held)?;
        let dir = self.dir(&volume.name);
        let filler = Filler::begin(&dir)?;
        // A part of it must be there already.
        if filling == Filling::Never || volume.nocopy || volume.subpath.is_some() {
            return Ok(());
        }
        if !filler.is_empty()? {
            return Ok(());
        }
        let view = view()?;
        match directory_of(view, &volume.target)? {
            Some(source) => filler.fill(|to| copy(view, &source, to)),
            None => Ok(()),
        }
    }

    fn mount(&self, volume: &NamedVolume) -> Result<Mount> {
        let data = self.data(&volume.name);
        let Some(subpath) = &volume.subpath else {
            return Ok(bind(&volume.target, data, volume.readonly));
        };
        // Only to say it well: the sandbox looks again, beneath the volume.
        let missing = |source| Error::VolumeSubpath {
            name: volume.name.clone(),
            subpath: subpath.clone(),
            source,
        };
        is_there(&data, subpath).map_err(|error| missing(error.into()))?;
        Ok(Mount {
            target: volume.target.clone(),
            kind: MountKind::Tree {
                lowers: vec![data],
                writable: None,
                // Needed only where several directories are stacked.
                place: PathBuf::new(),
                path: Path::new("/").join(subpath),
                readonly: volume.readonly,
            },
        })
    }
}

fn is_there(data: &Path, subpath: &Path) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = openat(CWD, data, flags | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..ATTEMPTS {
        match openat2(&top, subpath, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened.map(drop),
        }
    }
    Err(Errno::AGAIN)
}

fn bind(target: &Path, source: PathBuf, readonly: bool) -> Mount {
    let kind = MountKind::Bind { source, readonly, recursive: false };
    Mount { target: target.to_owned(), kind }
}

/// Returns where in the image the directory is that a path leads to, links
/// followed inside the image; `None` if there is none.
fn directory_of(view: &MergedView, target: &Path) -> Result<Option<PathBuf>> {
    let found = view.resolve(target, true).doing("look in the image for", target)?;
    Ok(found.filter(|(_, node)| node.kind == Kind::Directory).map(|(path, _)| path))
}

fn copy(view: &MergedView, source: &Path, to: &Path) -> Result<()> {
    copy_tree(view, source, to)
        .map_err(|error| Error::Copy { from: Path::new("/").join(source), source: Box::new(error) })
}

//! The nodes of /dev in a bundle: the default ones and its own.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, makedev, mknodat, symlinkat,
};
use rustix::io::Errno;

use super::super::dev::{HostNodes, LINKS, NODES, create_file};
use super::super::target::{STRICT, open_beneath, open_in_root};
use super::super::{Helper, mount};
use crate::bundle::{Bundle, BundleMountKind, Device};
use crate::error::{Context as _, Error, Result};
use crate::spawn::Plan;

impl Helper {
    /// Makes the nodes and links that every container has and those of the
    /// bundle, unless it mounts a /dev of the host.
    pub(super) fn make_devices(&mut self, root: &OwnedFd, bundle: &Bundle) -> Result<()> {
        let is_hosts = bundle.mounts.iter().any(|mount| {
            mount.target == Path::new("/dev") && matches!(mount.kind, BundleMountKind::Bind { .. })
        });
        if is_hosts {
            return Ok(());
        }
        let host = HostNodes::open();
        let dev = self.builtin(root, "dev")?;
        for (name, major, minor) in NODES {
            let own =
                bundle.devices.iter().any(|device| device.path == Path::new("/dev").join(name));
            if !own {
                make(&dev, name, FileType::CharacterDevice, (major, minor), 0o666, &host)
                    .cannot(|| format!("make /dev/{name}"))?;
            }
        }
        for (name, destination) in LINKS {
            match symlinkat(destination, &dev, name) {
                // As the image has it.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error).cannot(|| format!("make /dev/{name}")),
            }
        }
        // The terminals' own is a link into their file system, see above.
        let ptmx = Path::new("/dev/ptmx");
        let mut devices = bundle.devices.iter().filter(|device| device.path != ptmx);
        devices.try_for_each(|device| self.make_device(root, device, &host))
    }

    fn make_device(&mut self, root: &OwnedFd, device: &Device, host: &HostNodes) -> Result<()> {
        let what = || format!("make the device {}", device.path.display());
        let kind = match device.kind {
            'c' => FileType::CharacterDevice,
            'b' => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let (Some(parent), Some(name)) =
            (device.path.parent(), device.path.file_name().and_then(|name| name.to_str()))
        else {
            return Err(Error::invalid(format!(
                "{} is no path of a device",
                device.path.display()
            )));
        };
        let parent = match open_in_root(root, parent, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => self.make(root, parent, true)?,
            other => other.cannot(what)?,
        };
        // In a user namespace the host's node is shown, with the host's owner.
        let bound = device.path.strip_prefix("/dev").ok().and_then(Path::to_str).unwrap_or(name);
        match mknodat(
            &parent,
            name,
            kind,
            Mode::from_raw_mode(device.mode),
            makedev(device.major, device.minor),
        ) {
            Err(Errno::PERM) => return host.bind_at(bound, &parent, name).cannot(what),
            Err(Errno::EXIST) => {
                return if is_same(&parent, name, kind, (device.major, device.minor)).cannot(what)? {
                    Ok(())
                } else {
                    Err(Errno::EXIST).cannot(what)
                };
            }
            other => other.cannot(what)?,
        }
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).cannot(what)?;
        // It was made a moment ago in a directory that nobody else has yet.
        chmodat(&parent, name, Mode::from_raw_mode(device.mode), AtFlags::empty()).cannot(what)
    }

    /// Makes the terminal of the first process and shows it as /dev/console;
    /// everything goes by descriptor (CVE-2025-52565).
    pub(super) fn open_bundle_console(&mut self, root: &OwnedFd, plan: &Plan) -> Result<()> {
        let pts = Self::find_pts(root)?;
        let terminal = self.open_terminal(&pts, plan)?;
        let shown = mount::clone_of(&terminal).cannot(|| "bind the terminal")?;
        let dev = self.builtin(root, "dev")?;
        let what = || "make /dev/console";
        let place = match create_file(&dev, "console") {
            Err(Errno::EXIST) => open_beneath(&dev, Path::new("console"), OFlags::PATH, STRICT),
            other => other,
        };
        mount::attach(&shown, &place.cannot(what)?).cannot(|| "mount /dev/console")
    }
}

/// Makes one node, or binds that of the host; one that is there must be it.
fn make(
    dev: &OwnedFd,
    name: &str,
    kind: FileType,
    number: (u32, u32),
    mode: u32,
    host: &HostNodes,
) -> rustix::io::Result<()> {
    match mknodat(dev, name, kind, Mode::from_raw_mode(mode), makedev(number.0, number.1)) {
        Err(Errno::PERM) => host.bind_at(name, dev, name),
        Err(Errno::EXIST) if is_same(dev, name, kind, number)? => Ok(()),
        other => other,
    }
}

fn is_same(
    directory: &OwnedFd,
    name: &str,
    kind: FileType,
    number: (u32, u32),
) -> rustix::io::Result<bool> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let found = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(FileType::from_raw_mode(stat.st_mode) == kind && found == number)
}

//! Hiding and protecting parts of /proc and /sys: moby's lists
//! (`daemon/pkg/oci/defaults.go`).

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::mount;
use super::target::{STRICT, is_directory, open_beneath};
use crate::error::{Context as _, Result};
use crate::sys::MOUNT_ATTR_RDONLY;

const PROC_MASKED: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
const PROC_READONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
const SYS_MASKED: [&str; 2] = ["firmware", "devices/virtual/powercap"];

/// Applies the masks. `null` is a genuine /dev/null.
pub(super) fn apply(proc: &OwnedFd, sys: Option<&OwnedFd>, null: &OwnedFd) -> Result<()> {
    for path in PROC_MASKED {
        mask(proc, path, null).cannot(|| format!("hide /proc/{path}"))?;
    }
    for path in PROC_READONLY {
        protect(proc, path).cannot(|| format!("protect /proc/{path}"))?;
    }
    let Some(sys) = sys else { return Ok(()) };
    for path in SYS_MASKED {
        mask(sys, path, null).cannot(|| format!("hide /sys/{path}"))?;
    }
    for cpu in processors(sys) {
        let path = format!("devices/system/cpu/{cpu}/thermal_throttle");
        mask(sys, &path, null).cannot(|| format!("hide /sys/{path}"))?;
    }
    Ok(())
}

/// Covers a file with /dev/null or a directory with an empty tmpfs.
fn mask(base: &OwnedFd, path: &str, null: &OwnedFd) -> rustix::io::Result<()> {
    let Some(target) = open(base, path)? else { return Ok(()) };
    let cover = if is_directory(&target)? {
        mount::create(
            "tmpfs",
            &[("size", "0"), ("nr_inodes", "1")],
            mount::PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY,
        )?
    } else {
        mount::clone_of(null)?
    };
    mount::attach(&cover, &target)
}

/// Mounts a path on itself, read-only.
fn protect(base: &OwnedFd, path: &str) -> std::io::Result<()> {
    let Some(target) = open(base, path)? else { return Ok(()) };
    let cover = mount::clone_of(&target)?;
    mount::restrict(&cover, false, MOUNT_ATTR_RDONLY)?;
    Ok(mount::attach(&cover, &target)?)
}

/// Opens a path; none when this kernel does not have it.
fn open(base: &OwnedFd, path: &str) -> rustix::io::Result<Option<OwnedFd>> {
    match open_beneath(base, Path::new(path), OFlags::PATH, STRICT) {
        Err(Errno::NOENT) => Ok(None),
        other => other.map(Some),
    }
}

/// Returns the directories `cpu0`, `cpu1`, …
fn processors(sys: &OwnedFd) -> Vec<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = openat(sys, "devices/system/cpu", flags, Mode::empty()) else {
        return Vec::new();
    };
    let Ok(entries) = Dir::read_from(&directory) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned))
        .filter(|name| name.strip_prefix("cpu").is_some_and(|number| number.parse::<u32>().is_ok()))
        .collect()
}

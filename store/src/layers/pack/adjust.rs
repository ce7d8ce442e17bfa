//! Makes a packed directory equal to what unpacking its tar would give.

use std::io;

use rustix::{
    fs::{self as sys, AtFlags},
    io::Errno,
};

use crate::layers::{
    dir::{Dir, OPAQUE_XATTR, set_metadata, set_open_times},
    entry::{Metadata, Timestamp, Xattrs, is_image_xattr},
    path::split,
};

/// Removes what the tar leaves out.
pub(super) fn remove(root: &Dir, path: &[u8], is_directory: bool) -> io::Result<()> {
    let (parent, name) = split(path);
    let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    Ok(sys::unlinkat(root.beneath(parent)?, name, flags)?)
}

/// Gives the root its metadata, and takes away every other attribute.
pub(super) fn root(root: &Dir, metadata: &Metadata) -> io::Result<()> {
    let dir = root.child_readable(b"")?;
    for name in root.xattrs(b".")?.keys() {
        if !metadata.xattrs.contains_key(name) {
            sys::fremovexattr(&dir, name.as_slice()).or_else(may_stay)?;
        }
    }
    set_metadata(dir, metadata)
}

/// Gives a directory its time back, after everything in it is done, and takes away attributes that
/// are not in the tar. The mark of an opaque directory stays if the tar says so too.
pub(super) fn directory(
    root: &Dir,
    path: &[u8],
    metadata: &Metadata,
    xattrs: &Xattrs,
    is_opaque: bool,
) -> io::Result<()> {
    let dir = root.readable_beneath(path)?;
    for name in xattrs.keys().filter(|name| !is_image_xattr(name)) {
        if !(is_opaque && name == OPAQUE_XATTR.as_bytes()) {
            sys::fremovexattr(&dir, name.as_slice()).or_else(may_stay)?;
        }
    }
    set_open_times(dir, metadata.mtime)
}

/// Gives a file, link or device the time that is in the tar, and takes away attributes that are not.
pub(super) fn other(
    dir: &Dir,
    name: &[u8],
    before: Timestamp,
    mtime: Timestamp,
    xattrs: &Xattrs,
) -> io::Result<()> {
    for key in xattrs.keys().filter(|key| !is_image_xattr(key)) {
        sys::lremovexattr(dir.path_of(name), key.as_slice()).or_else(may_stay)?;
    }
    if before == mtime { Ok(()) } else { dir.set_times(name, mtime) }
}

/// Some attributes cannot be removed: labels of security modules always are there.
fn may_stay(error: Errno) -> io::Result<()> {
    match error {
        Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP => Ok(()),
        other => Err(other.into()),
    }
}

//! One entry of a layer: a path, what is there, and its metadata.

use std::collections::BTreeMap;

/// Extended attributes by name, in byte order.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A moment in seconds and nanoseconds since 1970, which may lie before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds on top, always positive and below a billion.
    pub nanos: u32,
}

impl Timestamp {
    /// 1970-01-01, the time of everything that no entry gives a time.
    pub const EPOCH: Self = Self { seconds: 0, nanos: 0 };

    /// Returns the moment `seconds` after 1970.
    #[must_use]
    pub fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }

    /// Returns what a layer's tar keeps of a time: whole seconds, at most `clamp`.
    ///
    /// `clamp` is `SOURCE_DATE_EPOCH`, where the user asks for reproducible times.
    #[must_use]
    pub fn in_tar(self, clamp: Option<i64>) -> Self {
        Self::from_seconds(clamp.map_or(self.seconds, |limit| self.seconds.min(limit)))
    }
}

/// The metadata every kind of entry has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky: the low twelve bits.
    pub mode: u32,
    /// The owner, as the container sees it.
    pub uid: u32,
    /// The group, as the container sees it.
    pub gid: u32,
    /// When the content last changed.
    pub mtime: Timestamp,
    /// The attributes that belong to an image: see [`is_image_xattr`].
    pub xattrs: Xattrs,
}

impl Metadata {
    /// The metadata of a directory that no entry describes. It belongs to whoever the program is:
    /// user 0, also of an ordinary user's namespace; others may not give it to anybody else.
    #[must_use]
    pub fn implied_directory() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        Self { mode: 0o755, uid, gid, ..Self::default() }
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file of `size` bytes.
    File {
        /// Its length in bytes, holes included.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, never empty.
        target: Vec<u8>,
    },
    /// Another name of a file of the same layer, or of a layer below.
    HardLink {
        /// The path of the other name, relative to the root.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Its driver.
        major: u32,
        /// Its number with that driver.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its driver.
        major: u32,
        /// Its number with that driver.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One entry of a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path as the archive spells it; nothing about it has been checked.
    pub path: Vec<u8>,
    /// What is there.
    pub kind: Kind,
    /// Its metadata.
    pub metadata: Metadata,
}

/// Tells whether an extended attribute is part of an image.
///
/// Kept are `user.*` and `security.capability`. Not kept are overlayfs' own (`user.overlay.*`, which
/// would let an image forge whiteouts and redirects), the labels of the building machine's security
/// modules, and `trusted.*`, which an ordinary user could not set.
#[must_use]
pub fn is_image_xattr(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && name.len() > 5 && !name.starts_with(b"user.overlay."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_attributes_of_the_image_are_kept() {
        for (name, kept) in [
            ("user.note", true),
            ("security.capability", true),
            ("user.overlay.opaque", false),
            ("user.overlay.whiteout", false),
            ("trusted.overlay.opaque", false),
            ("trusted.other", false),
            ("security.selinux", false),
            ("system.posix_acl_access", false),
            ("user.", false),
        ] {
            assert_eq!(is_image_xattr(name.as_bytes()), kept, "{name}");
        }
    }

    #[test]
    fn times_in_a_tar_are_whole_seconds_and_clamped() {
        let time = Timestamp { seconds: 100, nanos: 5 };
        assert_eq!(time.in_tar(None), Timestamp::from_seconds(100));
        assert_eq!(time.in_tar(Some(50)), Timestamp::from_seconds(50));
        assert_eq!(time.in_tar(Some(500)), Timestamp::from_seconds(100));
    }
}

//! Whether an unpacked layer or fix-up can be trusted after the machine went down.
//!
//! Layers are derived data and are not synced while they are made: that would cost more than
//! unpacking them. A rename that reached the disk says nothing about the files inside, so each
//! directory bears a stamp: made in *this* run of the kernel, whose memory still has what the disk
//! may lack, or synced as a whole. Anything else is made again from its blob.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::{
    Store,
    durable::if_present,
    error::{IoContext as _, Result},
};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// What a stamp says of a directory that is on the disk as a whole.
pub(crate) const SYNCED: &str = "synced";

/// The stamp of what is made now.
///
/// # Errors
///
/// Fails if the kernel does not tell which run of it this is.
pub(crate) fn of_this_boot() -> Result<&'static str> {
    static STAMP: OnceLock<String> = OnceLock::new();
    if let Some(stamp) = STAMP.get() {
        return Ok(stamp);
    }
    let id = fs::read_to_string(BOOT_ID).doing("read", BOOT_ID)?;
    Ok(STAMP.get_or_init(|| format!("boot {}", id.trim())))
}

/// Tells whether a stamp vouches for its directory.
pub(crate) fn is_valid(stamp: &str) -> Result<bool> {
    Ok(stamp == SYNCED || stamp == of_this_boot()?)
}

/// Tells whether the directory that has its stamp in this file can be trusted.
pub(crate) fn is_file_valid(path: &Path) -> Result<bool> {
    match if_present(fs::read_to_string(path)).doing("read", path)? {
        Some(text) => is_valid(text.trim_end()),
        None => Ok(false),
    }
}

impl Store {
    /// Waits until every unpacked layer is on the disk, so that it is still trusted after the machine
    /// went down; returns how many there were to wait for.
    ///
    /// Nothing needs this: what is not settled is unpacked again when it is needed. It flushes the
    /// whole file system, so it belongs where nobody waits.
    ///
    /// # Errors
    ///
    /// Fails if the store cannot be read or written.
    pub fn settle(&self) -> Result<usize> {
        let mut made_now = Vec::new();
        for (parent, file) in [("layers", "stamp"), ("chains", "lowers")] {
            let parent = self.root().path().join(parent).join("sha256");
            for entry in fs::read_dir(&parent).doing("list", &parent)? {
                let path = entry.doing("list", &parent)?.path().join(file);
                let text = if_present(fs::read_to_string(&path)).doing("read", &path)?;
                let settled = text.map_or(Ok(None), |text| settled(&text))?;
                made_now.extend(settled.map(|text| (path, text)));
            }
        }
        if made_now.is_empty() {
            return Ok(0);
        }
        let root = self.root().path();
        let file = File::open(root).doing("open", root)?;
        rustix::fs::syncfs(file).doing("sync", root)?;
        let count = made_now.len();
        for (path, text) in made_now {
            replace(&path, &text)?;
        }
        Ok(count)
    }
}

/// The record with its stamp changed to "synced", where that is news.
fn settled(record: &str) -> Result<Option<String>> {
    let stamp = of_this_boot()?;
    let is_ours = record.lines().any(|line| line == stamp);
    Ok(is_ours.then(|| record.replacen(stamp, SYNCED, 1)))
}

/// Replaces a record. Whether that reaches the disk does not matter: the old one is true as well.
fn replace(path: &Path, text: &str) -> Result<()> {
    let mut temporary = PathBuf::from(path);
    temporary.set_extension(format!("{}.new", std::process::id()));
    fs::write(&temporary, text).doing("write", &temporary)?;
    fs::rename(&temporary, path).doing("rename into", path)
}

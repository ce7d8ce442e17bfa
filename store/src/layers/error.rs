//! What can be wrong with a layer.

use std::{io, path::PathBuf};

/// Everything that can be wrong with a layer's tar, or with turning it into a directory.
///
/// Paths are those inside the layer, as its tar spells them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// A block that should be a header is none, or contradicts itself.
    #[error("tar header at byte {offset} is damaged: {reason}")]
    Header {
        /// Where the header starts in the uncompressed tar.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The stream ended too early.
    #[error("tar ends at byte {offset}, in the middle of {what}")]
    Truncated {
        /// Where the stream ended.
        offset: u64,
        /// What was being read.
        what: &'static str,
    },
    /// An entry of a kind that has no meaning in a layer.
    #[error("{}: tar entries of type {kind:?} cannot be part of a layer", path.display())]
    Unsupported {
        /// The entry.
        path: PathBuf,
        /// The tar type flag.
        kind: char,
    },
    /// A limit that protects the machine from hostile archives was passed.
    #[error("{what} exceeds the limit of {limit}")]
    Limit {
        /// What grew too large.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A path that a layer must not have.
    #[error("{}: {reason}", path.display())]
    Path {
        /// The path as the tar spells it.
        path: PathBuf,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A hard link that cannot be made.
    #[error("cannot link {} to {}: {reason}", path.display(), target.display())]
    Link {
        /// The new name.
        path: PathBuf,
        /// What it should be another name of.
        target: PathBuf,
        /// Why it cannot be made.
        reason: &'static str,
    },
    /// The file system refused the owner of an entry.
    #[error("cannot give {} to {uid}:{gid}; as an ordinary user this needs subordinate ids (see /etc/subuid and /etc/subgid)", path.display())]
    Owner {
        /// The entry.
        path: PathBuf,
        /// Its user id in the image.
        uid: u32,
        /// Its group id in the image.
        gid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file system refused an entry.
    #[error("cannot {action} {}", path.display())]
    Entry {
        /// A verb phrase that completes "cannot …".
        action: &'static str,
        /// The entry.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The stream could not be read or decompressed.
    #[error("cannot read the layer's tar")]
    Read(#[source] io::Error),
    /// The tar could not be written.
    #[error("cannot write the layer's tar")]
    Write(#[source] io::Error),
    /// A record that describes a layer is not what we wrote.
    #[error("the {what} is damaged: {reason}")]
    Record {
        /// Which record.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// The result of working on a layer.
pub(crate) type LayerResult<T> = Result<T, LayerError>;

/// Attaches "did what, to which path of the layer" to an error of the system.
pub(crate) trait EntryContext<T> {
    /// Turns the error into a [`LayerError::Entry`].
    fn entry(self, action: &'static str, path: &[u8]) -> LayerResult<T>;
}

impl<T, E: Into<io::Error>> EntryContext<T> for Result<T, E> {
    fn entry(self, action: &'static str, path: &[u8]) -> LayerResult<T> {
        self.map_err(|source| LayerError::Entry {
            action,
            path: crate::layers::path::display(path),
            source: source.into(),
        })
    }
}

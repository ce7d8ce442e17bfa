//! Why a command of the runtime failed.

use std::io;
use std::path::{Path, PathBuf};

/// A failure, in words that engines look for where they do (those of runc).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration makes no sense, or asks for what is not supported.
    #[error("{what}")]
    Invalid {
        /// What is wrong with what.
        what: String,
    },

    /// There is no container of this name.
    #[error("container {id:?} does not exist")]
    Unknown {
        /// The name.
        id: String,
    },

    /// There is one already.
    #[error("container with given ID already exists: {id}")]
    Exists {
        /// The name.
        id: String,
    },

    /// It has not the status that the command needs.
    #[error("{what}")]
    Status {
        /// What cannot be done, and the status.
        what: String,
    },

    /// The file system refused an operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// A verb phrase that completes "cannot …".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },

    /// The sandbox could not be started or controlled.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
}

/// The result of this storey's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    pub(super) fn status(what: impl Into<String>) -> Self {
        Self::Status { what: what.into() }
    }
}

/// Attaches "did what, to which path" to a failure.
pub(super) trait IoContext<T> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source: source.into() })
    }
}

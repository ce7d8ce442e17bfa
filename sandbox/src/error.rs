//! Why a sandbox could not be started or controlled.

use std::io;
use std::path::PathBuf;

/// A failure of this crate.
///
/// [`Error::exit_code`] tells a program what to exit with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command does not exist in the sandbox.
    #[error("{command}: not found in the container")]
    CommandNotFound {
        /// The command as it was asked for.
        command: String,
    },

    /// The command exists but the kernel refused to execute it.
    #[error("cannot execute {command} in the container")]
    CommandNotExecutable {
        /// The command as it was asked for.
        command: String,
        /// The kernel's reason.
        source: io::Error,
    },

    /// A value of the [`crate::Spec`] makes no sense or is refused.
    #[error("{what}")]
    Invalid {
        /// The value and what is wrong with it.
        what: String,
    },

    /// A limit was asked for that this host cannot enforce.
    #[error("cannot limit {limit}: the host has no usable {controller} cgroup controller")]
    LimitUnsupported {
        /// The limit, for instance `memory`.
        limit: &'static str,
        /// The missing controller.
        controller: &'static str,
    },

    /// One step of setting up, entering or controlling a sandbox failed.
    #[error("cannot {what}")]
    Setup {
        /// A verb phrase that completes "cannot …".
        what: String,
        /// The kernel's reason.
        source: io::Error,
    },

    /// The helper program was not found beside the running program.
    #[error("the helper rrun-init was not found (looked at {})", list(.looked_at))]
    HelperMissing {
        /// The places that were tried.
        looked_at: Vec<PathBuf>,
    },

    /// The helper ended without saying why, for instance because it was killed.
    #[error("the helper ended before the command was started ({exit})")]
    HelperDied {
        /// How it ended.
        exit: crate::Exit,
    },

    /// The process that was to be joined is gone.
    #[error("process {pid} of the container is not running any more")]
    NotRunning {
        /// Its process id.
        pid: u32,
    },

    /// An ordinary user's namespace cannot be set up on this host.
    #[error("cannot enter a user namespace: {reason}")]
    Rootless {
        /// What was found.
        reason: String,
        /// What the user or an administrator can do.
        hint: String,
    },
}

impl Error {
    /// Returns the exit status that docker's users expect for this failure:
    /// 127 for a command that is not there, 126 for one that cannot be
    /// executed, 125 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::CommandNotFound { .. } => 127,
            Self::CommandNotExecutable { .. } => 126,
            Self::Invalid { .. }
            | Self::LimitUnsupported { .. }
            | Self::Setup { .. }
            | Self::HelperMissing { .. }
            | Self::HelperDied { .. }
            | Self::NotRunning { .. }
            | Self::Rootless { .. } => 125,
        }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Attaches "did what" to a failed system call.
pub(crate) trait Context<T> {
    /// Completes "cannot …"; called only on failure.
    fn cannot<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn cannot<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| Error::Setup { what: what().into(), source: error.into() })
    }
}

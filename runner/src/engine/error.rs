//! What can go wrong between an image and a running container.

use std::io;
use std::path::{Path, PathBuf};

use super::id::ContainerId;
use super::name::Name;

/// The result of an engine operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the engine, as a situation a caller may treat differently.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing in the state directory has this name or id.
    #[error("no such container: {text}")]
    ContainerUnknown {
        /// What the user typed.
        text: String,
    },
    /// An id prefix that several containers share.
    #[error("{text} is the beginning of {count} container ids")]
    ContainerAmbiguous {
        /// What the user typed.
        text: String,
        /// How many containers it matches.
        count: usize,
    },
    /// Another container has the name.
    #[error("the name \"{name}\" is already in use by container {}", holder.short())]
    NameInUse {
        /// The name asked for.
        name: Name,
        /// The container that has it.
        holder: ContainerId,
    },
    /// The operation needs a running container.
    #[error("container {container} is not running")]
    NotRunning {
        /// The container as the user named it.
        container: String,
    },
    /// The operation needs a container that goes on.
    #[error("container {container} is paused")]
    Paused {
        /// The container as the user named it.
        container: String,
    },
    /// The operation needs a paused container.
    #[error("container {container} is not paused")]
    NotPaused {
        /// The container as the user named it.
        container: String,
    },
    /// The operation needs a container that has ended.
    #[error("container {container} is running")]
    StillRunning {
        /// The container as the user named it.
        container: String,
    },
    /// The container did not go away although it was killed.
    #[error("container {container} did not end within {seconds} s of SIGKILL")]
    Unkillable {
        /// The container as the user named it.
        container: String,
        /// How long was waited.
        seconds: u64,
    },
    /// No local image has this name and it may not be fetched.
    #[error("no such image: {reference}")]
    ImageUnknown {
        /// What the user typed.
        reference: String,
    },
    /// An image reference that does not parse.
    #[error("invalid image reference \"{reference}\"")]
    ImageReference {
        /// What the user typed.
        reference: String,
        /// What the grammar objects to.
        source: oci::Error,
    },
    /// Fetching the image failed.
    #[error("cannot pull {reference}")]
    Pull {
        /// The image in its full form.
        reference: String,
        /// What the registry or the way to it refused.
        source: store::remote::Error,
    },
    /// Neither the image nor the user names a program.
    #[error("no command given, and image {reference} has none of its own")]
    NoCommand {
        /// The image as the user named it.
        reference: String,
    },
    /// A value that the options or the image carry cannot be used.
    #[error("{what}")]
    Invalid {
        /// The complete sentence: what, which value, why.
        what: String,
    },
    /// A state file says something this version cannot understand.
    #[error("{} is not a container state this version understands", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The parser's objection.
        source: serde_json::Error,
    },
    /// A container was written by a newer version.
    #[error("{} has format {found}; this version reads {supported}", path.display())]
    StateVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// The container's process could not be started or joined.
    #[error(transparent)]
    Sandbox(sandbox::Error),
    /// The image store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The operating system refused an operation on a path.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// A verb phrase that completes "cannot …".
        action: &'static str,
        /// The path concerned.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The operating system refused an operation that has no path.
    #[error("cannot {action}")]
    System {
        /// A verb phrase that completes "cannot …".
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

/// Attaches "did what, to which path" to an [`io::Error`].
pub(crate) trait IoContext<T> {
    /// Names the operation and its path.
    fn doing(self, action: &'static str, path: &Path) -> Result<T>;
    /// Names an operation that concerns no path.
    fn trying(self, action: &'static str) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source: source.into() })
    }

    fn trying(self, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::System { action, source: source.into() })
    }
}

//! What can go wrong in a build, as values.

use std::io;
use std::path::{Path, PathBuf};

/// A failed build, or a failed part of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A source of COPY or ADD that is not in its context, stage or image.
    #[error("failed to compute cache key: \"/{}\": not found", path.display())]
    SourceMissing {
        /// The path as it was looked for, relative to the source's root.
        path: PathBuf,
        /// Whether the file exists but `.dockerignore` excludes it.
        ignored: bool,
    },

    /// A file whose name would be read as a deletion once it is in a layer.
    #[error("{} has a reserved name: a layer would read it as the deletion of another file", path.display())]
    ReservedName {
        /// The offending path.
        path: PathBuf,
    },

    /// A file would have to replace a directory.
    #[error("cannot replace to directory {} with file", path.display())]
    FileOverDirectory {
        /// The destination.
        path: PathBuf,
    },

    /// A directory would have to replace something else.
    #[error("cannot copy to non-directory: {}", path.display())]
    DirectoryOverFile {
        /// The destination.
        path: PathBuf,
    },

    /// Too many symbolic links on the way to a path.
    #[error("too many levels of symbolic links at {}", path.display())]
    LinkLoop {
        /// The path that was followed.
        path: PathBuf,
    },

    /// A file became shorter while it was being copied.
    #[error("{} changed while it was being copied", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },

    /// A context has more entries than one build may have.
    #[error("{} has more than {limit} entries", path.display())]
    TooManyEntries {
        /// The directory that was walked.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },

    /// An archive for ADD that cannot be unpacked.
    #[error("cannot unpack {}: {reason}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A file that cannot be had from a web server.
    #[error("cannot fetch {url}")]
    Download {
        /// Its address.
        url: String,
        /// Why not.
        source: Box<store::remote::Error>,
    },

    /// A git repository that cannot be had.
    #[error("cannot fetch {remote}: {reason}")]
    Git {
        /// Its address.
        remote: String,
        /// Why not, in git's words where there are any.
        reason: String,
    },

    /// What was fetched is not what `--checksum` says.
    #[error("digest mismatch for {what}: {actual} (expected: {expected})")]
    Checksum {
        /// Its address.
        what: String,
        /// What it is.
        actual: String,
        /// What it has to be.
        expected: String,
    },

    /// A build context that cannot be used.
    #[error("cannot use build context {context}: {reason}")]
    Context {
        /// The context as it was given.
        context: String,
        /// Why not.
        reason: String,
    },

    /// A value that an instruction cannot take, found after expansion.
    #[error("{0}")]
    Instruction(String),

    /// Something of the Dockerfile language that this version cannot build.
    #[error("{what} is not supported yet")]
    Unsupported {
        /// The construct.
        what: String,
    },

    /// The process of a RUN instruction failed.
    #[error("process {command} did not complete successfully: {exit}")]
    Process {
        /// The command as BuildKit prints it, in quotes.
        command: String,
        /// "exit code: 2" or "killed by signal 9".
        exit: String,
        /// The exit code, when there was one.
        code: Option<i32>,
        /// The last lines of its output.
        tail: Vec<String>,
        /// Where the whole output is.
        log: PathBuf,
    },

    /// A process for another processor cannot be executed here.
    #[error("cannot run programs for {platform} on {host}: {reason}")]
    NoEmulator {
        /// What the program is for.
        platform: String,
        /// What this machine is.
        host: String,
        /// What is missing.
        reason: String,
        /// The processor, as packages of emulators name it.
        architecture: String,
    },

    /// The same build came to something else the second time.
    #[error("the build is not reproducible: {found}")]
    NotReproducible {
        /// The first difference.
        found: String,
    },

    /// The build was told to stop.
    #[error("the build was cancelled")]
    Cancelled,

    /// An image that FROM or `--from` names cannot be had.
    #[error("{reference}: {reason}")]
    BaseImage {
        /// The image.
        reference: String,
        /// Why not.
        reason: String,
        /// The cause, where it has one.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },

    /// An imported cache does not have a layer whose files are needed.
    #[error("an imported cache lacks a layer: {what}")]
    CacheLacks {
        /// The layer, or why it could not be had.
        what: String,
        /// Whether it was promised; else only its name was.
        is_broken: bool,
    },

    /// A cache could not be exported.
    #[error("cannot export the cache to {to}")]
    CacheExport {
        /// Where to.
        to: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// Layers that only another place has cannot be had.
    #[error("cannot get layers of {place}")]
    Layers {
        /// The image or directory.
        place: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A step failed; where it stands in the Dockerfile.
    #[error("{name}: {source}")]
    Step {
        /// The step as it is shown, `[build 2/3] RUN make`.
        name: String,
        /// First and last line of the instruction, counted from one.
        lines: Option<(usize, usize)>,
        /// Why it failed.
        source: Box<Error>,
    },

    /// The Dockerfile cannot be planned.
    #[error(transparent)]
    Plan(#[from] crate::plan::Problems),

    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),

    /// The sandbox could not be entered.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),

    /// The file system refused an operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// A verb phrase that completes "cannot …".
        action: &'static str,
        /// The path it was about.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Returns the innermost build error, below the steps that wrap it.
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::Step { source, .. } => source.root(),
            other => other,
        }
    }

    /// Returns whether the build ended because somebody asked for it.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.root(), Self::Cancelled)
    }
}

/// Attaches "did what, to which path" to an error of the system.
pub(crate) trait IoContext<T> {
    /// Turns the error into [`Error::Io`].
    fn doing(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source: source.into() })
    }
}

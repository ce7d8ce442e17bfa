//! What happens on the way, for those who show it.

use std::time::Duration;

use oci::{Digest, Reference, Repository};

/// Receives events, from several threads at once.
pub type Sink<'a> = dyn Fn(Event) + Send + Sync + 'a;

/// A piece of work on one blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// Receiving it from a registry.
    Download,
    /// Making a directory of a layer.
    Unpack,
    /// Compressing a layer before it leaves.
    Compress,
    /// Sending it to a registry.
    Upload,
}

/// A step of a pull or push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A name was looked up.
    Resolved {
        /// What was asked for.
        reference: Reference,
        /// The manifest or index it stands for.
        digest: Digest,
    },
    /// Work on a blob begins.
    Started {
        /// The blob.
        digest: Digest,
        /// What is done with it.
        task: Task,
        /// Its length in bytes.
        size: u64,
    },
    /// Work on a blob has come this far. A download that starts again goes back to 0.
    Progress {
        /// The blob.
        digest: Digest,
        /// What is done with it.
        task: Task,
        /// How many bytes are done.
        done: u64,
    },
    /// Work on a blob is over.
    Finished {
        /// The blob.
        digest: Digest,
        /// What was done with it.
        task: Task,
    },
    /// A blob need not travel: it is at its destination already.
    Exists {
        /// The blob.
        digest: Digest,
        /// What was not necessary.
        task: Task,
    },
    /// A blob need not travel: the registry has it in another repository.
    Mounted {
        /// The blob.
        digest: Digest,
        /// Where the registry took it from.
        from: Repository,
    },
    /// Something failed, and is tried again.
    Retrying {
        /// What failed: "blob sha256:…", "manifest latest" …
        what: String,
        /// Why.
        reason: String,
        /// How long it waits before.
        delay: Duration,
    },
}

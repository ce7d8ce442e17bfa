//! Why something could not be pulled or pushed.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use oci::Digest;

/// The result of everything in this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something could not be pulled or pushed.
///
/// Messages complete "cannot pull NAME: …".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection: the registry is down, its name is unknown, or its certificate is.
    #[error("{host} cannot be reached: {reason}")]
    Unreachable {
        /// The host and port.
        host: String,
        /// The innermost reason, such as "connection refused".
        reason: String,
    },

    /// The connection broke, again and again.
    #[error("the connection to {host} broke during {what}: {reason}")]
    Interrupted {
        /// The host and port.
        host: String,
        /// What was transferred.
        what: String,
        /// The innermost reason of the last attempt.
        reason: String,
    },

    /// The registry does not know who asks (401).
    #[error("{host} wants other credentials{}{}", concerning(what), because(reason))]
    Unauthorized {
        /// The host and port.
        host: String,
        /// What was asked for; empty at a login.
        what: String,
        /// The registry's or token server's own words, or empty.
        reason: String,
    },

    /// The registry knows who asks, and refuses (403).
    #[error("{host} denies access to {what}{}", because(reason))]
    Denied {
        /// The host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// The registry's own words, or empty.
        reason: String,
    },

    /// The registry does not have it (404).
    #[error("{host} has no {what}{}", because(reason))]
    NotFound {
        /// The host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// The registry's own words, or empty.
        reason: String,
    },

    /// The registry asks to come back later (429), later than anyone wants to wait.
    #[error("{host} limits how much may be asked of it{}", later(*retry_after))]
    RateLimited {
        /// The host and port.
        host: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },

    /// The registry answered with a status that means it cannot, or does not want to.
    #[error("{host} answers {status} to {what}{}", because(reason))]
    Status {
        /// The host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// The status code.
        status: u16,
        /// The registry's own words, or empty.
        reason: String,
    },

    /// The registry does not keep to the protocol.
    #[error("{host} breaks the protocol: {reason}")]
    Protocol {
        /// The host and port.
        host: String,
        /// How.
        reason: String,
    },

    /// A blob ended before its length was reached.
    #[error("blob {digest} from {host} ends after {received} of {expected} bytes")]
    Truncated {
        /// The host and port.
        host: String,
        /// The blob.
        digest: Digest,
        /// Its length in bytes, by its descriptor.
        expected: u64,
        /// How many bytes there are.
        received: u64,
    },

    /// A blob did not end when its length was reached.
    #[error("blob {digest} from {host} has more than its {expected} bytes")]
    TooLong {
        /// The host and port.
        host: String,
        /// The blob.
        digest: Digest,
        /// Its length in bytes, by its descriptor.
        expected: u64,
    },

    /// A blob or manifest is not what its digest promises.
    #[error("{what} from {host} is corrupt: its content is {actual}")]
    Corrupt {
        /// The host and port.
        host: String,
        /// What was asked for, with the digest expected.
        what: String,
        /// The digest of what came.
        actual: Digest,
    },

    /// A manifest or config cannot be understood.
    #[error("{what} from {host} cannot be used")]
    Document {
        /// The host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        source: oci::Error,
    },

    /// What is to be pushed cannot be.
    #[error("the image cannot be pushed: {reason}")]
    NotPushable {
        /// Why not.
        reason: String,
    },

    /// A file with credentials or certificates cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// A verb phrase that completes "cannot …".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's own words, or what is wrong with the content.
        source: io::Error,
    },

    /// A credential helper failed.
    #[error("credential helper {program} failed: {reason}")]
    Helper {
        /// The program.
        program: String,
        /// Its own words.
        reason: String,
    },

    /// The HTTP client cannot be set up.
    #[error("cannot set up {what}: {reason}")]
    Setup {
        /// What was set up: "TLS", "the proxy http://…" …
        what: String,
        /// Why it failed.
        reason: String,
    },

    /// [`Client::cancel`](super::Client::cancel) was called.
    #[error("interrupted")]
    Cancelled,

    /// The local store failed.
    #[error(transparent)]
    Store(#[from] crate::Error),
}

/// The reason where nothing happened for too long.
pub(super) const TIMED_OUT: &str = "timed out";

impl Error {
    /// Returns what it means that nothing happened for too long.
    pub(super) fn timed_out(host: &str, what: &str) -> Self {
        let (host, what) = (host.to_owned(), what.to_owned());
        Self::Interrupted { host, what, reason: TIMED_OUT.to_owned() }
    }

    /// Returns what one failed request means: whether anything was reached at all.
    pub(super) fn from_request(error: &reqwest::Error, host: &str, what: &str) -> Self {
        let (host, reason) = (host.to_owned(), innermost(error));
        if error.is_connect() {
            Self::Unreachable { host, reason }
        } else {
            Self::Interrupted { host, what: what.to_owned(), reason }
        }
    }
}

/// Returns the deepest cause, which is the one that tells people something.
///
/// What lies above it says "error sending request", "client error (Connect)", "tcp connect error".
pub(super) fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => return "connection refused".to_owned(),
            io::ErrorKind::ConnectionReset => return "connection reset".to_owned(),
            io::ErrorKind::TimedOut => return TIMED_OUT.to_owned(),
            _ => {}
        }
    }
    if error.is_timeout() {
        return TIMED_OUT.to_owned();
    }
    if error.source().is_none() {
        // Without a cause, its own text would repeat the address.
        return "the request failed".to_owned();
    }
    cause.to_string()
}

/// Returns what an error is about, as the end of "… wants other credentials".
fn concerning(what: &str) -> String {
    if what.is_empty() { String::new() } else { format!(" for {what}") }
}

fn because(reason: &str) -> impl fmt::Display + use<> {
    let reason = reason.to_owned();
    fmt::from_fn(move |f| if reason.is_empty() { Ok(()) } else { write!(f, ": {reason}") })
}

fn later(retry_after: Option<Duration>) -> impl fmt::Display {
    fmt::from_fn(move |f| match retry_after {
        Some(wait) => write!(f, ": try again in {} s", wait.as_secs()),
        None => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_about_nothing_but_itself() {
        let refused = |what: &str| {
            let (host, what) = ("r.example".to_owned(), what.to_owned());
            Error::Unauthorized { host, what, reason: "wrong password".to_owned() }.to_string()
        };
        assert_eq!(refused(""), "r.example wants other credentials: wrong password");
        assert_eq!(refused("app"), "r.example wants other credentials for app: wrong password");
    }
}

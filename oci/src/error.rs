//! What can be wrong with names and documents.

use thiserror::Error;

/// The result of reading a name or a document.
pub type Result<T> = std::result::Result<T, Error>;

/// Says which name or document was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// A digest is not `<algorithm>:<lower-case hex of the right length>`.
    #[error("invalid digest {text:?}: {reason}")]
    Digest {
        /// The refused text, shortened where it is very long.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A reference does not follow the grammar.
    #[error("invalid reference {text:?}: {reason}")]
    Reference {
        /// The refused text, shortened where it is very long.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A repository name does not follow the grammar.
    #[error("invalid repository name {text:?}: {reason}")]
    Repository {
        /// The refused text, shortened where it is very long.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A tag does not follow the grammar.
    #[error("invalid tag {text:?}: {reason}")]
    Tag {
        /// The refused text, shortened where it is very long.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A media type is not `type/subtype`.
    #[error("invalid media type {text:?}")]
    MediaType {
        /// The refused text, shortened where it is very long.
        text: String,
    },

    /// A platform is not `os/architecture[/variant]`.
    #[error("invalid platform {text:?}: {reason}")]
    Platform {
        /// The refused text, shortened where it is very long.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A document is larger than anything legitimate.
    #[error("{what} of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// The kind of document.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The most that is accepted, in bytes.
        limit: usize,
    },

    /// A document nests objects and lists deeper than anything legitimate.
    #[error("{what} nests deeper than {limit} levels")]
    TooDeep {
        /// The kind of document.
        what: &'static str,
        /// The most that is accepted.
        limit: usize,
    },

    /// A document is not the JSON its kind asks for.
    #[error("invalid {what}: {reason}")]
    Json {
        /// The kind of document or object.
        what: &'static str,
        /// The parser's explanation, with the field where there is one.
        reason: String,
    },

    /// A document could be read as a manifest and as an index.
    ///
    /// Two readers could see two different images under one digest, so nobody
    /// gets to read it (image-spec advisory GHSA-77vh-xpmg-72qh).
    #[error("ambiguous manifest: {reason}")]
    Ambiguous {
        /// The contradiction.
        reason: String,
    },

    /// A document is of a kind that is not supported.
    #[error("unsupported manifest: {reason}")]
    Unsupported {
        /// What the document is, as far as it says.
        reason: String,
    },
}

/// Returns `text`, cut to a length that fits into a message.
pub(crate) fn excerpt(text: &str) -> String {
    /// Long enough for a full reference with a digest to be seen whole.
    const MAX_EXCERPT_CHARS: usize = 400;
    match text.char_indices().nth(MAX_EXCERPT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

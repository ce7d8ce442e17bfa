//! Errors as the specification writes them: one place that turns what went
//! wrong inside into a status, a code and a message.

use hyper::StatusCode;
use hyper::header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use serde_json::json;

use super::Answer;
use crate::access::UserName;
use crate::content;
use crate::storage;

/// The codes of distribution-spec, "Error Codes"; there are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorCode {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
}

impl ErrorCode {
    fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
        }
    }

    /// The only table of status codes; exceptions are made at the error.
    fn status(self) -> StatusCode {
        match self {
            Self::BlobUnknown
            | Self::BlobUploadUnknown
            | Self::ManifestBlobUnknown
            | Self::ManifestUnknown
            | Self::NameUnknown => StatusCode::NOT_FOUND,
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::SizeInvalid => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

/// A request that failed.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: ErrorCode,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What only our log may know.
    cause: Option<content::Error>,
    /// Whose password was wrong.
    tried: Option<UserName>,
}

impl ApiError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status: code.status(), code, message, headers: Vec::new(), cause: None, tried: None }
    }

    /// Nothing is at the path.
    pub(super) fn not_found(message: String) -> Self {
        Self { status: StatusCode::NOT_FOUND, ..Self::new(ErrorCode::Unsupported, message) }
    }

    /// The endpoint exists but not for the method.
    pub(super) fn method(allowed: &'static str) -> Self {
        Self::new(ErrorCode::Unsupported, format!("this endpoint allows {allowed}"))
            .with(ALLOW, HeaderValue::from_static(allowed))
    }

    /// There is too much to do; the client is to come back in a second.
    pub(super) fn busy(message: &str) -> Self {
        Self::new(ErrorCode::TooManyRequests, message)
            .with(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// The registry is stopping.
    pub(super) fn unavailable() -> Self {
        let error = Self::new(ErrorCode::TooManyRequests, "the registry is stopping");
        Self { status: StatusCode::SERVICE_UNAVAILABLE, ..error }
            .with(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// Adds a header to the answer.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Says whose password was wrong.
    pub(super) fn by(self, tried: Option<UserName>) -> Self {
        Self { tried, ..self }
    }

    /// Returns whose password was wrong.
    pub(super) fn tried(&self) -> Option<&UserName> {
        self.tried.as_ref()
    }

    /// Says something else.
    pub(super) fn saying(self, message: &str) -> Self {
        Self { message: message.to_owned(), ..self }
    }

    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub(super) fn bad_request(self) -> Self {
        self.with_status(StatusCode::BAD_REQUEST)
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Tells the log what the client is not told.
    pub(super) fn log(&self, parts: &Parts) {
        let (method, path) = (&parts.method, parts.uri.path());
        match &self.cause {
            Some(cause) if self.status.is_server_error() => {
                let cause: &dyn std::error::Error = cause;
                tracing::error!(%method, path, error = cause, "request failed");
            }
            _ => tracing::debug!(%method, path, code = self.code.as_str(), "{}", self.message),
        }
    }

    /// Returns the answer: distribution-spec, "Error Codes".
    pub(super) fn into_answer(self) -> Answer {
        let body = json!({
            "errors": [{ "code": self.code.as_str(), "message": self.message, "detail": null }]
        });
        let json = HeaderValue::from_static("application/json");
        let mut answer = super::respond::with_body(json, body.to_string());
        *answer.status_mut() = self.status;
        answer.headers_mut().extend(self.headers);
        answer
    }
}

impl From<content::Error> for ApiError {
    fn from(error: content::Error) -> Self {
        use content::Error as E;
        let code = match &error {
            E::BlobUnknown { .. } => ErrorCode::BlobUnknown,
            E::UploadUnknown { .. } => ErrorCode::BlobUploadUnknown,
            E::OutOfOrder { .. } | E::Interrupted { .. } => ErrorCode::BlobUploadInvalid,
            E::SizeMismatch { .. } => ErrorCode::SizeInvalid,
            E::DigestMismatch { .. } => ErrorCode::DigestInvalid,
            E::ManifestUnknown { .. } => ErrorCode::ManifestUnknown,
            E::ManifestInvalid { .. } => ErrorCode::ManifestInvalid,
            E::ManifestBlobUnknown { .. } => ErrorCode::ManifestBlobUnknown,
            E::RepositoryUnknown { .. } => ErrorCode::NameUnknown,
            E::ConditionFailed { .. } | E::TagKept { .. } => ErrorCode::Denied,
            E::Collecting | E::TooManyUploads => ErrorCode::TooManyRequests,
            E::Forbidden { .. } => ErrorCode::Unsupported,
            E::Storage(cause) => return Self::from_storage(cause).because(error),
        };
        let api = Self::new(code, error.to_string());
        match &error {
            E::OutOfOrder { .. } => api.with_status(StatusCode::RANGE_NOT_SATISFIABLE),
            E::ConditionFailed { .. } => api.with_status(StatusCode::PRECONDITION_FAILED),
            E::Collecting | E::TooManyUploads => {
                api.with(RETRY_AFTER, HeaderValue::from_static("1"))
            }
            E::Interrupted { .. } => api.because(error),
            _ => api,
        }
    }
}

impl ApiError {
    /// What a client may know of a storage error: never a path or an error number.
    fn from_storage(error: &storage::Error) -> Self {
        match error {
            storage::Error::Full { .. } => {
                let message = "the registry's storage is full; nothing was stored";
                Self::new(ErrorCode::Denied, message).with_status(StatusCode::INSUFFICIENT_STORAGE)
            }
            storage::Error::Busy { .. } => Self::new(ErrorCode::TooManyRequests, error.to_string())
                .with(RETRY_AFTER, HeaderValue::from_static("1")),
            storage::Error::Format { .. } | storage::Error::Io { .. } => {
                let message = "the registry's storage failed; its log says why";
                Self::new(ErrorCode::Unsupported, message)
                    .with_status(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    fn because(self, cause: content::Error) -> Self {
        Self { cause: Some(cause), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::UploadId;

    /// Who is told to come back is told when, and nobody is told a path of ours.
    #[test]
    fn storage_errors_say_what_a_client_may_know() {
        let place = || "/var/lib/secret".to_owned();
        let io = || std::io::Error::other("disk on fire");
        let busy = storage::Error::Busy { id: UploadId::from_random([7; 16]) };
        for (error, status, code, retry) in [
            (busy, 429, "TOOMANYREQUESTS", Some("1")),
            (storage::Error::Full { action: "write", place: place() }, 507, "DENIED", None),
            (
                storage::Error::Io { action: "write", place: place(), source: io() },
                500,
                "UNSUPPORTED",
                None,
            ),
            (
                storage::Error::Format { place: place(), reason: "odd".to_owned() },
                500,
                "UNSUPPORTED",
                None,
            ),
        ] {
            let error = ApiError::from(content::Error::Storage(error));
            assert_eq!(error.code.as_str(), code);
            assert!(!error.message.contains("secret"), "{}", error.message);
            assert!(!error.message.contains("fire"), "{}", error.message);
            let answer = error.into_answer();
            assert_eq!(answer.status().as_u16(), status);
            let given = answer.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(given, retry);
        }
        for error in [content::Error::Collecting, content::Error::TooManyUploads] {
            let answer = ApiError::from(error).into_answer();
            assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(answer.headers()[RETRY_AFTER], "1");
        }
        let stopping = ApiError::unavailable().into_answer();
        assert_eq!(stopping.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(stopping.headers()[RETRY_AFTER], "1");
    }
}

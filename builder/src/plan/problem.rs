//! Why a Dockerfile cannot be planned.

use crate::dockerfile::{Code, Diagnostic, Severity, Span};

/// Everything that is wrong with a Dockerfile, with the places.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .0.first().map_or_else(String::new, ToString::to_string))]
pub struct Problems(pub Vec<Diagnostic>);

/// Returns an error at a place.
pub(super) fn error(code: Code, span: Span, message: impl Into<String>) -> Diagnostic {
    let message = message.into();
    Diagnostic { code, severity: Severity::Error, span, message, suggestion: None }
}

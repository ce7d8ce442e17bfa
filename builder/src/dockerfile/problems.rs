//! Where the parser's parts leave what is wrong with the line they read.

use std::ops::Range;

use super::diagnostic::{Code, Diagnostic, Severity, has_errors};
use super::source::{Logical, Source};

/// How many problems of one file are kept. The first few help; more only
/// cost time and scroll the first away.
const MAX_DIAGNOSTICS: usize = 200;

/// Collects the problems of one logical line.
#[derive(Debug)]
pub(super) struct Problems<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) line: &'a Logical,
    pub(super) found: &'a mut Vec<Diagnostic>,
    /// Set inside ONBUILD: its instruction is stored, not built, so what is
    /// wrong with it is no error yet.
    pub(super) is_trigger: bool,
}

impl Problems<'_> {
    /// Adds an error about a range of the logical line.
    pub(super) fn error(&mut self, code: Code, range: Range<usize>, message: String) {
        self.suggest(code, range, message, None);
    }

    /// Adds an error with the nearest valid word.
    pub(super) fn suggest(
        &mut self,
        code: Code,
        range: Range<usize>,
        message: String,
        nearest: Option<&str>,
    ) {
        let (code, severity) = if self.is_trigger {
            (Code::BrokenTrigger, Severity::Warning)
        } else {
            (code, Severity::Error)
        };
        self.add(code, severity, range, message, nearest.map(str::to_owned));
    }

    /// Adds a warning about a range of the logical line.
    pub(super) fn warn(&mut self, code: Code, range: Range<usize>, message: String) {
        self.add(code, Severity::Warning, range, message, None);
    }

    fn add(
        &mut self,
        code: Code,
        severity: Severity,
        range: Range<usize>,
        message: String,
        suggestion: Option<String>,
    ) {
        if has_room(self.found, severity) {
            let span = self.source.span(self.line.range(range));
            self.found.push(Diagnostic { code, severity, span, message, suggestion });
        }
    }
}

/// Adds a problem that is about no particular logical line.
pub(super) fn push(found: &mut Vec<Diagnostic>, diagnostic: Diagnostic) {
    if has_room(found, diagnostic.severity) {
        found.push(diagnostic);
    }
}

/// The first error always has room: a file with an error must not pass for one without.
fn has_room(found: &[Diagnostic], severity: Severity) -> bool {
    found.len() < MAX_DIAGNOSTICS || (severity == Severity::Error && !has_errors(found))
}

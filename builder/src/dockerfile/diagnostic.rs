//! Problems of a Dockerfile, pointing at the text they are about.

use std::fmt;

/// A stretch of a file: where it starts, and how much of its first line it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span {
    /// The first line, from 1; 0 when the problem is about the whole file.
    pub line: usize,
    /// The first column, from 1, counted in characters.
    pub column: usize,
    /// How many characters of the first line belong to it.
    pub length: usize,
    /// The last line, from 1.
    pub end_line: usize,
}

/// How bad a [`Diagnostic`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file builds, but probably not as its author meant.
    Warning,
    /// The file cannot be built.
    Error,
}

/// What a [`Diagnostic`] is about. Names of warnings that BuildKit has too are BuildKit's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The file is empty, or has no instruction or no stage.
    NothingToBuild,
    /// A line is longer than the language allows.
    LineTooLong,
    /// A parser directive is repeated or has a bad value.
    BadDirective,
    /// The file asks for a frontend that is none of docker/dockerfile.
    ForeignSyntax,
    /// The first word of a line is not an instruction.
    UnknownInstruction,
    /// An instruction stands where it must not.
    MisplacedInstruction,
    /// The arguments of an instruction are not what it takes.
    BadArguments,
    /// A flag that the instruction does not have.
    UnknownFlag,
    /// A flag without a value, with a bad one, or given twice.
    BadFlag,
    /// A JSON array that holds more than strings.
    BadJson,
    /// A heredoc without its end, or where none may be.
    BadHeredoc,
    /// A `--mount` that makes no sense.
    BadMount,
    /// More stages than any file needs.
    TooManyStages,
    /// Values that multiply beyond what any file needs.
    TooLarge,
    /// A stage name that is not one.
    BadStageName,
    /// A variable where none is expanded.
    NoExpansion,
    /// A flag that is read over.
    IgnoredFlag,
    /// An ONBUILD whose instruction will not be understood when it triggers.
    BrokenTrigger,
    /// A blank line in a continued instruction.
    NoEmptyContinuation,
    /// A `--from` that names no stage of the file.
    UnknownStage,
    /// A target that is no stage of the file.
    UnknownTarget,
    /// What a FROM starts from is no image, stage or `scratch`.
    BadBase,
    /// A word whose variables cannot be expanded.
    BadExpansion,
    /// A stage that needs itself or a later one.
    Cycle,
    /// Something of the language that cannot be built yet.
    NotSupported,
    /// Something that a build has to permit, and this one does not.
    NotAllowed,
}

impl Code {
    /// Returns the code as it is printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NothingToBuild => "nothing-to-build",
            Self::LineTooLong => "line-too-long",
            Self::BadDirective => "bad-directive",
            Self::ForeignSyntax => "foreign-syntax",
            Self::UnknownInstruction => "unknown-instruction",
            Self::MisplacedInstruction => "misplaced-instruction",
            Self::BadArguments => "bad-arguments",
            Self::UnknownFlag => "unknown-flag",
            Self::BadFlag => "bad-flag",
            Self::BadJson => "bad-json",
            Self::BadHeredoc => "bad-heredoc",
            Self::BadMount => "bad-mount",
            Self::TooManyStages => "too-many-stages",
            Self::TooLarge => "too-large",
            Self::BadStageName => "bad-stage-name",
            Self::NoExpansion => "no-expansion",
            Self::IgnoredFlag => "ignored-flag",
            Self::BrokenTrigger => "broken-trigger",
            Self::NoEmptyContinuation => "NoEmptyContinuation",
            Self::UnknownStage => "unknown-stage",
            Self::UnknownTarget => "unknown-target",
            Self::BadBase => "bad-base",
            Self::BadExpansion => "bad-expansion",
            Self::Cycle => "cycle",
            Self::NotSupported => "not-supported",
            Self::NotAllowed => "not-allowed",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One problem of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind of problem it is.
    pub code: Code,
    /// Whether the file can still be built.
    pub severity: Severity,
    /// The text it is about.
    pub span: Span,
    /// What is wrong, in BuildKit's words where it has them.
    pub message: String,
    /// The nearest valid word, where one is near.
    pub suggestion: Option<String>,
}

impl fmt::Display for Diagnostic {
    /// Writes the message, and the nearest valid word as BuildKit does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(word) => write!(f, " (did you mean {word}?)"),
            None => Ok(()),
        }
    }
}

impl Diagnostic {
    /// Returns whether the file cannot be built because of this.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Returns the problem as people read it: `file:line:column`, the message,
    /// the line itself and a caret below the text that is meant.
    ///
    /// `text` is the text the diagnostic was made from. Lines end in `\n`,
    /// the last one too. With `colour` the text has ANSI colours in it.
    #[must_use]
    pub fn render(&self, file: &str, text: &str, colour: bool) -> String {
        let paint = |code: &str, text: &str| {
            if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
        };
        let (word, tint) = match self.severity {
            Severity::Error => ("error", "1;31"),
            Severity::Warning => ("warning", "1;33"),
        };
        let label = paint(tint, word);
        let Some(index) = self.span.line.checked_sub(1) else {
            return format!("{file}: {label}: {} [{}]\n", self.printable(), self.code);
        };
        let place = format!("{file}:{}:{}", self.span.line, self.span.column);
        let head = format!("{place}: {label}: {} [{}]\n", self.printable(), self.code);
        let Some(line) = text.lines().nth(index) else { return head };
        let line = line.trim_start_matches('\u{feff}');
        let (shown, caret) = self.excerpt(line);
        let number = self.span.line.to_string();
        let gutter = " ".repeat(number.len());
        format!("{head}{number} | {shown}\n{gutter} | {}\n", paint(tint, &caret))
    }

    /// Returns the message without control characters: the file's words are in
    /// it, and must not command the reader's terminal.
    fn printable(&self) -> String {
        let message = self.to_string();
        let escape =
            |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
        message.chars().map(escape).collect()
    }

    /// Returns the part of `line` around the span, and the caret line below it.
    /// Tabs become single blanks, so that the caret stands below its text.
    fn excerpt(&self, line: &str) -> (String, String) {
        /// Wide enough for real lines, narrow enough for a terminal and for hostile ones.
        const MAX_CHARS: usize = 160;
        let start = self.span.column.saturating_sub(1);
        let skip = if start > MAX_CHARS / 2 { start - MAX_CHARS / 4 } else { 0 };
        let mut rest = line.chars().skip(skip);
        let mut shown: String = rest
            .by_ref()
            .take(MAX_CHARS)
            .map(|c| if c.is_control() || c == '\u{feff}' { ' ' } else { c })
            .collect();
        let width = shown.chars().count();
        if rest.next().is_some() {
            shown.push('…');
        }
        let lead = if skip > 0 { "…" } else { "" };
        let indent = start - skip + lead.chars().count();
        let carets = self.span.length.clamp(1, width.saturating_sub(start - skip).max(1));
        (format!("{lead}{shown}"), format!("{}{}", " ".repeat(indent), "^".repeat(carets)))
    }
}

/// Returns whether any of `diagnostics` keeps the file from being built.
#[must_use]
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(Diagnostic::is_error)
}

//! Physical lines of a file, and the logical lines they join into.

use std::ops::Range;

use super::diagnostic::Span;

/// The longest line BuildKit's scanner takes; a longer one is no Dockerfile but an attack or a mistake.
pub(super) const MAX_LINE_BYTES: usize = 65_535;

/// The file being parsed, cut into physical lines.
#[derive(Debug)]
pub(super) struct Source<'a> {
    text: &'a str,
    /// Byte offset of the start of each line.
    starts: Vec<usize>,
    /// The next line to read, from 0.
    next: usize,
}

/// One physical line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// Its number, from 0.
    pub(super) index: usize,
    /// Where `text` starts in the file.
    pub(super) start: usize,
    /// The line without its end.
    pub(super) text: &'a str,
    /// The line with its end.
    pub(super) raw: &'a str,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut starts: Vec<usize> = text
            .split_inclusive('\n')
            .scan(0, |offset, line| {
                let start = *offset;
                *offset += line.len();
                Some(start)
            })
            .collect();
        if starts.is_empty() {
            starts.push(0);
        }
        Self { text, starts, next: 0 }
    }

    /// Returns the next physical line; a byte order mark before the first is dropped.
    pub(super) fn next_line(&mut self) -> Option<Line<'a>> {
        let index = self.next;
        let mut start = *self.starts.get(index)?;
        if start >= self.text.len() {
            return None;
        }
        let end = self.starts.get(index + 1).copied().unwrap_or(self.text.len());
        if index == 0 && self.text.starts_with('\u{feff}') {
            start += '\u{feff}'.len_utf8();
        }
        self.next += 1;
        let raw = &self.text[start..end];
        Some(Line { index, start, text: raw.trim_end_matches(['\r', '\n']), raw })
    }

    /// Returns the number of the last line read, from 1.
    pub(super) fn line_number(&self) -> usize {
        self.next
    }

    /// Returns where reading stands, for [`Self::rewind`].
    pub(super) fn mark(&self) -> usize {
        self.next
    }

    /// Reads on from `mark`.
    pub(super) fn rewind(&mut self, mark: usize) {
        self.next = mark;
    }

    /// Returns the span of a range of bytes of the file.
    pub(super) fn span(&self, range: Range<usize>) -> Span {
        let (line, column) = self.position(range.start);
        let (end_line, _) = self.position(range.end.max(range.start));
        let line_end = self.starts.get(line).copied().unwrap_or(self.text.len());
        let shown = &self.text[range.start..range.end.clamp(range.start, line_end)];
        let length = shown.trim_end_matches(['\r', '\n']).chars().count();
        Span { line, column, length, end_line }
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let mut start = self.starts[line - 1];
        if line == 1 && self.text.starts_with('\u{feff}') {
            start = start.max('\u{feff}'.len_utf8());
        }
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count());
        (line, column + 1)
    }
}

/// An instruction's line, its continuations joined, and where each piece came from.
#[derive(Debug, Default)]
pub(super) struct Logical {
    pub(super) text: String,
    /// (offset in `text`, offset in the file) of each piece.
    pieces: Vec<(usize, usize)>,
    /// Number of the last physical line, from 1.
    pub(super) last_line: usize,
    /// Whether a blank line stands among the continuations.
    pub(super) has_empty_continuation: bool,
}

impl Logical {
    pub(super) fn push(&mut self, piece: &str, offset: usize) {
        self.pieces.push((self.text.len(), offset));
        self.text.push_str(piece);
    }

    /// Returns the place in the file of a range of `self.text`.
    pub(super) fn range(&self, range: Range<usize>) -> Range<usize> {
        let start = self.offset(range.start);
        // The end belongs to the piece of the last byte, not to the one after it.
        let end = if range.end > range.start { self.offset(range.end - 1) + 1 } else { start };
        start..end.max(start)
    }

    fn offset(&self, offset: usize) -> usize {
        let piece = self.pieces.partition_point(|(start, _)| *start <= offset).saturating_sub(1);
        self.pieces.get(piece).map_or(0, |(start, place)| place + (offset - start))
    }
}

/// Returns whether `line` is a comment.
pub(super) fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// Returns `line` without its continuation character, or `None` if the line ends here.
///
/// A doubled escape character is not a continuation; a line of nothing else is one.
pub(super) fn strip_continuation(line: &str, escape: char) -> Option<&str> {
    let rest = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!rest.ends_with(escape)).then_some(rest)
}

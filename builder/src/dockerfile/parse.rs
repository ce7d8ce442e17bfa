//! Text → [`Dockerfile`]: reads the lines, and puts the instructions into stages.

use super::ast::{Dockerfile, Form, Heredoc, Instruction, Node, Stage};
use super::diagnostic::{Code, Diagnostic, Severity, Span, has_errors};
use super::directive::Directives;
use super::heredoc;
use super::instruction::{self, Context};
use super::node::{Keyword, RawNode};
use super::problems::{Problems, push};
use super::source::{Line, Logical, MAX_LINE_BYTES, Source, is_comment, strip_continuation};
use super::suggest::nearest;
use super::words::Text;

/// Files of people have tens of stages. Stages that stand on each other are planned one in the
/// other, so a million of them would end the builder's stack.
const MAX_STAGES: usize = 1000;

/// Parses a Dockerfile. Never fails: whatever cannot be understood is left out
/// of the tree and explained in a [`Diagnostic`] of severity error that points
/// at its text. All problems of the file are reported, in its order.
#[must_use]
pub fn parse(text: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let mut parser = Parser::new(text);
    parser.run();
    parser.finish(text)
}

/// Parses the trigger that an image config stores for one ONBUILD.
///
/// # Errors
///
/// Fails if the text is not exactly one instruction, or one that may not
/// trigger; the diagnostics point into `text`.
pub fn parse_trigger(text: &str) -> Result<Instruction, Vec<Diagnostic>> {
    let mut parser = Parser::new(text);
    parser.place = Place::Trigger;
    parser.run();
    let mut found = parser.found;
    found.retain(Diagnostic::is_error);
    let mut instructions = parser.globals.into_iter();
    match (instructions.next(), instructions.next()) {
        (Some(instruction), None) if found.is_empty() && parser.stages.is_empty() => {
            Ok(instruction)
        }
        _ => {
            if found.is_empty() {
                let message = "onbuild trigger should be a single expression";
                found.push(whole_file(Code::MisplacedInstruction, message));
            }
            Err(found)
        }
    }
}

/// Parses only the syntax: the instructions of a file as they are written,
/// whether or not they make sense, for BuildKit's dump of them.
///
/// # Errors
///
/// Fails where BuildKit's parser does; the diagnostics say why.
pub fn parse_nodes(text: &str) -> Result<Vec<Node>, Vec<Diagnostic>> {
    let mut parser = Parser::new(text);
    parser.nodes = Some(Vec::new());
    parser.run();
    let nodes = parser.nodes.take().unwrap_or_default();
    if nodes.is_empty() && !has_errors(&parser.found) {
        parser.found.push(whole_file(Code::NothingToBuild, "file with no instructions"));
    }
    if has_errors(&parser.found) { Err(parser.found) } else { Ok(nodes) }
}

/// Where the next instruction belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first FROM.
    Globals,
    /// Before the first FROM, which was missed and reported already.
    Nowhere,
    /// In a stage that is not part of the text.
    Trigger,
    /// In the last stage.
    Stage,
    /// Behind a FROM that is no good; checked, but not kept.
    BrokenStage,
}

#[derive(Debug)]
struct Parser<'a> {
    source: Source<'a>,
    directives: Directives,
    escape: char,
    comments: Vec<String>,
    found: Vec<Diagnostic>,
    place: Place,
    has_instruction: bool,
    /// Set once a heredoc's end was not found: looking again would cost the square.
    is_heredoc_lost: bool,
    globals: Vec<Instruction>,
    stages: Vec<Stage>,
    /// Set if only the syntax is asked for.
    nodes: Option<Vec<Node>>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            source: Source::new(text),
            directives: Directives::new("#"),
            escape: '\\',
            comments: Vec::new(),
            found: Vec::new(),
            place: Place::Globals,
            has_instruction: false,
            is_heredoc_lost: false,
            globals: Vec::new(),
            stages: Vec::new(),
            nodes: None,
        }
    }

    fn run(&mut self) {
        while let Some(logical) = self.next_logical() {
            self.has_instruction = true;
            self.instruction(&logical);
            self.comments.clear();
        }
    }

    fn finish(mut self, text: &str) -> (Dockerfile, Vec<Diagnostic>) {
        let message = if text.is_empty() {
            Some("the Dockerfile cannot be empty")
        } else if !self.has_instruction {
            Some("file with no instructions")
        } else if self.stages.is_empty() && !has_errors(&self.found) {
            Some("dockerfile contains no stages to build")
        } else {
            None
        };
        if let Some(message) = message {
            push(&mut self.found, whole_file(Code::NothingToBuild, message));
        }
        let tree = Dockerfile {
            escape: self.escape,
            directives: self.directives.found,
            globals: self.globals,
            stages: self.stages,
        };
        (tree, self.found)
    }

    /// Returns the next physical line, reporting one that is too long.
    fn next_line(&mut self) -> Option<Line<'a>> {
        let mut line = self.source.next_line()?;
        if line.raw.trim_end_matches('\n').len() > MAX_LINE_BYTES {
            let message =
                format!("dockerfile line greater than max allowed size of {MAX_LINE_BYTES}");
            let start =
                Span { line: line.index + 1, column: 1, length: 1, end_line: line.index + 1 };
            push(
                &mut self.found,
                Diagnostic {
                    code: Code::LineTooLong,
                    severity: Severity::Error,
                    span: start,
                    message,
                    suggestion: None,
                },
            );
            // It ends whatever it belongs to, and says nothing more.
            line.text = "";
            line.raw = "";
            self.has_instruction = true;
        }
        Some(line)
    }

    /// Returns the next line with its continuations, past comments, blank lines and directives.
    fn next_logical(&mut self) -> Option<Logical> {
        loop {
            let line = self.next_line()?;
            let text = line.text.trim_start();
            let start = line.start + (line.text.len() - text.len());
            if self.directive(text, start) {
                continue;
            }
            if is_comment(text) {
                self.comment(text);
                continue;
            }
            let mut logical = Logical::default();
            match strip_continuation(text, self.escape) {
                None if text.is_empty() => continue,
                None => logical.push(text, start),
                Some(piece) => {
                    logical.push(piece, start);
                    self.continuations(&mut logical);
                }
            }
            logical.last_line = self.source.line_number();
            return Some(logical);
        }
    }

    /// Appends the lines that continue `logical`. Their leading blanks count.
    fn continuations(&mut self, logical: &mut Logical) {
        while let Some(line) = self.next_line() {
            if is_comment(line.text) {
                continue;
            }
            if line.text.trim_start().is_empty() {
                logical.has_empty_continuation = true;
                continue;
            }
            match strip_continuation(line.text, self.escape) {
                Some(piece) => logical.push(piece, line.start),
                None => {
                    logical.push(line.text, line.start);
                    return;
                }
            }
        }
    }

    /// Reads a directive; returns whether the line is one.
    fn directive(&mut self, text: &str, start: usize) -> bool {
        // Only the top of the file can have one, so this is no cost further down.
        let span = if text.starts_with('#') {
            self.source.span(start..start + text.len())
        } else {
            Span::default()
        };
        match self.directives.read(text, span) {
            Ok(is_directive) => {
                self.escape = self.directives.escape();
                is_directive
            }
            Err(diagnostic) => {
                push(&mut self.found, diagnostic);
                true
            }
        }
    }

    /// Keeps a comment for the instruction below; an empty one parts them.
    fn comment(&mut self, text: &str) {
        let comment = text.strip_prefix('#').unwrap_or(text).trim();
        if comment.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(comment.to_owned());
        }
    }

    fn instruction(&mut self, logical: &Logical) {
        if logical.has_empty_continuation {
            // BuildKit reports the last line of the instruction.
            let line = logical.last_line;
            push(
                &mut self.found,
                Diagnostic {
                    code: Code::NoEmptyContinuation,
                    severity: Severity::Warning,
                    span: Span { line, column: 1, length: 1, end_line: line },
                    message: "Empty continuation line".to_owned(),
                    suggestion: None,
                },
            );
        }
        let whole = Text { text: &logical.text, start: 0 };
        let count = self.found.len();
        let node = RawNode::read(whole, self.escape, &mut self.problems(logical));
        let Some(node) = node else {
            self.skip_lost_heredocs(logical);
            self.keep_unknown(logical, count);
            return;
        };
        let heredocs =
            if node.takes_heredocs() { self.heredocs(logical) } else { Some(Vec::new()) };
        let Some(heredocs) = heredocs else { return };
        let mut span = self.source.span(logical.range(0..logical.text.trim_end().len()));
        span.end_line = self.source.line_number();
        let mut written = node.to_node(heredocs.clone(), &logical.text, span);
        written.comments = std::mem::take(&mut self.comments);
        if let Some(nodes) = &mut self.nodes {
            nodes.push(written);
            return;
        }
        let mut context = Context {
            heredocs: &heredocs,
            text: &logical.text,
            escape: self.escape,
            problems: &mut Problems {
                source: &self.source,
                line: logical,
                found: &mut self.found,
                is_trigger: false,
            },
        };
        if node.keyword == Keyword::From {
            if self.stages.len() == MAX_STAGES {
                let message = format!("a Dockerfile has at most {MAX_STAGES} stages");
                let range = node.keyword_word.range.clone();
                context.problems.error(Code::TooManyStages, range, message);
                self.place = Place::BrokenStage;
                return;
            }
            let from = instruction::from(&node, &mut context);
            self.place = if from.is_some() { Place::Stage } else { Place::BrokenStage };
            let stage = from.map(|from| Stage { node: written, from, instructions: Vec::new() });
            self.stages.extend(stage);
            return;
        }
        let kind = instruction::read(&node, &mut context);
        self.place(logical, &node, kind.map(|kind| Instruction { node: written, kind }));
    }

    /// For the syntax alone an unknown instruction is none of our business.
    fn keep_unknown(&mut self, logical: &Logical, count: usize) {
        let is_unknown = |found: &Diagnostic| found.code == Code::UnknownInstruction;
        if let (Some(nodes), true) = (&mut self.nodes, self.found[count..].iter().all(is_unknown)) {
            self.found.truncate(count);
            let word = logical.text.split_whitespace().next().unwrap_or_default();
            let (keyword, args) = (word.to_owned(), vec![String::new()]);
            nodes.push(Node { keyword, args, ..Node::new(Form::Words) });
        }
    }

    /// Puts an instruction where it belongs.
    fn place(&mut self, logical: &Logical, node: &RawNode, instruction: Option<Instruction>) {
        match self.place {
            Place::Stage => {
                if let (Some(stage), Some(instruction)) = (self.stages.last_mut(), instruction) {
                    stage.instructions.push(instruction);
                }
            }
            Place::Globals | Place::Nowhere if node.keyword == Keyword::Arg => {
                self.globals.extend(instruction);
            }
            Place::Trigger => self.globals.extend(instruction),
            Place::Globals => {
                // Once is enough: everything up to the missing FROM would say the same.
                self.place = Place::Nowhere;
                let message = format!(
                    "no build stage in current context: {} must come after FROM",
                    node.keyword.name()
                );
                let range = node.keyword_word.range.clone();
                self.problems(logical).error(Code::MisplacedInstruction, range, message);
            }
            Place::Nowhere | Place::BrokenStage => {}
        }
    }

    fn problems<'p>(&'p mut self, line: &'p Logical) -> Problems<'p> {
        Problems { source: &self.source, line, found: &mut self.found, is_trigger: false }
    }

    /// Reads the bodies of the heredocs that the line opens; `None` if that fails.
    fn heredocs(&mut self, logical: &Logical) -> Option<Vec<Heredoc>> {
        let at = |text: &str| logical.text.find(text).map(|at| at..at + text.len());
        let mut heredocs = match heredoc::find(&logical.text) {
            Ok(heredocs) => heredocs,
            Err(error) => {
                let range = at("<<").unwrap_or(0..logical.text.len());
                self.problems(logical).error(Code::BadHeredoc, range, error.to_string());
                return None;
            }
        };
        for heredoc in &mut heredocs {
            if !self.body(heredoc) {
                let name = &heredoc.name;
                let range = at(name).or_else(|| at("<<")).unwrap_or(0..logical.text.len());
                let message = format!("unterminated heredoc: no line below is exactly {name}");
                self.problems(logical).error(Code::BadHeredoc, range, message);
                return None;
            }
        }
        Some(heredocs)
    }

    /// Reads lines up to the heredoc's end; returns whether there is one.
    fn body(&mut self, heredoc: &mut Heredoc) -> bool {
        while let Some(line) = self.next_line() {
            let text = if heredoc.chomp { line.text.trim_start_matches('\t') } else { line.text };
            if text == heredoc.name {
                return true;
            }
            heredoc.body.push_str(line.raw);
        }
        false
    }

    /// Behind a misspelt RUN, COPY or ADD: skips its heredocs, so that their
    /// lines are not taken for instructions. BuildKit stops at the first error
    /// and needs none of this.
    fn skip_lost_heredocs(&mut self, logical: &Logical) {
        let word = logical.text.split_whitespace().next().unwrap_or_default().to_uppercase();
        if self.is_heredoc_lost || nearest(&word, ["RUN", "COPY", "ADD"]).is_none() {
            return;
        }
        let (mark, count) = (self.source.mark(), self.found.len());
        for heredoc in &mut heredoc::find(&logical.text).unwrap_or_default() {
            if !self.body(heredoc) {
                self.is_heredoc_lost = true;
                self.found.truncate(count);
                self.source.rewind(mark);
                return;
            }
        }
    }
}

fn whole_file(code: Code, message: &str) -> Diagnostic {
    Diagnostic {
        code,
        severity: Severity::Error,
        span: Span::default(),
        message: message.to_owned(),
        suggestion: None,
    }
}

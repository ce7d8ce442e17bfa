//! Variables and quotes: what a word of a Dockerfile means in an environment.
//!
//! Close to a shell, with BuildKit's edges. Set/unset, for FOO=x, BAR empty,
//! BAZ not set:
//!
//! | form | FOO | BAR | BAZ |
//! |---|---|---|---|
//! | `$N` `${N}` | x | | |
//! | `${N-w}` / `${N:-w}` | x / x | / w | w / w |
//! | `${N+w}` / `${N:+w}` | w / w | w / | / |
//! | `${N?m}` / `${N:?m}` | x / x | / error | error / error |
//!
//! `#` `##` cut the shortest or longest start that matches a pattern, `%` `%%`
//! the end; `/` replaces the first match and `//` all. Words and patterns may
//! hold variables themselves. `${N=w}` and `${N:1:2}` do not exist.

use std::collections::BTreeSet;

use super::pattern::{Pattern, Take};
use super::quote::quote;

/// The largest result. Linux takes no argument or variable beyond 128 KiB, so
/// this is generous, and it stops `ENV a=$a$a` from filling the memory.
const MAX_BYTES: usize = 1 << 20;

/// How deep `${a:-${b:-…}}` may go; real files have two or three levels.
const MAX_DEPTH: usize = 64;

/// The environment: the value of a variable, `None` when it is not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands words. The escape character is the file's.
#[derive(Debug, Clone, Copy)]
pub struct Expander {
    escape: char,
    quotes: Quotes,
    keep_escapes: bool,
    keep_unset: bool,
}

/// What becomes of quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// They quote, and are removed.
    Remove,
    /// They quote, and stay.
    Keep,
    /// They are text like any other.
    Literal,
}

/// The result of expanding one word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expansion {
    /// The expanded text.
    pub text: String,
    /// The variables that were asked for and are set.
    pub used: BTreeSet<String>,
    /// The variables that were asked for and are not set.
    pub unset: BTreeSet<String>,
}

/// A word that cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {reason}", quote(text))]
pub struct ExpandError {
    /// The word.
    pub text: String,
    /// Why.
    pub reason: ExpandReason,
}

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandReason {
    /// A quote that does not end.
    #[error("unexpected end of statement while looking for matching {0}-quote")]
    MissingQuote(&'static str),
    /// A `${` that does not end.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// A `${name/pattern` without its second `/`.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// `${}`, `${:…`, `${{…`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// Anything after the name that is no operator.
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// `${name?message}` of a variable that is not set.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message given in the file, or the usual one.
        message: String,
    },
    /// A pattern with an escape that means nothing.
    #[error("invalid pattern ({pattern}) in substitution: {reason}")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `${…}` nested deeper than is sensible.
    #[error("substitutions are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// A result larger than is sensible.
    #[error("the result is larger than {MAX_BYTES} bytes")]
    TooLong,
}

impl Expander {
    /// Returns the expander of a file with this escape character.
    #[must_use]
    pub fn new(escape: char) -> Self {
        Self { escape, quotes: Quotes::Remove, keep_escapes: false, keep_unset: false }
    }

    /// Returns the expander of heredoc bodies: quotes are text, and the escape
    /// character is `\` whatever the file says.
    #[must_use]
    pub fn heredoc() -> Self {
        Self { quotes: Quotes::Literal, ..Self::new('\\') }
    }

    /// Returns the expander of progress lines: quotes stay, and so do
    /// variables that are not set.
    #[must_use]
    pub fn for_display(escape: char) -> Self {
        Self { quotes: Quotes::Keep, keep_unset: true, ..Self::new(escape) }
    }

    /// Returns the splitter that finds heredocs in a line.
    pub(super) fn for_heredocs(keep_quotes: bool, keep_escapes: bool) -> Self {
        let quotes = if keep_quotes { Quotes::Keep } else { Quotes::Remove };
        Self { quotes, keep_escapes, keep_unset: true, ..Self::new('\\') }
    }

    /// Expands `text` as one word: blanks in it or in values do not split it.
    ///
    /// # Errors
    ///
    /// Fails on unclosed quotes and braces, on operators that do not exist,
    /// and where `${name?…}` demands a variable that is not set.
    pub fn word(&self, text: &str, env: Lookup<'_>) -> Result<Expansion, ExpandError> {
        let mut lexer = Lexer::new(self, text, env);
        match lexer.until(None, self.keep_escapes, None) {
            Ok(result) => Ok(Expansion { text: result, used: lexer.used, unset: lexer.unset }),
            Err(reason) => Err(ExpandError { text: text.to_owned(), reason }),
        }
    }

    /// Expands `text` and splits the result at blanks outside quotes, those in
    /// values too.
    ///
    /// # Errors
    ///
    /// As [`Self::word`].
    pub fn words(&self, text: &str, env: Lookup<'_>) -> Result<Vec<String>, ExpandError> {
        let mut words = Words::default();
        match Lexer::new(self, text, env).until(None, self.keep_escapes, Some(&mut words)) {
            Ok(_) => Ok(words.finish()),
            Err(reason) => Err(ExpandError { text: text.to_owned(), reason }),
        }
    }
}

/// Collects words while the text is expanded.
///
/// BuildKit shares one buffer between a word and the `${…:-word}` inside it,
/// and so loses what stood before: `a${x:-b}` splits into `b` there. Here it is `ab`.
#[derive(Debug, Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    /// Adds a character that splits if it is blank.
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.current.push(c);
        } else if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

struct Lexer<'a> {
    options: &'a Expander,
    rest: std::str::Chars<'a>,
    env: Lookup<'a>,
    /// Whether escape characters stay in the section being read.
    keep_escapes: bool,
    depth: usize,
    used: BTreeSet<String>,
    unset: BTreeSet<String>,
}

impl<'a> Lexer<'a> {
    fn new(options: &'a Expander, text: &'a str, env: Lookup<'a>) -> Self {
        Self {
            options,
            rest: text.chars(),
            env,
            keep_escapes: options.keep_escapes,
            depth: 0,
            used: BTreeSet::new(),
            unset: BTreeSet::new(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    /// Reads up to `stop`, which is consumed, or to the end.
    fn until(
        &mut self,
        stop: Option<char>,
        keep_escapes: bool,
        mut words: Option<&mut Words>,
    ) -> Result<String, ExpandReason> {
        let outer = std::mem::replace(&mut self.keep_escapes, keep_escapes);
        let mut out = String::new();
        let mut closed = stop.is_none();
        while let Some(c) = self.rest.next() {
            if stop == Some(c) {
                closed = true;
                break;
            }
            let (piece, splits) = self.piece(c)?;
            if let Some(words) = words.as_deref_mut() {
                if splits {
                    piece.chars().for_each(|c| words.push(c));
                } else {
                    words.current.push_str(&piece);
                }
            }
            out.push_str(&piece);
            if out.len() > MAX_BYTES {
                return Err(ExpandReason::TooLong);
            }
        }
        self.keep_escapes = outer;
        if closed {
            return Ok(out);
        }
        Err(if stop == Some('/') { ExpandReason::MissingSlash } else { ExpandReason::MissingBrace })
    }

    /// Expands what starts with `c`; says whether blanks in the result split words.
    fn piece(&mut self, c: char) -> Result<(String, bool), ExpandReason> {
        let quotes = self.options.quotes;
        match c {
            '$' => Ok((self.dollar()?, true)),
            '<' => Ok((self.less_than(), false)),
            '\'' if quotes != Quotes::Literal => Ok((self.single_quoted()?, false)),
            '"' if quotes != Quotes::Literal => Ok((self.double_quoted()?, false)),
            c if c == self.options.escape => {
                let mut piece = String::new();
                if self.keep_escapes {
                    piece.push(c);
                }
                // At the very end the escape character is dropped.
                piece.extend(self.rest.next());
                Ok((piece, false))
            }
            c => Ok((c.to_string(), true)),
        }
    }

    /// Reads `<` and `<<`; blanks after `<<` stay with it, so that `<< EOF` is one word.
    fn less_than(&mut self) -> String {
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.rest.next();
        let mut piece = "<<".to_owned();
        while let Some(c @ ('\t' | '\r' | ' ')) = self.peek() {
            self.rest.next();
            piece.push(c);
        }
        piece
    }

    fn single_quoted(&mut self) -> Result<String, ExpandReason> {
        let Some((inside, after)) = self.rest.as_str().split_once('\'') else {
            self.rest = "".chars();
            return Err(ExpandReason::MissingQuote("single"));
        };
        self.rest = after.chars();
        Ok(self.requote('\'', inside.to_owned()))
    }

    /// In double quotes the escape character escapes `"`, `$` and itself, and is text otherwise.
    fn double_quoted(&mut self) -> Result<String, ExpandReason> {
        let mut inside = String::new();
        loop {
            let Some(c) = self.rest.next() else {
                return Err(ExpandReason::MissingQuote("double"));
            };
            match c {
                '"' => return Ok(self.requote('"', inside)),
                '$' => inside.push_str(&self.dollar()?),
                c if c == self.options.escape => {
                    if self.keep_escapes {
                        inside.push(c);
                    }
                    match self.peek() {
                        None => {}
                        Some(next) if matches!(next, '"' | '$') || next == c => {
                            self.rest.next();
                            inside.push(next);
                        }
                        Some(_) => inside.push(c),
                    }
                }
                c => inside.push(c),
            }
            if inside.len() > MAX_BYTES {
                return Err(ExpandReason::TooLong);
            }
        }
    }

    fn requote(&self, quote: char, inside: String) -> String {
        if self.options.quotes == Quotes::Keep { format!("{quote}{inside}{quote}") } else { inside }
    }

    /// Expands what follows a `$`.
    fn dollar(&mut self) -> Result<String, ExpandReason> {
        if self.peek() == Some('{') {
            self.rest.next();
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(ExpandReason::TooDeep);
            }
            let value = self.braced();
            self.depth -= 1;
            return value;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(match self.get(&name) {
            None if self.options.keep_unset => format!("${name}"),
            value => value.unwrap_or_default(),
        })
    }

    /// Expands what follows a `${`.
    fn braced(&mut self) -> Result<String, ExpandReason> {
        match self.peek() {
            None => return Err(ExpandReason::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandReason::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.rest.next() {
            None => Err(ExpandReason::MissingBrace),
            Some('}') => Ok(match self.get(&name) {
                None if self.options.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some('/') => self.replaced(&name),
            Some(':') => match self.rest.next() {
                Some(operator @ ('-' | '+' | '?')) => self.conditional(&name, ":", operator),
                other => Err(ExpandReason::UnsupportedModifier(
                    std::iter::once(':').chain(other).collect(),
                )),
            },
            Some(operator @ ('-' | '+' | '?')) => self.conditional(&name, "", operator),
            Some(operator @ ('#' | '%')) => self.trimmed(&name, operator),
            Some(other) => Err(ExpandReason::UnsupportedModifier(other.to_string())),
        }
    }

    /// `-`, `+` and `?`; with a colon an empty variable counts as not set.
    /// The word is expanded in any case, so an error in it shows.
    fn conditional(
        &mut self,
        name: &str,
        colon: &str,
        operator: char,
    ) -> Result<String, ExpandReason> {
        let word = self.section('}', false)?;
        let value = self.get(name);
        if value.is_none() && self.options.keep_unset {
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let is_set = value.is_some();
        let present = value.filter(|value| colon.is_empty() || !value.is_empty());
        match (operator, present) {
            ('+', present) => Ok(present.map(|_| word).unwrap_or_default()),
            (_, Some(value)) => Ok(value),
            ('-', None) => Ok(word),
            (_, None) => {
                let state = if is_set { "empty" } else { "unset" };
                let usual = format!("is not allowed to be {state}");
                let message = if word.is_empty() { usual } else { word };
                Err(ExpandReason::Required { name: name.to_owned(), message })
            }
        }
    }

    /// `#`, `##`, `%` and `%%`.
    fn trimmed(&mut self, name: &str, operator: char) -> Result<String, ExpandReason> {
        let word = self.section('}', true)?;
        let Some(value) = self.get(name) else {
            if self.options.keep_unset {
                return Ok(format!("${{{name}{operator}{word}}}"));
            }
            Pattern::parse(word.strip_prefix(operator).unwrap_or(&word))?;
            return Ok(String::new());
        };
        let (pattern, take) = match word.strip_prefix(operator) {
            Some(rest) => (rest, Take::Longest),
            None => (word.as_str(), Take::Shortest),
        };
        let pattern = Pattern::parse(pattern)?;
        if operator == '#' {
            pattern.strip_prefix(&value, take)
        } else {
            pattern.strip_suffix(&value, take)
        }
    }

    /// `/` and `//`.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandReason> {
        let all = self.peek() == Some('/');
        if all {
            self.rest.next();
        }
        let pattern = self.section('/', true)?;
        let replacement = self.section('}', true)?;
        let value = self.get(name);
        if value.is_none() && self.options.keep_unset {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        let pattern = Pattern::parse(&pattern)?;
        if all {
            pattern.replace_all(&value, &replacement, MAX_BYTES)
        } else {
            pattern.replace_first(&value, &replacement)
        }
    }

    /// Reads a part of a `${…}`. When its error comes from running off the end
    /// of the text, the missing end is the thing to report.
    fn section(&mut self, stop: char, keep_escapes: bool) -> Result<String, ExpandReason> {
        self.until(Some(stop), keep_escapes, None).map_err(|error| match (error, stop) {
            (error @ (ExpandReason::TooDeep | ExpandReason::TooLong), _) => error,
            (_, '/') if self.peek().is_none() => ExpandReason::MissingSlash,
            (_, _) if self.peek().is_none() => ExpandReason::MissingBrace,
            (error, _) => error,
        })
    }

    /// Reads a name: letters, digits and `_`; or digits only; or one special
    /// parameter. The last two are never set in a Dockerfile.
    fn name(&mut self) -> String {
        let text = self.rest.as_str();
        let end = match text.chars().next() {
            Some(c) if is_digit(c) => text.find(|c| !is_digit(c)),
            Some(c) if "@*#?-$!".contains(c) => Some(1),
            _ => text.find(|c: char| !c.is_alphabetic() && !is_digit(c) && c != '_'),
        };
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        self.rest = rest.chars();
        name.to_owned()
    }

    fn get(&mut self, name: &str) -> Option<String> {
        let value = (self.env)(name);
        let seen = if value.is_some() { &mut self.used } else { &mut self.unset };
        seen.insert(name.to_owned());
        value
    }
}

/// Decimal digits; the standard library knows no narrower class outside ASCII.
fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric())
}

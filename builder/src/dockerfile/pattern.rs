//! The patterns of `${name#…}`, `${name%…}` and `${name/…/…}`.
//!
//! `*` is any text and `?` any one character, neither crossing a line end;
//! there are no bracket expressions. A backslash makes `*`, `?` and itself
//! literal; before `}` and `/` it belongs to the `${…}` around and is dropped.
//!
//! Matching walks the text once with the set of pattern positions that are
//! still possible, so its cost is the product of the two lengths, never more.

use super::expand::ExpandReason;

/// Steps one match may take; far beyond any real value, and milliseconds at most.
const MAX_STEPS: usize = 1 << 26;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Star,
    One,
    Char(char),
}

/// A parsed pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
}

/// Whether a `*` takes as little or as much as it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    Shortest,
    Longest,
}

impl Pattern {
    pub(super) fn parse(pattern: &str) -> Result<Self, ExpandReason> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::One,
                '\\' if matches!(chars.peek(), Some('}' | '/')) => continue,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\')) => Token::Char(c),
                    other => {
                        let found = other.map(String::from).unwrap_or_default();
                        return Err(ExpandReason::BadPattern {
                            pattern: pattern.to_owned(),
                            reason: format!("invalid escape '\\{found}'"),
                        });
                    }
                },
                c => Token::Char(c),
            });
        }
        Ok(Self { tokens })
    }

    /// Returns `value` without the start that matches.
    pub(super) fn strip_prefix(&self, value: &str, take: Take) -> Result<String, ExpandReason> {
        let chars: Vec<char> = value.chars().collect();
        self.check_size(chars.len())?;
        let end = find_end(&self.tokens, &chars, take).unwrap_or(0);
        Ok(chars[end..].iter().collect())
    }

    /// Returns `value` without the end that matches.
    pub(super) fn strip_suffix(&self, value: &str, take: Take) -> Result<String, ExpandReason> {
        let chars: Vec<char> = value.chars().rev().collect();
        self.check_size(chars.len())?;
        let tokens: Vec<Token> = self.tokens.iter().rev().copied().collect();
        let end = find_end(&tokens, &chars, take).unwrap_or(0);
        Ok(chars[end..].iter().rev().collect())
    }

    /// Returns `value` with the first match, the longest from its start, replaced as it is.
    pub(super) fn replace_first(
        &self,
        value: &str,
        replacement: &str,
    ) -> Result<String, ExpandReason> {
        let chars: Vec<char> = value.chars().collect();
        self.check_size(chars.len())?;
        let starts = self.starts(&chars);
        let Some((start, end)) = self.next_match(&chars, &starts, 0) else {
            return Ok(value.to_owned());
        };
        let mut out: String = chars[..start].iter().collect();
        out.push_str(replacement);
        out.extend(&chars[end..]);
        Ok(out)
    }

    /// Returns `value` with every match replaced.
    ///
    /// Here BuildKit hands the replacement to Go's `ReplaceAllString`, so `$0`
    /// in it (from a variable's value) stands for the match, `$$` for a dollar,
    /// and any other `$name` for nothing. We do the same.
    pub(super) fn replace_all(
        &self,
        value: &str,
        replacement: &str,
        limit: usize,
    ) -> Result<String, ExpandReason> {
        let chars: Vec<char> = value.chars().collect();
        self.check_size(chars.len())?;
        let starts = self.starts(&chars);
        let mut out = String::new();
        let mut at = 0;
        let mut last_end = None;
        while let Some((start, end)) = self.next_match(&chars, &starts, at) {
            // An empty match right behind a match does not count.
            if start < end || last_end != Some(start) {
                out.extend(&chars[last_end.unwrap_or(0)..start]);
                let matched: String = chars[start..end].iter().collect();
                push_template(&mut out, replacement, &matched);
                last_end = Some(end);
                if out.len() > limit {
                    return Err(ExpandReason::TooLong);
                }
            }
            at = if start < end { end } else { end + 1 };
        }
        out.extend(&chars[last_end.unwrap_or(0)..]);
        Ok(out)
    }

    fn next_match(&self, chars: &[char], starts: &[bool], from: usize) -> Option<(usize, usize)> {
        let start = from + starts.get(from..)?.iter().position(|can| *can)?;
        let length = find_end(&self.tokens, &chars[start..], Take::Longest)?;
        Some((start, start + length))
    }

    /// Returns for each position whether a match starts there, by walking
    /// backwards once. Trying every start forwards would cost the square.
    fn starts(&self, chars: &[char]) -> Vec<bool> {
        let tokens: Vec<Token> = self.tokens.iter().rev().copied().collect();
        let mut starts = vec![false; chars.len() + 1];
        let mut states = States::new(&tokens);
        starts[chars.len()] = states.accepts();
        for at in (0..chars.len()).rev() {
            states.step(chars[at]);
            states.restart();
            starts[at] = states.accepts();
        }
        starts
    }

    fn check_size(&self, chars: usize) -> Result<(), ExpandReason> {
        if self.tokens.len().saturating_mul(chars) > MAX_STEPS {
            return Err(ExpandReason::TooLong);
        }
        Ok(())
    }
}

/// Returns how much of the start of `chars` matches.
fn find_end(tokens: &[Token], chars: &[char], take: Take) -> Option<usize> {
    let mut states = States::new(tokens);
    let mut best = states.accepts().then_some(0);
    for (at, c) in chars.iter().enumerate() {
        if take == Take::Shortest && best.is_some() {
            break;
        }
        states.step(*c);
        if states.accepts() {
            best = Some(at + 1);
        }
        if states.is_dead() {
            break;
        }
    }
    best
}

/// The pattern positions possible after the text read so far.
struct States<'a> {
    tokens: &'a [Token],
    now: Vec<bool>,
    next: Vec<bool>,
}

impl<'a> States<'a> {
    fn new(tokens: &'a [Token]) -> Self {
        let mut states = Self {
            tokens,
            now: vec![false; tokens.len() + 1],
            next: vec![false; tokens.len() + 1],
        };
        states.restart();
        states
    }

    /// Lets a match start here too.
    fn restart(&mut self) {
        self.now[0] = true;
        self.skip_stars();
    }

    /// A `*` may take nothing.
    fn skip_stars(&mut self) {
        for (at, token) in self.tokens.iter().enumerate() {
            if self.now[at] && *token == Token::Star {
                self.now[at + 1] = true;
            }
        }
    }

    fn step(&mut self, c: char) {
        self.next.fill(false);
        for (at, token) in self.tokens.iter().enumerate() {
            if !self.now[at] {
                continue;
            }
            match token {
                Token::Star if c != '\n' => self.next[at] = true,
                Token::One if c != '\n' => self.next[at + 1] = true,
                Token::Char(want) if *want == c => self.next[at + 1] = true,
                Token::Star | Token::One | Token::Char(_) => {}
            }
        }
        std::mem::swap(&mut self.now, &mut self.next);
        self.skip_stars();
    }

    fn accepts(&self) -> bool {
        self.now[self.tokens.len()]
    }

    fn is_dead(&self) -> bool {
        !self.now.contains(&true)
    }
}

/// Appends `template` as Go's `Regexp.Expand` does, for a pattern without groups.
fn push_template(out: &mut String, template: &str, matched: &str) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (body, is_braced) = rest.strip_prefix('{').map_or((rest, false), |body| (body, true));
        let end = body.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(body.len());
        let is_closed = !is_braced || body[end..].starts_with('}');
        if end == 0 || !is_closed {
            out.push('$');
            continue;
        }
        if &body[..end] == "0" {
            out.push_str(matched);
        }
        rest = &body[end + usize::from(is_braced)..];
    }
    out.push_str(rest);
}

//! The regular expressions that moby makes of ignore patterns, matched in one walk.
//!
//! moby translates a pattern piece by piece without regard to brackets, and
//! leaves the result to Go's regexp. What patterns mean at their edges follows
//! from that: `[^a]` may be a slash, `\d` is a digit, `[*]` is a `[`, `^` or
//! `/` any number of times and then a `]`. We make the same translation, into
//! [`Token`]s, and read brackets and escapes as Go does.

use super::glob::BadPattern;

/// One step of the expression.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// One character of a set, or any number of them.
    Set {
        set: Set,
        repeats: bool,
    },
    /// `(.*/)?`: any number of path parts. Takes two places: a start, and [`Token::DirsLoop`].
    Dirs,
    DirsLoop,
    /// `^` or `\A`.
    Start,
    /// `\z`.
    End,
    /// `\b`, or `\B` if false.
    Boundary(bool),
}

/// A set of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Set {
    ranges: Vec<(char, char)>,
    is_negated: bool,
}

impl Set {
    fn not(c: char) -> Self {
        Self { ranges: vec![(c, c)], is_negated: true }
    }

    fn contains(&self, c: char) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != self.is_negated
    }
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Regex {
    tokens: Vec<Token>,
    /// What every match starts and ends with: most paths need no more than this.
    prefix: String,
    suffix: String,
}

impl Regex {
    /// Translates an ignore pattern.
    pub(super) fn from_pattern(pattern: &str) -> Result<Self, BadPattern> {
        let tokens = parse(&translate(pattern))?;
        let literal = |token: &Token| match token {
            Token::Char(c) => Some(*c),
            Token::Set { .. }
            | Token::Dirs
            | Token::DirsLoop
            | Token::Start
            | Token::End
            | Token::Boundary(_) => None,
        };
        let prefix = tokens.iter().map_while(literal).collect();
        let suffix: String = tokens.iter().rev().map_while(literal).collect();
        Ok(Self { prefix, suffix: suffix.chars().rev().collect(), tokens })
    }

    /// Returns whether the whole of `path` matches.
    pub(super) fn matches(&self, path: &str) -> bool {
        if !path.starts_with(&self.prefix) || !path.ends_with(&self.suffix) {
            return false;
        }
        let count = self.tokens.len();
        let mut now = vec![false; count + 1];
        let mut next = vec![false; count + 1];
        let mut before = None;
        let mut chars = path.chars();
        now[0] = true;
        loop {
            let after = chars.next();
            self.skip(&mut now, before, after);
            let Some(c) = after else { return now[count] };
            next.fill(false);
            for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| now[*at]) {
                match token {
                    Token::Char(want) => next[at + 1] |= *want == c,
                    Token::Set { set, repeats } if set.contains(c) => {
                        next[at + usize::from(!repeats)] = true;
                    }
                    Token::DirsLoop => {
                        next[at] |= c != '\n';
                        next[at + 1] |= c == '/';
                    }
                    Token::Set { .. }
                    | Token::Dirs
                    | Token::Start
                    | Token::End
                    | Token::Boundary(_) => {}
                }
            }
            if !next.contains(&true) {
                return false;
            }
            std::mem::swap(&mut now, &mut next);
            before = Some(c);
        }
    }

    /// Passes the tokens that take no character between `before` and `after`.
    fn skip(&self, now: &mut [bool], before: Option<char>, after: Option<char>) {
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        for (at, token) in self.tokens.iter().enumerate() {
            if !now[at] {
                continue;
            }
            match token {
                Token::Set { repeats: true, .. } => now[at + 1] = true,
                Token::Dirs => {
                    now[at + 1] = true;
                    now[at + 2] = true;
                }
                Token::Start => now[at + 1] |= before.is_none(),
                Token::End => now[at + 1] |= after.is_none(),
                Token::Boundary(wanted) => {
                    now[at + 1] |= (is_word(before) != is_word(after)) == *wanted;
                }
                Token::Char(_) | Token::Set { repeats: false, .. } | Token::DirsLoop => {}
            }
        }
    }
}

/// A piece of the translation: text for the expression, or a token of its own.
enum Piece {
    Text(char),
    Escaped(char),
    Token(Token),
}

/// Makes moby's translation. `*` and `?` come out as text, `[^/]*` and `[^/]`,
/// because inside brackets the text counts and not what was meant.
fn translate(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                // `**/` is `**`.
                chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    pieces.push(Piece::Token(Token::Dirs));
                } else {
                    let set = Set::not('\n');
                    pieces.push(Piece::Token(Token::Set { set, repeats: true }));
                }
            }
            '*' => pieces.extend("[^/]*".chars().map(Piece::Text)),
            '?' => pieces.extend("[^/]".chars().map(Piece::Text)),
            '\\' => pieces.extend(chars.next().map(Piece::Escaped)),
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => pieces.push(Piece::Escaped(c)),
            c => pieces.push(Piece::Text(c)),
        }
    }
    pieces
}

/// Reads the translation as Go's regexp does.
fn parse(pieces: &[Piece]) -> Result<Vec<Token>, BadPattern> {
    let mut tokens = Vec::new();
    let mut rest = pieces;
    while let Some((piece, after)) = rest.split_first() {
        rest = after;
        match piece {
            Piece::Token(Token::Dirs) => tokens.extend([Token::Dirs, Token::DirsLoop]),
            Piece::Token(token) => tokens.push(token.clone()),
            Piece::Text('^') => tokens.push(Token::Start),
            Piece::Text('[') => {
                let (set, after) = parse_class(rest)?;
                rest = after;
                tokens.push(Token::Set { set, repeats: false });
            }
            // A star in the translation stands behind a class, its own or,
            // inside brackets, the one that its class ended.
            Piece::Text('*') => match tokens.last_mut() {
                Some(Token::Set { repeats, .. }) => *repeats = true,
                _ => return Err(BadPattern),
            },
            Piece::Text(c) => tokens.push(Token::Char(*c)),
            Piece::Escaped(c) => tokens.push(match (c, ascii_class(*c)) {
                ('b' | 'B', _) => Token::Boundary(*c == 'b'),
                ('A', _) => Token::Start,
                ('z', _) => Token::End,
                (_, Some(set)) => Token::Set { set, repeats: false },
                (_, None) => Token::Char(escaped_char(*c)?),
            }),
        }
    }
    Ok(tokens)
}

/// Reads a class whose `[` is read. Rejoined stars and dirs inside brackets
/// that cannot be text are refused.
fn parse_class(pieces: &[Piece]) -> Result<(Set, &[Piece]), BadPattern> {
    let mut rest = pieces;
    let mut set = Set { ranges: Vec::new(), is_negated: false };
    if let [Piece::Text('^'), after @ ..] = rest {
        set.is_negated = true;
        rest = after;
    }
    let mut is_first = true;
    loop {
        match rest {
            [] => return Err(BadPattern),
            [Piece::Text(']'), after @ ..] if !is_first => return Ok((set, after)),
            [Piece::Text('['), Piece::Text(':'), ..] => {
                // `[:alpha:]` and its kind: nobody writes them here, and what
                // looks like one is more likely a slip.
                return Err(BadPattern);
            }
            [Piece::Escaped(c), after @ ..] if ascii_class(*c).is_some() => {
                let class = ascii_class(*c).ok_or(BadPattern)?;
                set.ranges.extend(if class.is_negated {
                    invert(&class.ranges)
                } else {
                    class.ranges
                });
                rest = after;
            }
            _ => {
                let (low, after) = class_char(rest)?;
                rest = after;
                let high = match rest {
                    [Piece::Text('-'), next, ..] if !matches!(next, Piece::Text(']')) => {
                        let (high, after) = class_char(&rest[1..])?;
                        rest = after;
                        high
                    }
                    _ => low,
                };
                if high < low {
                    return Err(BadPattern);
                }
                set.ranges.push((low, high));
            }
        }
        is_first = false;
    }
}

fn class_char(pieces: &[Piece]) -> Result<(char, &[Piece]), BadPattern> {
    match pieces {
        [Piece::Text(c), rest @ ..] => Ok((*c, rest)),
        [Piece::Escaped(c), rest @ ..] => Ok((escaped_char(*c)?, rest)),
        [Piece::Token(_), ..] | [] => Err(BadPattern),
    }
}

/// Escapes of letters and digits that Go does not know are errors there; of
/// those it knows and nobody means (`\x`, `\p`, `\Q`, octal) we make errors too.
fn escaped_char(c: char) -> Result<char, BadPattern> {
    match c {
        'a' => Ok('\u{7}'),
        'f' => Ok('\u{c}'),
        't' => Ok('\t'),
        'n' => Ok('\n'),
        'r' => Ok('\r'),
        'v' => Ok('\u{b}'),
        c if c.is_ascii_punctuation() => Ok(c),
        _ => Err(BadPattern),
    }
}

/// `\d`, `\s`, `\w`, and their opposites in capitals.
fn ascii_class(c: char) -> Option<Set> {
    let ranges = match c.to_ascii_lowercase() {
        'd' => vec![('0', '9')],
        's' => vec![('\t', '\n'), ('\u{c}', '\r'), (' ', ' ')],
        'w' => vec![('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        _ => return None,
    };
    Some(Set { ranges, is_negated: c.is_ascii_uppercase() })
}

/// The characters between sorted ranges.
fn invert(ranges: &[(char, char)]) -> Vec<(char, char)> {
    let mut gaps = Vec::new();
    let mut from = 0;
    for (low, high) in ranges {
        if let (Some(start), Some(end)) =
            (char::from_u32(from), u32::from(*low).checked_sub(1).and_then(char::from_u32))
            && start <= end
        {
            gaps.push((start, end));
        }
        from = u32::from(*high) + 1;
    }
    gaps.extend(char::from_u32(from).map(|start| (start, char::MAX)));
    gaps
}

//! `--chmod`: octal, or symbolic as `chmod(1)` and BuildKit have it.

use crate::error::{Error, Result};

/// What `--chmod` does to a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// Sets it.
    Octal(u32),
    /// Changes it, clause by clause.
    Symbolic(Vec<Clause>),
}

/// One `ug+rwx` of a symbolic mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Whom it is about: bits of 0o700, 0o070 and 0o007.
    who: u32,
    /// `+`, `-` or `=`.
    operator: char,
    /// What is given or taken.
    what: What,
}

/// The right side of a clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// r, w, x as bits of one digit; X; s; t.
    Bits { rwx: u32, conditional_x: bool, set_id: bool, sticky: bool },
    /// The bits that user, group or others have: by how much to shift.
    CopyOf(u32),
}

impl Chmod {
    /// Reads the value of a `--chmod`.
    ///
    /// # Errors
    /// Returns [`Error::Instruction`] with BuildKit's text.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = || {
            Error::Instruction(format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            ))
        };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| invalid())?;
            return if mode <= 0o7777 { Ok(Self::Octal(mode)) } else { Err(invalid()) };
        }
        let clauses: Option<Vec<Vec<Clause>>> = text.split(',').map(clauses).collect();
        let clauses: Vec<Clause> = clauses.ok_or_else(invalid)?.into_iter().flatten().collect();
        if clauses.is_empty() { Err(invalid()) } else { Ok(Self::Symbolic(clauses)) }
    }

    /// Returns the mode that a file of mode `mode` gets.
    #[must_use]
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => {
                clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_dir))
            }
        }
    }

    /// Returns the mode of directories that the copy has to create.
    #[must_use]
    pub fn created_directory(&self) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(_) => 0o755,
        }
    }
}

impl Clause {
    fn apply(self, mode: u32, is_dir: bool) -> u32 {
        let bits = match self.what {
            What::CopyOf(shift) => (((mode >> shift) & 0o7) * 0o111) & self.who,
            What::Bits { rwx, conditional_x, set_id, sticky } => {
                let has_x = conditional_x && (is_dir || mode & 0o111 != 0);
                let mut bits = ((rwx | u32::from(has_x)) * 0o111) & self.who;
                if set_id {
                    bits |= if self.who & 0o700 != 0 { 0o4000 } else { 0 };
                    bits |= if self.who & 0o070 != 0 { 0o2000 } else { 0 };
                }
                bits | if sticky { 0o1000 } else { 0 }
            }
        };
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => {
                let special = if self.who & 0o700 != 0 { 0o4000 } else { 0 }
                    | if self.who & 0o070 != 0 { 0o2000 } else { 0 };
                mode & !(self.who | special) | bits
            }
        }
    }
}

/// Reads `ug+rw-x`: one list of people, any number of operations.
fn clauses(text: &str) -> Option<Vec<Clause>> {
    let people = text.find(['+', '-', '='])?;
    let mut who = 0;
    for c in text[..people].chars() {
        who |= match c {
            'u' => 0o700,
            'g' => 0o070,
            'o' => 0o007,
            'a' => 0o777,
            _ => return None,
        };
    }
    // Nobody named means everybody; the caller's umask does not reach an image.
    let who = if who == 0 { 0o777 } else { who };
    let mut found = Vec::new();
    let mut rest = &text[people..];
    while let Some(operator) = rest.chars().next() {
        rest = &rest[operator.len_utf8()..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        found.push(Clause { who, operator, what: what(&rest[..end])? });
        rest = &rest[end..];
    }
    Some(found)
}

fn what(text: &str) -> Option<What> {
    match text {
        "u" => return Some(What::CopyOf(6)),
        "g" => return Some(What::CopyOf(3)),
        "o" => return Some(What::CopyOf(0)),
        _ => {}
    }
    let (mut rwx, mut conditional_x, mut set_id, mut sticky) = (0, false, false, false);
    for c in text.chars() {
        match c {
            'r' => rwx |= 4,
            'w' => rwx |= 2,
            'x' => rwx |= 1,
            'X' => conditional_x = true,
            's' => set_id = true,
            't' => sticky = true,
            _ => return None,
        }
    }
    Some(What::Bits { rwx, conditional_x, set_id, sticky })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_chmod_changes_them() {
        let table = [
            ("644", 0o777, false, 0o644),
            ("04755", 0o600, false, 0o4755),
            ("0", 0o600, false, 0),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("go=r", 0o777, false, 0o744),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o711, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("g=u", 0o740, false, 0o770),
            ("u+s,+t", 0o755, false, 0o5755),
            ("ug=rw-x", 0o751, false, 0o661),
            ("u=", 0o4755, false, 0o055),
        ];
        for (text, mode, is_dir, expected) in table {
            let found = Chmod::parse(text).unwrap().apply(mode, is_dir);
            assert_eq!(found, expected, "{text} on {mode:o}: {found:o}");
        }
    }

    #[test]
    fn other_texts_are_refused_in_buildkits_words() {
        for text in ["999", "10000", "", "u", "x+r", "u+q", "-1x", "8"] {
            let error = Chmod::parse(text).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
                )
            );
        }
    }
}

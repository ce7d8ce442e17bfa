//! The words of a change, by the rules of Dockerfiles: quotes, backslashes and
//! variables.

/// Looks up a variable.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Splits a text at blanks outside of quotes, and puts the values of variables
/// in the places of `$NAME` and `${NAME}`. One that is not set is empty.
///
/// # Errors
///
/// A sentence saying which quote or brace has no end, or what is not understood.
pub(super) fn split(text: &str, lookup: Lookup<'_>) -> Result<Vec<String>, String> {
    let mut splitter = Splitter { rest: text.chars().collect::<Vec<_>>(), at: 0, lookup };
    let mut words = Vec::new();
    while let Some(word) = splitter.word()? {
        words.push(word);
    }
    Ok(words)
}

struct Splitter<'a> {
    rest: Vec<char>,
    at: usize,
    lookup: Lookup<'a>,
}

impl Splitter<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.get(self.at).copied();
        self.at += usize::from(next.is_some());
        next
    }

    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn word(&mut self) -> Result<Option<String>, String> {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        if self.peek().is_none() {
            return Ok(None);
        }
        let mut word = String::new();
        while let Some(c) = self.peek().filter(|c| !c.is_whitespace()) {
            self.at += 1;
            match c {
                '\'' => self.single(&mut word)?,
                '"' => self.double(&mut word)?,
                '\\' => word.extend(self.next()),
                '$' => self.variable(&mut word)?,
                c => word.push(c),
            }
        }
        Ok(Some(word))
    }

    fn single(&mut self, word: &mut String) -> Result<(), String> {
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(c) => word.push(c),
                None => return Err("a ' has no end".to_owned()),
            }
        }
    }

    fn double(&mut self, word: &mut String) -> Result<(), String> {
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some('\\') if matches!(self.peek(), Some('"' | '\\' | '$')) => {
                    word.extend(self.next());
                }
                Some('$') => self.variable(word)?,
                Some(c) => word.push(c),
                None => return Err("a \" has no end".to_owned()),
            }
        }
    }

    fn variable(&mut self, word: &mut String) -> Result<(), String> {
        let is_braced = self.peek() == Some('{');
        self.at += usize::from(is_braced);
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            self.at += 1;
        }
        let name: String = self.rest[start..self.at].iter().collect();
        if is_braced && (name.is_empty() || self.next() != Some('}')) {
            return Err("only variables such as $NAME and ${NAME} are understood".to_owned());
        }
        if name.is_empty() {
            word.push('$');
        } else {
            word.push_str(&(self.lookup)(&name).unwrap_or_default());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_backslashes_and_variables() {
        let lookup = |name: &str| (name == "A").then(|| "x y".to_owned());
        for (text, expected) in [
            ("", &[][..]),
            (" a  b\tc ", &["a", "b", "c"]),
            ("k='a $A' \"b $A\"", &["k=a $A", "b x y"]),
            ("$A ${A}z $B| $", &["x y", "x yz", "|", "$"]),
            (r#"a\ b "\"\$A\n""#, &["a b", "\"$A\\n"]),
            ("'' \"\"", &["", ""]),
        ] {
            assert_eq!(split(text, &lookup).unwrap(), expected, "{text}");
        }
        for text in ["'a", "\"a", "${A", "${}", "${A:-b}"] {
            assert!(split(text, &lookup).is_err(), "accepted {text}");
        }
    }
}

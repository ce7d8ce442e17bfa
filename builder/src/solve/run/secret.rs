//! Secrets: where they are, and keeping them out of what a build says.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use sandbox::SecretBytes;

use crate::error::{Error, IoContext as _, Result};

/// The longest secret, BuildKit's limit.
const MAX_SECRET_BYTES: u64 = 500 * 1024;
/// Shorter lines of a secret are not looked for in the output: they would be found everywhere.
const LEAST_MASKED: usize = 4;
/// What stands for a secret in the output.
const MASK: &[u8] = b"***";

/// The secrets that the user gave, by id.
#[derive(Clone, Debug, Default)]
pub struct Secrets(BTreeMap<String, SecretSource>);

/// Where a secret is.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// In a file, which is read when a step needs it.
    File(PathBuf),
    /// Here; it was in a variable.
    Value(SecretBytes),
}

impl Secrets {
    /// Adds one; a later one of the same id wins.
    pub fn insert(&mut self, id: &str, source: SecretSource) {
        self.0.insert(id.to_owned(), source);
    }

    /// Returns a secret's content, or `None` when the user did not give it.
    ///
    /// # Errors
    /// Fails when its file cannot be read or is too large.
    pub(super) fn get(&self, id: &str) -> Result<Option<SecretBytes>> {
        let path = match self.0.get(id) {
            None => return Ok(None),
            Some(SecretSource::Value(value)) => return Ok(Some(value.clone())),
            Some(SecretSource::File(path)) => path,
        };
        let file = File::open(path).doing("read the secret", path)?;
        let mut content = Vec::new();
        file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut content).doing("read the secret", path)?;
        if content.len() as u64 > MAX_SECRET_BYTES {
            return Err(Error::Instruction(format!("secret {id} too big. max size 500KB")));
        }
        Ok(Some(SecretBytes::new(content)))
    }
}

/// The lines of a step's secrets, to be covered wherever its output has them.
#[derive(Debug, Default)]
pub(super) struct Mask(Vec<SecretBytes>);

impl Mask {
    pub(super) fn new(secrets: &[SecretBytes]) -> Self {
        let mut lines: Vec<Vec<u8>> = Vec::new();
        for secret in secrets {
            for line in secret.expose().split(|byte| *byte == b'\n') {
                let line = line.trim_ascii();
                if line.len() >= LEAST_MASKED {
                    lines.push(line.to_vec());
                }
            }
        }
        // The longest first, so that no part of it is left when a shorter one is in it.
        lines.sort_by_key(|line| std::cmp::Reverse(line.len()));
        lines.dedup();
        Self(lines.into_iter().map(SecretBytes::new).collect())
    }

    /// Covers the secrets in a line of output.
    pub(super) fn apply(&self, line: &mut Vec<u8>) {
        for secret in &self.0 {
            let secret = secret.expose();
            let mut from = 0;
            while let Some(at) = find(&line[from..], secret) {
                let start = from + at;
                line.splice(start..start + secret.len(), MASK.iter().copied());
                from = start + MASK.len();
            }
        }
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_covered_in_output_whole_and_line_by_line() {
        let secret = |text: &str| SecretBytes::new(text.as_bytes().to_vec());
        let mask = Mask::new(&[
            secret("token-12\n"),
            secret("abcd\r\nefghij\nxy\n\n"),
            secret("token-1234"),
        ]);
        let covered = |text: &str| {
            let mut line = text.as_bytes().to_vec();
            mask.apply(&mut line);
            String::from_utf8(line).unwrap()
        };
        assert_eq!(covered("a token-12, token-12!"), "a ***, ***!");
        assert_eq!(covered("token-1234"), "***");
        assert_eq!(covered("abcd efghij xy"), "*** *** xy");
        assert_eq!(covered("nothing"), "nothing");
    }

    #[test]
    fn secrets_are_read_when_they_are_needed_and_have_a_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let mut secrets = Secrets::default();
        assert!(secrets.get("a").unwrap().is_none());
        secrets.insert("a", SecretSource::File(path.clone()));
        assert!(secrets.get("a").is_err(), "given, but not there");
        std::fs::write(&path, vec![b'x'; 500 * 1024]).unwrap();
        assert_eq!(secrets.get("a").unwrap().unwrap().expose().len(), 500 * 1024);
        std::fs::write(&path, vec![b'x'; 500 * 1024 + 1]).unwrap();
        let error = secrets.get("a").unwrap_err().to_string();
        assert_eq!(error, "secret a too big. max size 500KB");
        assert!(!format!("{secrets:?}").contains("xxx"));
    }
}

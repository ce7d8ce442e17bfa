//! Users and their passwords: a file in the form of Apache's `htpasswd`.
//!
//! ```text
//! # name:hash
//! alice:$argon2id$v=19$m=19456,t=2,p=1$…
//! bob:$2y$10$…
//! ```
//!
//! Checking a password is made to be slow. So what was found right is remembered
//! for a while as a keyed hash, few are checked at once, and whoever comes while
//! many wait is told to come back.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use ring::hmac;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How many passwords are checked at once. Argon2 takes 19 MiB and a processor
/// for each.
const MAX_CHECKS: usize = 2;

/// How many may wait for that.
const MAX_WAITING: usize = 64;

/// How long a right password is remembered.
const REMEMBER: Duration = Duration::from_secs(600);

/// How many right passwords are remembered.
const MAX_REMEMBERED: usize = 4096;

/// How long a password may be, in bytes.
pub(crate) const MAX_PASSWORD_BYTES: usize = 1024;

/// How long a name may be, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// The name of a user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

impl UserName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that is no user's name.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is no user's name: it has up to {MAX_NAME_BYTES} bytes, no blank, no colon and no @ at its beginning"
)]
pub struct InvalidName(String);

impl FromStr for UserName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_name = !text.is_empty()
            && text.len() <= MAX_NAME_BYTES
            && !text.starts_with(['@', '#'])
            && !text.contains(|c: char| c == ':' || c.is_whitespace() || c.is_control());
        match is_name {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidName(text.to_owned())),
        }
    }
}

/// A line of a file of users that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {reason}")]
pub(crate) struct InvalidUsers {
    line: usize,
    reason: String,
}

/// The hash of a password.
#[derive(Clone)]
enum Hash {
    Argon2(String),
    Bcrypt(String),
}

impl Hash {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.starts_with("$argon2") {
            return match PasswordHash::new(text) {
                Ok(hash) if hash.hash.is_some() => Ok(Self::Argon2(text.to_owned())),
                _ => Err("the argon2 hash is broken"),
            };
        }
        if ["$2a$", "$2b$", "$2y$"].iter().any(|start| text.starts_with(start)) {
            return match text.parse::<bcrypt::HashParts>() {
                Ok(_) => Ok(Self::Bcrypt(text.to_owned())),
                Err(_) => Err("the bcrypt hash is broken"),
            };
        }
        Err("passwords are hashed by argon2 (`rregistry user add`) or bcrypt (`htpasswd -B`)")
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Argon2(text) | Self::Bcrypt(text) => text,
        }
    }

    /// Takes a processor for a while.
    fn verify(&self, password: &str) -> bool {
        match self {
            Self::Argon2(hash) => PasswordHash::new(hash).is_ok_and(|hash| {
                Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
            }),
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
        }
    }
}

/// Returns the hash of a new password, as a file of users holds it.
///
/// # Errors
/// When argon2 refuses the password.
pub(crate) fn hash_password(password: &str, salt: &[u8; 16]) -> anyhow::Result<String> {
    // The second of OWASP's recommended sets: 19 MiB, two passes.
    let params = Params::new(19 * 1024, 2, 1, None).map_err(|error| anyhow::anyhow!("{error}"))?;
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_with_salt(password.as_bytes(), salt)
        .map_err(|error| anyhow::anyhow!("the password cannot be hashed: {error}"))?;
    Ok(hash.to_string())
}

/// Too many passwords are being checked.
#[derive(Debug)]
pub(crate) struct Busy;

/// All users.
pub(crate) struct Users {
    hashes: BTreeMap<UserName, Hash>,
    /// Right passwords by their keyed hash, and until when they count.
    remembered: Mutex<BTreeMap<[u8; 32], Instant>>,
    key: hmac::Key,
    checks: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("count", &self.hashes.len()).finish_non_exhaustive()
    }
}

impl Users {
    /// Parses a file of users; `secret` is random.
    ///
    /// # Errors
    /// [`InvalidUsers`] names the first line that cannot be used.
    pub(crate) fn parse(text: &str, secret: &[u8; 32]) -> Result<Self, InvalidUsers> {
        let mut hashes = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let invalid = |reason: String| InvalidUsers { line: index + 1, reason };
            let (name, hash) =
                line.split_once(':').ok_or_else(|| invalid("there is no colon".to_owned()))?;
            let name: UserName =
                name.parse().map_err(|error: InvalidName| invalid(error.to_string()))?;
            let hash = Hash::parse(hash).map_err(|reason| invalid(reason.to_owned()))?;
            if hashes.contains_key(&name) {
                return Err(invalid(format!("{name} has a line already")));
            }
            hashes.insert(name, hash);
        }
        Ok(Self {
            hashes,
            remembered: Mutex::default(),
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            checks: Arc::new(Semaphore::new(MAX_CHECKS)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        })
    }

    /// Returns how many users there are.
    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Returns whether there is that user.
    pub(crate) fn contains(&self, user: &UserName) -> bool {
        self.hashes.contains_key(user)
    }

    /// Returns the user whose name and password these are.
    pub(crate) async fn verify(
        &self,
        name: &str,
        password: &str,
    ) -> Result<Option<UserName>, Busy> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Ok(None);
        }
        let known = name.parse::<UserName>().ok().filter(|name| self.hashes.contains_key(name));
        // A name that nobody has takes as long as a wrong password.
        let hash = match &known {
            Some(name) => self.hashes.get(name),
            None => self.hashes.values().next(),
        };
        let Some(hash) = hash.cloned() else { return Ok(None) };
        let mark = self.mark(name, &hash, password);
        if self.is_remembered(&mark) {
            return Ok(known);
        }
        let _waiting = self.waiting.try_acquire().map_err(|_| Busy)?;
        let check = Arc::clone(&self.checks).acquire_owned().await.map_err(|_| Busy)?;
        let password = password.to_owned();
        let verified = tokio::task::spawn_blocking(move || {
            let is_right = hash.verify(&password);
            drop(check);
            is_right
        });
        let is_right = verified.await.map_err(|_| Busy)?;
        let user = known.filter(|_| is_right);
        if user.is_some() {
            self.remember(mark);
        }
        Ok(user)
    }

    fn mark(&self, name: &str, hash: &Hash, password: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [name, hash.as_str(), password] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut mark = [0; 32];
        mark.copy_from_slice(context.sign().as_ref());
        mark
    }

    fn is_remembered(&self, mark: &[u8; 32]) -> bool {
        let remembered = self.remembered.lock().expect("nothing panics while it holds the lock");
        remembered.get(mark).is_some_and(|until| *until > Instant::now())
    }

    fn remember(&self, mark: [u8; 32]) {
        let now = Instant::now();
        let mut remembered =
            self.remembered.lock().expect("nothing panics while it holds the lock");
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, until| *until > now);
        }
        if remembered.len() < MAX_REMEMBERED {
            remembered.insert(mark, now + REMEMBER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &str) -> Result<Users, InvalidUsers> {
        Users::parse(text, &[7; 32])
    }

    fn with(name: &str, password: &str) -> String {
        format!("{name}:{}", hash_password(password, &[3; 16]).unwrap())
    }

    fn bcrypt(name: &str, password: &str) -> String {
        let hash = bcrypt::hash_with_salt(password, 4, [5; 16]).unwrap();
        format!("{name}:{}", hash.format_for_version(bcrypt::Version::TwoY))
    }

    #[tokio::test]
    async fn both_kinds_of_hashes_are_checked() {
        let text =
            format!("# people\n\n{}\n{}\n", with("alice", "wonder"), bcrypt("bob", "hunter2"));
        let users = users(&text).unwrap();
        assert_eq!(users.len(), 2);
        for (name, password, expected) in [
            ("alice", "wonder", true),
            ("alice", "hunter2", false),
            ("alice", "", false),
            ("bob", "hunter2", true),
            ("bob", "hunter2 ", false),
            ("carol", "wonder", false),
            ("carol", "hunter2", false),
            ("", "wonder", false),
            ("@users", "wonder", false),
        ] {
            // Twice: what is remembered is as good, and only for the same name.
            for _ in 0..2 {
                let verified = users.verify(name, password).await.unwrap();
                assert_eq!(verified.is_some(), expected, "{name} {password}");
                assert!(verified.is_none_or(|user| user.as_str() == name));
            }
        }
    }

    #[tokio::test]
    async fn nobody_gets_in_where_there_is_nobody() {
        let users = users("").unwrap();
        assert!(users.verify("alice", "").await.unwrap().is_none());
    }

    #[test]
    fn weak_hashes_and_broken_lines_are_refused() {
        for (text, expected) in [
            ("alice", "line 1: there is no colon"),
            ("# people\nalice:secret", "line 2: passwords are hashed by argon2"),
            ("alice:$apr1$aaaaaaaa$bbbbbbbbbbbbbbbbbbbbbb", "line 1: passwords are hashed by"),
            ("alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "line 1: passwords are hashed by"),
            ("alice:$2y$05$short", "line 1: the bcrypt hash is broken"),
            ("alice:$argon2id$v=19$m=1", "line 1: the argon2 hash is broken"),
            ("@users:$2y$05$short", "line 1: \"@users\" is no user's name"),
            ("al ice:$2y$05$short", "line 1: \"al ice\" is no user's name"),
        ] {
            let error = users(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        let twice = format!("{}\n{}\n", with("alice", "a"), with("alice", "b"));
        assert_eq!(users(&twice).unwrap_err().to_string(), "line 2: alice has a line already");
    }

    /// CVE-2025-48374: what is printed for debugging has no hashes.
    #[test]
    fn debugging_shows_no_hash() {
        let shown = format!("{:?}", users(&with("alice", "wonder")).unwrap());
        assert!(!shown.contains("argon2"), "{shown}");
    }
}

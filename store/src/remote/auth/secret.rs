//! Passwords and tokens.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A password or token, whose `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text that nobody should see.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text, to be sent or stored where it belongs.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What proves to a registry who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password, or an access token used as one.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token, which the token server changes for access tokens ("identity token").
    IdentityToken(Secret),
    /// An access token that is sent as it is ("registry token").
    AccessToken(Secret),
}

impl Credential {
    /// Returns a user and a password.
    #[must_use]
    pub fn password(username: &str, password: &str) -> Self {
        Self::Password { username: username.to_owned(), password: Secret::new(password) }
    }

    /// Returns the value of an `Authorization` header for Basic authentication.
    pub(super) fn basic(username: &str, password: &Secret) -> Secret {
        let pair = STANDARD.encode(format!("{username}:{}", password.reveal()));
        Secret(format!("Basic {pair}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let credential = Credential::password("joe", "hunter2");
        let text =
            format!("{credential:?} {:?}", Credential::IdentityToken(Secret::new("hunter2")));
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("joe"), "{text}");
    }

    #[test]
    fn basic_is_base64_of_user_and_password() {
        let header = Credential::basic("Aladdin", &Secret::new("open sesame"));
        assert_eq!(header.reveal(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }
}

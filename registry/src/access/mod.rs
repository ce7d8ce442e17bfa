//! Who may do what.
//!
//! ```text
//! header ─► identify ─► Caller ─► decide(repository, action) ─► Decision
//!            ├─ users     names and passwords (htpasswd)    └─ policies
//!            ├─ tokens    our own (docker's token specification)
//!            └─ issuers   other people's, checked by their published keys
//! ```
//!
//! # Invariants
//!
//! - Credentials that are wrong are refused; they never become a caller without
//!   a name.
//! - What no policy allows is refused. A token of ours only narrows what the
//!   policies give; a token of an issuer that the operator named is taken at its
//!   word.

mod issuers;
mod jws;
mod policy;
mod scope;
mod tokens;
mod users;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use oci::Repository;
use schemars::JsonSchema;
use serde::Deserialize;

use issuers::Issuer;
pub use issuers::IssuerConfig;
pub use policy::Policy;
pub use scope::Action;
pub(crate) use scope::{MAX_SCOPES, Scope};
pub(crate) use tokens::Tokens;
pub use users::UserName;
pub(crate) use users::{MAX_PASSWORD_BYTES, Users, hash_password};

/// The name of the registry in tokens, when the configuration has none.
const DEFAULT_SERVICE: &str = "rregistry";

/// The shortest secret for tokens: as long as what HS256 makes of it.
const MIN_SECRET_BYTES: usize = 32;

/// The largest file of users or keys.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Who may do what, as the configuration says it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AccessConfig {
    /// The file of users and the hashes of their passwords, in the form of
    /// `htpasswd -B`; `rregistry user add` writes it.
    pub users_file: Option<PathBuf>,
    /// What is allowed; all else is refused.
    pub policies: Vec<Policy>,
    /// The tokens that this registry gives to clients.
    pub tokens: TokensConfig,
    /// Whose tokens are accepted as well.
    pub issuers: Vec<IssuerConfig>,
}

/// The tokens that the registry gives.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TokensConfig {
    /// The registry's name in tokens; `rregistry` when not given.
    pub service: Option<String>,
    /// Where clients get tokens: the address of this registry's `/token` as they
    /// see it. When not given, it is made of the host that they asked for.
    pub realm: Option<String>,
    /// How long a token counts, in seconds, at least 60; 300 when not given.
    pub lifetime_seconds: Option<u64>,
    /// A file with at least 32 random bytes that sign the tokens. Replicas share
    /// one; when not given, each process makes its own.
    pub key_file: Option<PathBuf>,
}

/// Somebody who asks for something.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// `None` for somebody without a name.
    user: Option<UserName>,
    /// Who it is, for logs and for the ownership of uploads.
    principal: String,
    authority: Authority,
}

/// Where a caller's rights come from.
#[derive(Clone, Debug)]
enum Authority {
    /// The policies.
    Policies,
    /// The policies, as far as a token of ours goes.
    Token(Vec<Scope>),
    /// A token of somebody whom the operator trusts.
    Issuer(Vec<Scope>),
}

impl Caller {
    fn with_password(user: UserName) -> Self {
        let principal = user.to_string();
        Self { user: Some(user), principal, authority: Authority::Policies }
    }

    fn with_token(user: Option<UserName>, scopes: Vec<Scope>) -> Self {
        let principal = user.as_ref().map(ToString::to_string).unwrap_or_default();
        Self { user, principal, authority: Authority::Token(scopes) }
    }

    fn of_issuer(issuer: &str, subject: &str, scopes: Vec<Scope>) -> Self {
        let principal = format!("{subject}@{issuer}");
        Self { user: None, principal, authority: Authority::Issuer(scopes) }
    }

    /// Somebody who showed nothing.
    pub(crate) fn nobody() -> Self {
        Self { user: None, principal: String::new(), authority: Authority::Policies }
    }

    /// Whether the caller showed nothing, not even a token.
    pub(crate) fn is_nobody(&self) -> bool {
        self.principal.is_empty() && matches!(self.authority, Authority::Policies)
    }

    /// Whether the caller has a name.
    pub(crate) fn is_named(&self) -> bool {
        !self.principal.is_empty()
    }

    /// Returns who it is, `""` for nobody.
    pub(crate) fn principal(&self) -> &str {
        &self.principal
    }

    /// Returns the user that a password or a token of ours showed.
    pub(crate) fn user(&self) -> Option<&UserName> {
        self.user.as_ref()
    }
}

/// Why somebody is not let in at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Name or password are wrong.
    InvalidPassword {
        /// The name, if a user has it. Any other may be a password that was typed
        /// into the wrong field, and is not for a log.
        tried: Option<UserName>,
    },
    /// The token is forged, over, or for somebody else.
    InvalidToken,
    /// The header has no form that is known.
    InvalidHeader,
    /// Too many passwords are being checked.
    Busy,
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Allowed,
    /// Another token would do.
    NeedsScope,
    Denied,
}

/// Who may do what.
#[derive(Debug)]
pub struct Access {
    users: Option<Users>,
    policies: Vec<Policy>,
    tokens: Tokens,
    realm: Option<String>,
    issuers: Vec<Arc<Issuer>>,
}

impl Access {
    /// Reads what the configuration names, relative to `directory`. `secret` is
    /// random: it signs tokens where no file does.
    ///
    /// # Errors
    /// When a file cannot be read or used; nothing is then to be served.
    pub fn load(
        config: &AccessConfig,
        directory: &Path,
        secret: &[u8; 32],
    ) -> anyhow::Result<Self> {
        let users = match &config.users_file {
            Some(path) => Some(load_users(&directory.join(path), secret)?),
            None => None,
        };
        if users.is_none() && policy::know_users(&config.policies) {
            bail!("[access]: a policy is about users, but there is no `users-file`");
        }
        if config.policies.is_empty() && config.issuers.is_empty() {
            bail!("[access]: without `policies` and `issuers` nobody may do anything");
        }
        let TokensConfig { service, realm, lifetime_seconds, key_file } = &config.tokens;
        let lifetime = lifetime_seconds.map_or(tokens::LIFETIME, Duration::from_secs);
        if lifetime < Duration::from_secs(60) || lifetime > Duration::from_secs(24 * 3600) {
            bail!("[access.tokens]: `lifetime-seconds` is between 60 and 86400");
        }
        if let Some(realm) = realm {
            realm.parse::<url::Url>().context("[access.tokens]: `realm` is no URL")?;
        }
        let service = service.clone().unwrap_or_else(|| DEFAULT_SERVICE.to_owned());
        if service.is_empty()
            || service.contains(|c: char| c == '"' || c == '\\' || !(' '..='~').contains(&c))
        {
            bail!("[access.tokens]: `service` is printable ASCII without quotes");
        }
        let tokens = match key_file {
            Some(path) => {
                Tokens::new(service.clone(), lifetime, &load_secret(&directory.join(path))?)
            }
            None => Tokens::new(service.clone(), lifetime, secret),
        };
        let issuers = config
            .issuers
            .iter()
            .map(|issuer| Issuer::load(issuer, directory, &service).map(Arc::new))
            .collect::<anyhow::Result<_>>()?;
        if config.issuers.iter().any(|issuer| issuer.issuer == service) {
            bail!("[[access.issuers]]: {service} is what this registry calls itself");
        }
        Ok(Self { users, policies: config.policies.clone(), tokens, realm: realm.clone(), issuers })
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Returns where clients get tokens, if the operator said so.
    pub(crate) fn realm(&self) -> Option<&str> {
        self.realm.as_deref()
    }

    /// Returns how many users there are, for the log.
    pub(crate) fn user_count(&self) -> usize {
        self.users.as_ref().map_or(0, Users::len)
    }

    /// Returns whether a caller without a name may do anything anywhere.
    pub(crate) fn knows_anonymous(&self) -> bool {
        policy::know_anonymous(&self.policies)
    }

    /// Returns who sent a request with that `Authorization`.
    pub(crate) async fn identify(&self, authorization: Option<&str>) -> Result<Caller, Refusal> {
        let Some(header) = authorization else { return Ok(Caller::nobody()) };
        let (scheme, credentials) = header.split_once(' ').ok_or(Refusal::InvalidHeader)?;
        let credentials = credentials.trim_start_matches(' ');
        if scheme.eq_ignore_ascii_case("basic") {
            let (name, password) = basic(credentials).ok_or(Refusal::InvalidHeader)?;
            return self.verify_password(&name, &password).await;
        }
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.verify_token(credentials).await;
        }
        Err(Refusal::InvalidHeader)
    }

    /// Returns the caller whose name and password these are.
    pub(crate) async fn verify_password(
        &self,
        name: &str,
        password: &str,
    ) -> Result<Caller, Refusal> {
        let users = self.users.as_ref().ok_or(Refusal::InvalidPassword { tried: None })?;
        match users.verify(name, password).await {
            Ok(Some(user)) => Ok(Caller::with_password(user)),
            Ok(None) => {
                let tried = name.parse().ok().filter(|name| users.contains(name));
                Err(Refusal::InvalidPassword { tried })
            }
            Err(users::Busy) => Err(Refusal::Busy),
        }
    }

    async fn verify_token(&self, token: &str) -> Result<Caller, Refusal> {
        if token.len() > tokens::MAX_TOKEN_BYTES {
            return Err(Refusal::InvalidToken);
        }
        // Only who is asked is chosen by what the token says of itself.
        let issuer = issuers::claimed_issuer(token).ok_or(Refusal::InvalidToken)?;
        if let Some(issuer) = self.issuers.iter().find(|known| known.name() == issuer) {
            return issuer.verify(token).await;
        }
        let caller = self.tokens.verify(token)?;
        // Whoever was removed meanwhile is nobody, whatever the token says.
        let is_known = caller
            .user
            .as_ref()
            .is_none_or(|user| self.users.as_ref().is_some_and(|users| users.contains(user)));
        if is_known { Ok(caller) } else { Err(Refusal::InvalidToken) }
    }

    /// Returns whether `caller` may do `action` in `repository`.
    pub(crate) fn decide(
        &self,
        caller: &Caller,
        repository: &Repository,
        action: Action,
    ) -> Decision {
        let covers = |scopes: &[Scope]| scopes.iter().any(|scope| scope.covers(repository, action));
        let by_policy = || policy::allows(&self.policies, caller.user(), repository, action);
        match &caller.authority {
            Authority::Issuer(scopes) if covers(scopes) => Decision::Allowed,
            Authority::Issuer(_) => Decision::NeedsScope,
            Authority::Policies | Authority::Token(_) if !by_policy() => Decision::Denied,
            Authority::Token(scopes) if !covers(scopes) => Decision::NeedsScope,
            Authority::Policies | Authority::Token(_) => Decision::Allowed,
        }
    }

    /// Returns whether `caller` is shown `repository` in a list.
    pub(crate) fn may_see(&self, caller: &Caller, repository: &Repository) -> bool {
        match &caller.authority {
            Authority::Issuer(scopes) if scopes.iter().any(Scope::covers_catalog) => true,
            Authority::Issuer(_) => {
                self.decide(caller, repository, Action::Pull) == Decision::Allowed
            }
            // The list is one request about many repositories: no token names them.
            Authority::Policies | Authority::Token(_) => {
                policy::allows(&self.policies, caller.user(), repository, Action::Pull)
            }
        }
    }

    /// Returns what of `wanted` the policies give `user`.
    pub(crate) fn grant(&self, user: Option<&UserName>, wanted: &[Scope]) -> Vec<Scope> {
        let granted = |scope: &Scope| {
            if scope.covers_catalog() {
                return Some(scope.clone());
            }
            let repository: Repository = scope.name.parse().ok()?;
            let actions: BTreeSet<String> =
                [Action::Pull, Action::Push, Action::Create, Action::Delete]
                    .into_iter()
                    .filter(|action| scope.covers(&repository, *action))
                    .filter(|action| policy::allows(&self.policies, user, &repository, *action))
                    .map(|action| action.scope_word().to_owned())
                    .collect();
            (!actions.is_empty()).then(|| Scope { actions, ..scope.clone() })
        };
        wanted.iter().filter_map(granted).collect()
    }
}

/// Returns name and password (RFC 7617, section 2).
pub(crate) fn basic(credentials: &str) -> Option<(String, String)> {
    let decoded = base64::engine::general_purpose::STANDARD.decode(credentials.trim_end()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// Returns whether an `Authorization` has a form that is known, without asking
/// whether it counts.
pub(crate) fn understands(authorization: &str) -> bool {
    let Some((scheme, credentials)) = authorization.split_once(' ') else { return false };
    match scheme.to_ascii_lowercase().as_str() {
        "basic" => basic(credentials).is_some(),
        "bearer" => {
            let issuer = issuers::claimed_issuer(credentials);
            let scope = Scope::parse(credentials);
            assert!(scope.is_none_or(|scope| Scope::parse(&scope.to_string()) == Some(scope)));
            issuer.is_some()
        }
        _ => false,
    }
}

fn load_users(path: &Path, secret: &[u8; 32]) -> anyhow::Result<Users> {
    let text = String::from_utf8(read(path)?)
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    Users::parse(&text, secret).with_context(|| format!("cannot use {}", path.display()))
}

fn load_secret(path: &Path) -> anyhow::Result<Vec<u8>> {
    let secret = read(path)?;
    match secret.len() >= MIN_SECRET_BYTES {
        true => Ok(secret),
        false => bail!("{} has fewer than {MIN_SECRET_BYTES} bytes", path.display()),
    }
}

/// Reads a file of the operator's.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let open = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).with_context(open)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).with_context(open)?;
    match bytes.len() as u64 <= MAX_FILE_BYTES {
        true => Ok(bytes),
        false => bail!("{} has more than {MAX_FILE_BYTES} bytes", path.display()),
    }
}

#[cfg(test)]
mod tests;

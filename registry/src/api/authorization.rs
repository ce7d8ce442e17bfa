//! Who sends a request, and whether they may: headers become a [`Permit`], and
//! what is not allowed becomes an answer that says how to ask.
//!
//! ```text
//! nobody, and not allowed        401 UNAUTHORIZED  Bearer realm, service, scope
//! a token that lacks a scope     401 UNAUTHORIZED  … error="insufficient_scope"
//! wrong password, forged token   401 UNAUTHORIZED  … error="invalid_token"
//! a name, and not allowed        403 DENIED
//! ```
//!
//! Docker's clients learn on `/v2/` how to show who they are, and nowhere else.
//! So whoever shows nothing is refused there, even where all may pull: the
//! client then gets a token without a name, and one with a name when it needs it.

use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use oci::Repository;

use super::error::{ApiError, ErrorCode};
use super::forwarded;
use super::route::Route;
use crate::access::{Access, Action, Caller, Decision, Refusal};
use crate::server::Scheme;

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What the sender of a request may do.
pub(super) struct Permit {
    /// `None` where everybody may do everything.
    access: Option<Arc<Access>>,
    caller: Caller,
    /// Where this client gets tokens.
    realm: String,
}

impl Permit {
    /// Finds out who sends a request.
    pub(super) async fn of(
        access: Option<Arc<Access>>,
        parts: &Parts,
        scheme: Scheme,
    ) -> Result<Self, ApiError> {
        let Some(access) = access else {
            return Ok(Self { access: None, caller: Caller::nobody(), realm: String::new() });
        };
        let realm = realm(&access, &parts.headers, scheme);
        let permit = Self { access: Some(Arc::clone(&access)), caller: Caller::nobody(), realm };
        match access.identify(authorization(&parts.headers)).await {
            Ok(caller) => Ok(Self { caller, ..permit }),
            Err(refusal) => Err(permit.refuse(refusal)),
        }
    }

    /// Returns who it is for logs and for the ownership of uploads.
    pub(super) fn principal(&self) -> &str {
        self.caller.principal()
    }

    /// Refuses what the sender may not do at an endpoint.
    pub(super) fn check(&self, method: &Method, route: &Route) -> Result<(), ApiError> {
        let Some(access) = &self.access else { return Ok(()) };
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        match route {
            Route::Live | Route::Ready | Route::Token => Ok(()),
            Route::Base if self.caller.is_nobody() => Err(self.challenge(None, None)),
            Route::Base => Ok(()),
            Route::Catalog if self.caller.is_nobody() && !access.knows_anonymous() => {
                Err(self.challenge(Some("registry:catalog:*"), None))
            }
            Route::Catalog => Ok(()),
            Route::Upload(repository, _) | Route::Uploads(repository) => self.write(repository),
            Route::Tags(repository)
            | Route::Blob(repository, _)
            | Route::Manifest(repository, _)
            | Route::Referrers(repository, _)
                if is_read =>
            {
                self.require(repository, &[Action::Pull])
            }
            Route::Tags(repository)
            | Route::Blob(repository, _)
            | Route::Manifest(repository, _)
            | Route::Referrers(repository, _) => match *method {
                Method::DELETE => self.require(repository, &[Action::Delete]),
                _ => self.write(repository),
            },
        }
    }

    /// Returns whether the sender may do `action` in `repository`.
    pub(super) fn may(&self, repository: &Repository, action: Action) -> bool {
        self.decide(repository, action) == Decision::Allowed
    }

    /// Returns whether the sender may push to `repository`, with this token or
    /// another one.
    pub(super) fn may_come_to_push(&self, repository: &Repository) -> bool {
        [Action::Push, Action::Create]
            .iter()
            .any(|action| self.decide(repository, *action) != Decision::Denied)
    }

    /// Returns whether the sender is shown `repository` in a list.
    pub(super) fn may_see(&self, repository: &Repository) -> bool {
        self.access.as_ref().is_none_or(|access| access.may_see(&self.caller, repository))
    }

    fn decide(&self, repository: &Repository, action: Action) -> Decision {
        match &self.access {
            None => Decision::Allowed,
            Some(access) => access.decide(&self.caller, repository, action),
        }
    }

    /// Refuses where neither all tags nor new ones may be pushed.
    fn write(&self, repository: &Repository) -> Result<(), ApiError> {
        self.require(repository, &[Action::Push, Action::Create])
    }

    /// Refuses where none of the actions is allowed.
    fn require(&self, repository: &Repository, actions: &[Action]) -> Result<(), ApiError> {
        let decisions: Vec<Decision> =
            actions.iter().map(|action| self.decide(repository, *action)).collect();
        if decisions.contains(&Decision::Allowed) {
            return Ok(());
        }
        let needs_scope = decisions.contains(&Decision::NeedsScope);
        if self.caller.is_named() && !needs_scope {
            let message = format!(
                "{} may not {} in {repository}",
                self.caller.principal(),
                actions[0].scope_word()
            );
            return Err(ApiError::new(ErrorCode::Denied, message));
        }
        // Clients push with what pulls: they look for what is there first.
        let words = match actions[0] {
            Action::Push | Action::Create => "pull,push",
            action => action.scope_word(),
        };
        let scope = format!("repository:{repository}:{words}");
        Err(self.challenge(Some(&scope), needs_scope.then_some("insufficient_scope")))
    }

    fn refuse(&self, refusal: Refusal) -> ApiError {
        let invalid = |message| self.challenge(None, Some("invalid_token")).saying(message);
        match refusal {
            Refusal::InvalidPassword { tried } => {
                invalid("the name or the password is wrong").by(tried)
            }
            Refusal::InvalidToken => invalid("the token does not count"),
            Refusal::InvalidHeader => invalid("the authorization is neither Basic nor Bearer"),
            Refusal::Busy => ApiError::busy("too many passwords are being checked"),
        }
    }

    /// Returns the answer that says where tokens are: RFC 6750, section 3.
    fn challenge(&self, scope: Option<&str>, error: Option<&str>) -> ApiError {
        let service = self.access.as_ref().map_or("", |access| access.tokens().service());
        let mut value = format!("Bearer realm=\"{}\",service=\"{service}\"", self.realm);
        for (name, text) in [("scope", scope), ("error", error)] {
            if let Some(text) = text {
                value.push_str(&format!(",{name}=\"{text}\""));
            }
        }
        let value = HeaderValue::try_from(value).expect("made of checked names");
        ApiError::new(ErrorCode::Unauthorized, "this needs a token or a password")
            .with_status(StatusCode::UNAUTHORIZED)
            .with(WWW_AUTHENTICATE, value)
    }
}

/// Returns the one `Authorization` of a request; several are as good as none that
/// counts.
pub(super) fn authorization(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (None, _) => None,
        // What is not ASCII is no credential: it is refused with those that are wrong.
        (Some(value), None) => Some(value.to_str().unwrap_or_default()),
        (Some(_), Some(_)) => Some(""),
    }
}

/// Returns the address of `/token` as the client of this request sees it.
///
/// What the client says of itself can only change the answer to itself.
fn realm(access: &Access, headers: &HeaderMap, scheme: Scheme) -> String {
    if let Some(realm) = access.realm() {
        return realm.to_owned();
    }
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = match text(FORWARDED_PROTO) {
        Some("https") => "https",
        Some("http") => "http",
        _ => scheme.as_str(),
    };
    let is_host = |host: &&str| {
        host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
    };
    let host = text(HOST).filter(is_host).unwrap_or("localhost");
    format!("{scheme}://{host}{}/token", forwarded::prefix_of(headers).unwrap_or_default())
}

//! `/token`: gives tokens, as docker's token specification has it (distribution,
//! "Token Authentication Specification" and "OAuth2 Token Authentication").

use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde_json::json;

use super::authorization::authorization;
use super::body::Body;
use super::error::{ApiError, ErrorCode};
use super::query::Query;
use super::{Answer, respond};
use crate::access::{Access, Caller, MAX_SCOPES, Refusal, Scope, basic};

/// The largest form that asks for a token.
const MAX_FORM_BYTES: usize = 16 << 10;

/// `GET /token` with a password in the header, or without one; `POST /token` with
/// a form. `now_s` is in seconds since 1970; `who` is set to who asks.
pub(super) async fn issue(
    access: &Access,
    parts: &Parts,
    query: Query,
    body: &mut Body,
    now_s: u64,
    who: &mut String,
) -> Result<Answer, ApiError> {
    let (query, caller) = match parts.method {
        Method::POST => {
            let form = form(body).await?;
            let caller = by_form(access, &form).await?;
            (form, caller)
        }
        _ => (query, by_header(access, parts).await?),
    };
    caller.principal().clone_into(who);
    let service = access.tokens().service();
    if query.get("service").is_some_and(|asked| !asked.is_empty() && asked != service) {
        let message = format!("this registry gives tokens for the service {service}");
        return Err(ApiError::new(ErrorCode::Unsupported, message).bad_request());
    }
    let wanted: Vec<Scope> = query
        .all("scope")
        .flat_map(|scopes| scopes.split(' '))
        .filter_map(Scope::parse)
        .take(MAX_SCOPES)
        .collect();
    let granted = access.grant(caller.user(), &wanted);
    let scope: Vec<String> = granted.iter().map(Scope::to_string).collect();
    let token = access.tokens().issue(caller.user(), granted, now_s);
    let mut answer = respond::json(&json!({
        "token": token,
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": access.tokens().lifetime().as_secs(),
        "scope": scope.join(" "),
    }));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

async fn by_header(access: &Access, parts: &Parts) -> Result<Caller, ApiError> {
    let Some(header) = authorization(&parts.headers) else { return Ok(Caller::nobody()) };
    let credentials = header
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, credentials)| basic(credentials.trim_start_matches(' ')));
    match credentials {
        Some((name, password)) => verify(access, &name, &password).await,
        None => Err(unauthorized("a token is given for a name and a password")),
    }
}

async fn by_form(access: &Access, form: &Query) -> Result<Caller, ApiError> {
    match (form.get("grant_type"), form.get("username"), form.get("password")) {
        (Some("password"), Some(name), Some(password)) => verify(access, name, password).await,
        _ => {
            let message = "the only grant is `password`, with `username` and `password`";
            Err(ApiError::new(ErrorCode::Unsupported, message).bad_request())
        }
    }
}

async fn verify(access: &Access, name: &str, password: &str) -> Result<Caller, ApiError> {
    access.verify_password(name, password).await.map_err(|refusal| match refusal {
        Refusal::Busy => ApiError::busy("too many passwords are being checked"),
        Refusal::InvalidPassword { tried } => {
            unauthorized("the name or the password is wrong").by(tried)
        }
        _ => unauthorized("the name or the password is wrong"),
    })
}

fn unauthorized(message: &str) -> ApiError {
    ApiError::new(ErrorCode::Unauthorized, message).with_status(StatusCode::UNAUTHORIZED).with(
        hyper::header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"rregistry\", charset=\"UTF-8\""),
    )
}

/// Reads a form (WHATWG URL, "application/x-www-form-urlencoded parsing").
async fn form(body: &mut Body) -> Result<Query, ApiError> {
    let invalid = || ApiError::new(ErrorCode::Unsupported, "this is no form").bad_request();
    let bytes = body.read(MAX_FORM_BYTES).await.map_err(|_| invalid())?.ok_or_else(invalid)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| invalid())?;
    Query::parse(&text.replace('+', "%20"))
}

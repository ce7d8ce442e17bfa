//! What a registry wants to see: the `WWW-Authenticate` header.

/// A way of authentication that a registry accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with every request (RFC 7617).
    Basic,
    /// A token from a token server (distribution's token specification).
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Reads all challenges of some `WWW-Authenticate` headers; unknown kinds are left out.
///
/// RFC 9110, section 11.6.1: a header may hold several challenges, separated by the same commas
/// that separate the parameters of one.
pub(super) fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    headers.into_iter().flat_map(parse_one).collect()
}

/// Returns the challenge to answer: Bearer, where there is a choice.
pub(super) fn preferred(challenges: Vec<Challenge>) -> Option<Challenge> {
    challenges.into_iter().max_by_key(|challenge| matches!(challenge, Challenge::Bearer { .. }))
}

fn parse_one(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let (scheme, after) = token(rest);
        if scheme.is_empty() {
            break;
        }
        let mut parameters = Vec::new();
        rest = after.trim_start();
        while let Some((name, value, after)) = parameter(rest) {
            parameters.push((name.to_ascii_lowercase(), value));
            rest = after.trim_start_matches([' ', ',']);
        }
        let take = |wanted: &str| {
            parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = take("realm")
        {
            let (service, scope) = (take("service"), take("scope"));
            challenges.push(Challenge::Bearer { realm, service, scope });
        }
        rest = rest.trim_start_matches([' ', ',']);
    }
    challenges
}

/// Splits off a word of letters, digits and the signs that RFC 9110 allows in tokens.
fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

/// Splits off `name=value` or `name="value"`; `None` where the next challenge begins.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = token(text);
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    if name.is_empty() {
        return None;
    }
    let Some(quoted) = rest.strip_prefix('"') else {
        let (value, rest) = token(rest);
        return Some((name, value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return Some((name, value, &quoted[position + 1..])),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) }
    }

    #[test]
    fn challenges_are_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull,push""#;
        let expected = bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:library/busybox:pull,push"),
        );
        assert_eq!(parse([hub]), [expected]);
        assert_eq!(parse([r#"Basic realm="a, b""#]), [Challenge::Basic]);
        assert_eq!(parse(["basic"]), [Challenge::Basic]);
        assert_eq!(
            parse([r#"Basic realm="x", Bearer realm="y" , service=z"#]),
            [Challenge::Basic, bearer("y", Some("z"), None)]
        );
        assert_eq!(
            parse([r#"Negotiate, BEARER Realm = "a\"b""#, "Basic"]),
            [bearer("a\"b", None, None), Challenge::Basic]
        );
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let both = parse(["Basic", r#"Bearer realm="r""#, "Basic"]);
        assert_eq!(preferred(both), Some(bearer("r", None, None)));
        assert_eq!(preferred(parse(["Basic"])), Some(Challenge::Basic));
        assert_eq!(preferred(parse(["Digest realm=\"x\""])), None);
    }

    #[test]
    fn broken_headers_are_no_challenges() {
        for header in
            ["", ",", "Bearer", "Bearer realm", "Bearer realm=\"open", "=\"x\"", "\u{e9} x"]
        {
            assert_eq!(parse([header]), [], "{header}");
        }
    }
}

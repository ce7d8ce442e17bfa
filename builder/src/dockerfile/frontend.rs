//! `# syntax=`: which frontend a file is written for.
//!
//! There is one language here, the one of `docker/dockerfile`, and no other frontend is
//! run: a file that asks for one would be misread, so that is an error.

use std::collections::BTreeMap;

use oci::Reference;

use super::ast::DirectiveKey;
use super::diagnostic::{Code, Diagnostic, Severity, Span};
use super::directive;
use super::source::Source;

/// The build argument that takes the place of the directive.
const ARGUMENT: &str = "BUILDKIT_SYNTAX";

/// The images that hold the frontend of this language.
const KNOWN: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// Checks that the file is written in the language that is understood here.
///
/// # Errors
///
/// Returns the problem with the frontend that the build argument, else the directive names.
pub fn check_frontend(text: &str, build_args: &BTreeMap<String, String>) -> Result<(), Diagnostic> {
    let given = build_args.get(ARGUMENT).map(|value| value.trim()).filter(|v| !v.is_empty());
    let (name, source, span) = match given {
        Some(value) => {
            let name = value.split(' ').next().unwrap_or_default().to_owned();
            (name, format!("--build-arg {ARGUMENT}"), Span::default())
        }
        None => match directive::syntax(text) {
            Some(name) => (name, "# syntax".to_owned(), place(text)),
            None => return Ok(()),
        },
    };
    if is_known(&name) {
        return Ok(());
    }
    let message = format!(
        "{source}={name} asks for another frontend, but only {} is understood here; \
         if the file is written for it, build with --build-arg {ARGUMENT}={}:1",
        KNOWN[0], KNOWN[0]
    );
    Err(Diagnostic {
        code: Code::ForeignSyntax,
        severity: Severity::Error,
        span,
        message,
        suggestion: None,
    })
}

fn is_known(name: &str) -> bool {
    let Ok(reference) = name.parse::<Reference>() else { return false };
    let repository = reference.repository().to_string();
    reference.registry() == "docker.io" && KNOWN.contains(&repository.as_str())
}

/// Returns where the directive stands: the first line that has it, behind a `#!` line too.
fn place(text: &str) -> Span {
    let mut source = Source::new(text);
    while let Some(line) = source.next_line() {
        let rest = line.text.trim_start_matches(['#', '/', ' ', '\t']);
        if rest.to_ascii_lowercase().starts_with(DirectiveKey::Syntax.name()) {
            return source.span(line.start..line.start + line.text.len());
        }
        if !line.text.trim_start().starts_with(['#', '/', '{', '"']) {
            break;
        }
    }
    Span::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, argument: Option<&str>) -> Result<(), (String, Span)> {
        let pairs = argument.map(|value| (ARGUMENT.to_owned(), value.to_owned()));
        let found = check_frontend(text, &pairs.into_iter().collect());
        found.map_err(|problem| (problem.message, problem.span))
    }

    #[test]
    fn dockers_own_frontends_are_this_language() {
        for name in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker/dockerfile:1.7-labs",
            "docker.io/docker/dockerfile:1",
            "docker/dockerfile-upstream:master",
            "docker/dockerfile:1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert_eq!(check(&format!("# syntax={name}\nFROM x\n"), None), Ok(()), "{name}");
            assert_eq!(check("FROM x\n", Some(name)), Ok(()), "{name}");
        }
        assert_eq!(check("FROM x\n# syntax=other\n", None), Ok(()));
        assert_eq!(check("", None), Ok(()));
    }

    #[test]
    fn other_frontends_are_refused_where_they_are_named() {
        let text = "#!/usr/bin/x\n# escape=`\n#  Syntax = ghcr.io/other/frontend:2 now\nFROM x\n";
        let (message, span) = check(text, None).unwrap_err();
        assert_eq!(
            message,
            "# syntax=ghcr.io/other/frontend:2 asks for another frontend, but only docker/dockerfile is \
             understood here; if the file is written for it, build with --build-arg \
             BUILDKIT_SYNTAX=docker/dockerfile:1"
        );
        assert_eq!((span.line, span.column, span.end_line), (3, 1, 3));
        for name in ["localhost:5000/docker/dockerfile", "dockerfile", "docker/dockerfile2", "a b"]
        {
            assert!(check(&format!("# syntax={name}\nFROM x\n"), None).is_err(), "{name}");
        }
        assert!(check("{\"syntax\": \"x\"}", None).is_err());
    }

    #[test]
    fn the_argument_takes_the_place_of_the_directive() {
        let foreign = "# syntax=other\nFROM x\n";
        assert_eq!(check(foreign, Some("docker/dockerfile:1 with options")), Ok(()));
        assert!(check(foreign, Some("")).is_err());
        let (message, span) = check("FROM x\n", Some("other")).unwrap_err();
        assert!(message.starts_with("--build-arg BUILDKIT_SYNTAX=other asks "), "{message}");
        assert_eq!(span, Span::default());
    }
}

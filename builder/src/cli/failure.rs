//! Errors for people: what failed, on what, why, and what to do.

use std::fmt::Write as _;

use super::environment::colour_wanted;
use super::progress::write_stderr;
use crate::error::Error;

/// A failure that needs no words: what was printed says it.
#[derive(Debug, thiserror::Error)]
#[error("there were warnings")]
pub(super) struct Silent;

/// Prints an error with its causes and, where there is one, a hint.
pub(super) fn print(error: &anyhow::Error) {
    let mut text = message(error);
    if let Some(hint) = hint(error) {
        let _ = writeln!(text, "hint: {hint}");
    }
    let label = if colour_wanted() { "\x1b[1;31merror\x1b[0m" } else { "error" };
    write_stderr(&format!("{label}: {text}"));
}

/// Joins the chain of causes, each fact once.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        // The step is printed with the excerpt already.
        if let Some(Error::Step { .. }) = cause.downcast_ref() {
            continue;
        }
        let cause = cause.to_string();
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text.push('\n');
    text
}

fn hint(error: &anyhow::Error) -> Option<String> {
    use store::remote::Error as Remote;

    match error.chain().find_map(|cause| cause.downcast_ref::<Remote>()) {
        Some(Remote::Unreachable { reason, .. }) if reason.contains("refused") => {
            return Some("is the registry running? start one with `rregistry serve`".to_owned());
        }
        Some(Remote::Unauthorized { host, .. } | Remote::Denied { host, .. }) => {
            return Some(format!("unauthorized: log in with `rbuild login {host}`"));
        }
        _ => {}
    }
    let build = error.chain().find_map(|cause| cause.downcast_ref::<Error>()).map(Error::root);
    match build {
        Some(Error::Sandbox(sandbox::Error::Rootless { hint, .. })) => return Some(hint.clone()),
        Some(Error::Process { log, .. }) => {
            let mut hint = format!("the whole output is in {}", log.display());
            if let Some(reason) = missing_ids() {
                // It may be why: programs only say that an argument is invalid.
                let _ = write!(hint, "; only your own user id is mapped: {reason}");
            }
            return Some(hint);
        }
        Some(Error::Sandbox(sandbox::Error::Setup { what, .. })) if what.contains("not mapped") => {
            if let Some(reason) = missing_ids() {
                return Some(reason.to_owned());
            }
        }
        Some(Error::NoEmulator { architecture, .. }) => {
            return Some(format!(
                "register an emulator: install the package qemu-user-static (or qemu-user-binfmt), or run \
                 `docker run --privileged --rm tonistiigi/binfmt --install {architecture}`; \
                 steps that only copy files need none, nor do stages with `FROM --platform=$BUILDPLATFORM`"
            ));
        }
        Some(Error::SourceMissing { ignored: true, path }) => {
            return Some(format!("/{} exists, but .dockerignore excludes it", path.display()));
        }
        Some(Error::BaseImage { reference, .. }) => {
            return Some(format!(
                "is the name right? `rbuild images` lists what is here, `rbuild pull {reference}` tries again"
            ));
        }
        _ => {}
    }
    for cause in error.chain() {
        if is_about_owner(cause)
            && let Some(reason) = missing_ids()
        {
            return Some(reason.to_owned());
        }
        if let Some(store::Error::ImageUnknown { .. }) = cause.downcast_ref() {
            return Some("`rbuild images` lists what is here".to_owned());
        }
        if let Some(sandbox::Error::Rootless { hint, .. }) = cause.downcast_ref() {
            return Some(hint.clone());
        }
        let io = cause.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
            return Some("run as another user, or choose another place with --root".to_owned());
        }
    }
    None
}

/// Returns whether files could not be given to whom they belong.
fn is_about_owner(cause: &(dyn std::error::Error + 'static)) -> bool {
    use store::layers::LayerError;
    // The store keeps it in a box, which is an error itself.
    let boxed = cause.downcast_ref::<Box<LayerError>>().map(Box::as_ref);
    matches!(boxed.or_else(|| cause.downcast_ref()), Some(LayerError::Owner { .. }))
}

/// Returns why an ordinary user has no ids but one, and what helps.
fn missing_ids() -> Option<&'static str> {
    match sandbox::rootless::privileges() {
        sandbox::rootless::Privileges::SingleId(reason) => Some(reason),
        _ => None,
    }
}

/// Returns whether the reader of our output has gone.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// Returns whether the user stopped the program.
pub(super) fn is_stopped(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref().is_some_and(Error::is_cancelled))
}

/// Prints what a failed step leaves to look at: the end of its output, and its place.
pub(super) fn print_step(error: &Error, dockerfile: &str, source: &str) {
    let Error::Step { name, lines, .. } = error else { return };
    let mut text = String::new();
    if let Error::Process { tail, .. } = error.root()
        && !tail.is_empty()
    {
        let _ = writeln!(text, "------\n > {name}:");
        for line in tail {
            let _ = writeln!(text, "{line}");
        }
        let _ = writeln!(text, "------");
    }
    if let Some((first, last)) = lines {
        text.push_str(&excerpt(dockerfile, source, *first, *last));
    }
    write_stderr(&text);
}

/// Returns the lines around an instruction, as BuildKit shows them.
fn excerpt(file: &str, source: &str, first: usize, last: usize) -> String {
    /// Lines shown before and after the instruction.
    const AROUND: usize = 2;
    let mut text = format!("{file}:{first}\n--------------------\n");
    let shown = first.saturating_sub(AROUND).max(1)..=last.max(first) + AROUND;
    for (line, number) in source.lines().zip(1..) {
        if shown.contains(&number) {
            let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
            let line = line.trim_end();
            let _ = writeln!(text, "{}", format!("{number:4} | {mark} {line}").trim_end());
        }
    }
    text.push_str("--------------------\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_excerpt_marks_the_instruction() {
        let source = "FROM a\n\nRUN one \\\n  two\nCMD x\nUSER y\nLABEL z=1\n";
        assert_eq!(
            excerpt("Dockerfile", source, 3, 4),
            "Dockerfile:3\n--------------------\n   1 |     FROM a\n   2 |\n   3 | >>> RUN one \\\n   \
             4 | >>>   two\n   5 |     CMD x\n   6 |     USER y\n--------------------\n"
        );
    }
}

//! Errors for people, and in the log for engines.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::json;

use super::args::LogFormat;
use super::error::Error;

/// Returns what is said about an error. Engines look for runc's words where a
/// command cannot be executed.
pub(super) fn message(error: &anyhow::Error) -> String {
    let sandbox = error.chain().find_map(|cause| match cause.downcast_ref::<Error>() {
        Some(Error::Sandbox(error)) => Some(error),
        _ => cause.downcast_ref::<sandbox::Error>(),
    });
    match sandbox {
        Some(sandbox::Error::CommandNotFound { command }) if command.contains('/') => {
            format!("exec: {command:?}: stat {command}: no such file or directory")
        }
        Some(sandbox::Error::CommandNotFound { command }) => {
            format!("exec: {command:?}: executable file not found in $PATH")
        }
        Some(sandbox::Error::CommandNotExecutable { command, source }) => {
            let reason = match source.kind() {
                io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                _ => source.to_string().to_lowercase(),
            };
            format!("exec: {command:?}: {reason}")
        }
        _ => format!("{error:#}"),
    }
}

/// Prints an error, and appends it to the log in the form that runc's has.
pub(super) fn report(message: &str, log: Option<&Path>, format: LogFormat, now: &str) {
    // There is nowhere else to complain.
    let _written = io::stderr().write_all(format!("error: {message}\n").as_bytes());
    let Some(path) = log else { return };
    let line = match format {
        LogFormat::Json => json!({"level": "error", "msg": message, "time": now}).to_string(),
        LogFormat::Text => format!("time={now:?} level=error msg={message:?}"),
    };
    let appended = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut log| log.write_all(format!("{line}\n").as_bytes()));
    if let Err(error) = appended {
        let text = format!("error: cannot write to {}: {error}\n", path.display());
        let _written = io::stderr().write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_find_the_words_they_look_for() {
        let said = |error: sandbox::Error| message(&anyhow::Error::from(Error::from(error)));
        let missing = |command: &str| sandbox::Error::CommandNotFound { command: command.into() };
        insta::assert_snapshot!(said(missing("x")), @r#"exec: "x": executable file not found in $PATH"#);
        insta::assert_snapshot!(said(missing("/x")), @r#"exec: "/x": stat /x: no such file or directory"#);
        let source = io::Error::from_raw_os_error(nix::libc::EACCES);
        let refused = sandbox::Error::CommandNotExecutable { command: "/x".into(), source };
        insta::assert_snapshot!(said(refused), @r#"exec: "/x": permission denied"#);
    }

    #[test]
    fn the_log_is_appended_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        report("it \"broke\"", Some(&path), LogFormat::Json, "2026-01-02T03:04:05Z");
        report("again", Some(&path), LogFormat::Text, "2026-01-02T03:04:05Z");
        insta::assert_snapshot!(std::fs::read_to_string(path).unwrap(), @r#"
        {"level":"error","msg":"it \"broke\"","time":"2026-01-02T03:04:05Z"}
        time="2026-01-02T03:04:05Z" level=error msg="again"
        "#);
    }
}

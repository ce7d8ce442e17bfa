//! Hooks: programs that are told the state of a container on standard input
//! (runtime-spec, `config.md`, "POSIX-platform Hooks").

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Hook;
use crate::error::{Context as _, Error, Result};

/// How often a hook with a timeout is looked after at first.
const PAUSE: Duration = Duration::from_micros(200);

/// Executes hooks one after the other, each with `state` on standard input.
///
/// # Errors
///
/// The first hook that cannot be executed, fails, or takes too long. One that
/// takes too long is killed.
pub fn run_hooks(kind: &str, hooks: &[Hook], state: &str) -> Result<()> {
    hooks.iter().try_for_each(|hook| run(kind, hook, state))
}

fn run(kind: &str, hook: &Hook, state: &str) -> Result<()> {
    let shown = || format!("run the {kind} hook {}", hook.path.display());
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear().current_dir("/");
    for entry in &hook.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        command.env(name, value);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::inherit())
        .stderr(Stdio::inherit())
        .spawn()
        .cannot(shown)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(state.as_bytes()) {
            // A hook need not read its input.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other.cannot(shown)?,
        }
    }
    let deadline =
        hook.timeout_seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut pause = PAUSE;
    let status = loop {
        let Some(deadline) = deadline else { break child.wait().cannot(shown)? };
        if let Some(status) = child.try_wait().cannot(shown)? {
            break status;
        }
        if Instant::now() >= deadline {
            // One that ends just now needs no killing.
            child.kill().ok();
            child.wait().cannot(shown)?;
            return Err(io::Error::from(io::ErrorKind::TimedOut)).cannot(shown);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    if status.success() {
        return Ok(());
    }
    Err(Error::invalid(format!("the {kind} hook {} failed: {status}", hook.path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout_seconds: Option<u64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["NAME=value".into(), "PATH=/usr/bin:/bin".into()],
            timeout_seconds,
        }
    }

    #[test]
    fn a_hook_reads_the_state_and_has_only_its_environment() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("seen");
        let script = format!("cat > {0}; echo $NAME-$HOME- >> {0}", file.display());
        run_hooks("prestart", &[shell(&script, None)], "{state}\n").unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "{state}\nvalue--\n");
    }

    #[test]
    fn a_hook_that_fails_ends_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("later");
        let hooks = [shell("exit 3", None), shell(&format!("touch {}", file.display()), None)];
        let error = run_hooks("prestart", &hooks, "").unwrap_err();
        insta::assert_snapshot!(error, @"the prestart hook /bin/sh failed: exit status: 3");
        assert!(!file.exists());
    }

    #[test]
    fn a_hook_that_takes_too_long_is_killed() {
        let begin = Instant::now();
        let error = run_hooks("poststop", &[shell("exec sleep 60", Some(1))], "").unwrap_err();
        assert!(
            matches!(&error, Error::Setup { source, .. } if source.kind() == io::ErrorKind::TimedOut)
        );
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}

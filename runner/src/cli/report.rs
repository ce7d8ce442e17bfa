//! Errors for people.

use std::io::{self, Write as _};

use crate::engine::Error;

/// Prints an error as one line, and a hint where there is something to do.
pub(super) fn print(error: &anyhow::Error) {
    let mut text = format!("error: {error:#}\n");
    if let Some(hint) = hint(error) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    // There is nowhere else to complain.
    let _written = io::stderr().write_all(text.as_bytes());
}

/// Prints what the user should know although all goes on.
pub(super) fn warn(warnings: &[String]) {
    let text: String = warnings.iter().map(|text| format!("warning: {text}\n")).collect();
    // There is nowhere else to say it.
    let _written = io::stderr().write_all(text.as_bytes());
}

/// Returns what the program exits with: for `run` docker's 125 to 127, else 1;
/// 126 and 127 also where a command cannot be executed in a running container.
pub(super) fn exit_code(error: &anyhow::Error, is_run: bool) -> u8 {
    match error.chain().find_map(sandbox_error).map(sandbox::Error::exit_code) {
        Some(code @ (126 | 127)) => code,
        _ if is_run => 125,
        _ => 1,
    }
}

/// Tells whether the reader of our output has gone.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let ours = cause.downcast_ref::<Error>().and_then(engine_hint);
        ours.or_else(|| sandbox_error(cause).and_then(sandbox_hint))
    })
}

fn sandbox_error<'e>(cause: &'e (dyn std::error::Error + 'static)) -> Option<&'e sandbox::Error> {
    match cause.downcast_ref::<Error>() {
        Some(Error::Sandbox(error)) => Some(error),
        _ => cause.downcast_ref(),
    }
}

fn engine_hint(error: &Error) -> Option<String> {
    Some(match error {
        Error::ContainerUnknown { .. } => "`rrun ps -a` lists all containers".to_owned(),
        Error::ContainerAmbiguous { .. } => "give more digits of the id".to_owned(),
        Error::NameInUse { name, .. } => {
            format!("choose another name, or remove that container with `rrun rm -f {name}`")
        }
        Error::NetworkUnknown { .. } => {
            "`rrun network ls` lists them; `rrun network create` makes one".to_owned()
        }
        Error::CannotHold { .. } => {
            "--pause=false takes it as it runs, files that change meanwhile included".to_owned()
        }
        Error::VolumeUnknown { .. } => {
            "`rrun volume ls` lists them; `rrun volume create` makes one".to_owned()
        }
        Error::VolumeInUse { container, .. } => {
            format!("remove that container first with `rrun rm -f {container}`, or keep the volume")
        }
        Error::VolumeSubpath { name, .. } => format!(
            "volume-subpath names a path that is in the volume already; look with `rrun run --rm -v {name}:/volume IMAGE ls /volume`"
        ),
        Error::PortInUse { .. } => "choose another port, or leave it out for any free one".to_owned(),
        Error::System {
            action: "create a bridge" | "look at the packet filter's tables" | "open a netlink socket",
            ..
        } => "a bridge takes a kernel with nf_tables and the right to use it; --network host and none do without, and RRUN_NETWORK changes the default".to_owned(),
        Error::NotRunning { .. } => "`rrun ps` lists the running containers".to_owned(),
        Error::Restarting { container } => format!(
            "wait until it runs; `rrun logs {container}` has what it said, `rrun stop {container}` ends it"
        ),
        Error::Paused { container } => format!("let it go on with `rrun unpause {container}`"),
        Error::StillRunning { container } => {
            format!("stop it first with `rrun stop {container}`, or use `rrun rm -f {container}`")
        }
        Error::ImageUnknown { reference } => format!(
            "`rrun images` lists the local ones; fetch it with `rrun pull {reference}`, or leave out --pull=never"
        ),
        Error::Pull { .. } => {
            "is the registry running, and is the name right? a registry without TLS needs --insecure, unless it is on this machine".to_owned()
        }
        Error::NoCommand { reference } => {
            format!("name one: `rrun run {reference} COMMAND`")
        }
        _ => return None,
    })
}

fn sandbox_hint(error: &sandbox::Error) -> Option<String> {
    Some(match error {
        sandbox::Error::CommandNotFound { command } if command.contains('/') => {
            "is the path right, and the interpreter or loader it needs in the image?".to_owned()
        }
        sandbox::Error::CommandNotFound { .. } => {
            "it is in no directory of PATH in the image".to_owned()
        }
        sandbox::Error::CommandNotExecutable { .. } => {
            "is the file executable, a program or a script that begins with #!, and for this machine's processor?"
                .to_owned()
        }
        sandbox::Error::HelperMissing { .. } => {
            "install rrun-init beside rrun, or name it in RRUN_INIT".to_owned()
        }
        sandbox::Error::Rootless { hint, .. } => hint.clone(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_cannot_run_have_their_own_codes() {
        let wrap = |error| anyhow::Error::from(Error::Sandbox(error)).context("cannot run x");
        let missing = wrap(sandbox::Error::CommandNotFound { command: "x".to_owned() });
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let refused =
            wrap(sandbox::Error::CommandNotExecutable { command: "x".to_owned(), source });
        let other = anyhow::Error::from(Error::NoCommand { reference: "x".to_owned() });
        for (error, run, exec) in [(&missing, 127, 127), (&refused, 126, 126), (&other, 125, 1)] {
            assert_eq!(exit_code(error, true), run);
            assert_eq!(exit_code(error, false), exec);
        }
    }

    #[test]
    fn each_fact_is_said_once() {
        let error = anyhow::Error::from(Error::Sandbox(sandbox::Error::CommandNotExecutable {
            command: "/data".to_owned(),
            source: io::Error::from_raw_os_error(nix::libc::EACCES),
        }));
        insta::assert_snapshot!(format!("{error:#}"), @"cannot execute /data in the container: Permission denied (os error 13)");
    }
}

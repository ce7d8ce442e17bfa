//! Another process in a container.

use std::os::fd::OwnedFd;
use std::path::Path;

use sandbox::bundle::{Start, exec as start};
use sandbox::{Sandboxed, Stdio};

use super::console;
use super::error::{Error, Result};
use super::spec::{self, Process, User};
use super::state::{Container, Status, write_whole};

/// What `exec` is given beside the process.
#[derive(Debug)]
pub struct Request<'a> {
    /// The socket that gets the terminal.
    pub console_socket: Option<&'a Path>,
    /// The file that gets the process id.
    pub pid_file: Option<&'a Path>,
    /// What the command gets from descriptor 3 on.
    pub preserved: Vec<OwnedFd>,
    /// Whether nobody stays with it.
    pub detached: bool,
}

/// Starts a process in a container that runs; it is in the container's
/// namespaces and control groups and has its filter.
///
/// # Errors
///
/// When the container does not run, or the process cannot be started.
pub fn exec(container: &Container, process: &Process, request: Request<'_>) -> Result<Sandboxed> {
    match container.status() {
        // Engines prepare containers before they start them.
        Status::Running | Status::Created => {}
        Status::Paused => return Err(Error::status("cannot exec in a paused container")),
        status @ (Status::Creating | Status::Stopped) => {
            let word = status.word();
            return Err(Error::status(format!("cannot exec in a container that is {word}")));
        }
    }
    let running =
        container.record.running().ok_or_else(|| Error::status("the container has no process"))?;
    let linux = container.config()?.linux;
    let wanted = spec::process(process, &linux)?;
    let credentials = spec::credentials(process, &linux)?;
    let console = match (process.terminal, request.console_socket) {
        (true, Some(path)) => Some(console::connect(path)?),
        (true, None) if request.detached => {
            return Err(Error::invalid("a terminal needs a console socket when nobody stays"));
        }
        (false, Some(_)) => {
            return Err(Error::invalid("a console socket was given, and no terminal is wanted"));
        }
        (_, None) => None,
    };
    let with = Start { stdio: Stdio::inherit(), preserved: request.preserved, gate: None };
    let started = start(&running, &wanted, &credentials, with)?;
    if let Some(socket) = &console
        && let Some(master) = started.take_terminal()
    {
        console::send(socket, &master)?;
    }
    if let Some(path) = request.pid_file {
        write_whole(path, started.pid().to_string().as_bytes())?;
    }
    Ok(started)
}

/// Reads `UID` or `UID:GID`.
///
/// # Errors
///
/// When it is something else; names are the engine's business.
pub fn parse_user(text: &str) -> Result<User> {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let id = if digits { part.parse::<u32>().ok() } else { None };
        id.ok_or_else(|| Error::invalid(format!("{text:?} is not UID or UID:GID")))
    };
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    Ok(User { uid: number(uid)?, gid: number(gid)?, umask: None, additional_gids: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        let ids = |text| parse_user(text).map(|user| (user.uid, user.gid)).ok();
        assert_eq!(ids("1"), Some((1, 0)));
        assert_eq!(ids("1:2"), Some((1, 2)));
        for text in ["", "-1", "+1", "name", "1:", ":1", "4294967296", "1:2:3", " 1"] {
            assert_eq!(ids(text), None, "accepted {text:?}");
        }
    }
}

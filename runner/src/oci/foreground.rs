//! Staying with a process until it ends.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};

use sandbox::Sandboxed;

use super::error::{Error, IoContext as _, Result};
use crate::engine::attach::Attachment;
use crate::engine::log::Stream;
use crate::engine::pump::Pump;
use crate::engine::signals::Signals;
use crate::engine::terminal::{RawMode, copy_size};

/// Passes signals on, and what is typed and shown where the process has a
/// terminal of ours. Returns its exit status.
///
/// # Errors
///
/// When waiting fails.
pub(super) fn attend(process: &Sandboxed, signals: &Signals) -> Result<i32> {
    let other = |error: crate::engine::Error| Error::invalid(error.to_string());
    let pid = i32::try_from(process.pid()).map_err(|_| Error::invalid("no such process"))?;
    let terminal = process.take_terminal();
    let _raw = match &terminal {
        Some(_) => RawMode::enter(rustix::stdio::stdin()).map_err(other)?,
        None => None,
    };
    let (input, outputs) = match &terminal {
        Some(master) => {
            copy_size(rustix::stdio::stdin(), master);
            let stdin = file(&rustix::stdio::stdin().try_clone_to_owned(), "standard input")?;
            let stdout = file(&rustix::stdio::stdout().try_clone_to_owned(), "standard output")?;
            let pump = |from, to, shared| {
                Pump::new(from, to, shared).doing("use", std::path::Path::new("the terminal"))
            };
            let input = pump(stdin, copy(master)?, false)?;
            (Some(input), vec![(Stream::Stdout, pump(copy(master)?, stdout, true)?)])
        }
        None => (None, Vec::new()),
    };
    let terminal = terminal.map(File::from);
    Attachment { pidfd: process.as_fd(), pid, is_init: false, signals, terminal, input, outputs }
        .run(
            |signal| {
                // It may have ended meanwhile.
                process.signal(signal.number()).ok();
                Ok(())
            },
            |_, _| {},
        )
        .map_err(other)?;
    Ok(process.wait()?.status())
}

fn file(fd: &std::io::Result<OwnedFd>, name: &str) -> Result<File> {
    match fd {
        Ok(fd) => copy(fd),
        Err(error) => Err(Error::invalid(format!("cannot use {name}: {error}"))),
    }
}

fn copy(fd: &OwnedFd) -> Result<File> {
    fd.try_clone().map(File::from).doing("copy", std::path::Path::new("a descriptor"))
}

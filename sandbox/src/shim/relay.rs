//! Moving output into the log until the container has ended.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use super::serve::now;
use crate::error::{Context as _, Result};
use crate::log::LogWriter;
use crate::spawn::{Exit, Sandboxed};

/// How long output is waited for after the end of the container. All its
/// processes are gone by then, so only what is already written can come.
const GRACE: Duration = Duration::from_secs(2);

/// A source of output; none when it has ended.
pub(super) struct Source {
    pub(super) stdout: bool,
    pub(super) fd: Option<OwnedFd>,
}

/// Copies output to the log; returns how the container ended when everything
/// is written.
pub(super) fn relay(
    sandbox: &Sandboxed,
    sources: &mut [Source],
    log: &mut LogWriter,
) -> Result<Exit> {
    let mut ended: Option<(Exit, Instant)> = None;
    loop {
        let open: Vec<usize> = sources
            .iter()
            .enumerate()
            .filter(|(_, source)| source.fd.is_some())
            .map(|(index, _)| index)
            .collect();
        if let Some((exit, since)) = ended
            && (open.is_empty() || since.elapsed() > GRACE)
        {
            // A full disk must not keep the end from being recorded.
            log.finish().ok();
            return Ok(exit);
        }
        let mut fds: Vec<PollFd<'_>> = open
            .iter()
            .filter_map(|index| sources[*index].fd.as_ref())
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        let timeout =
            if ended.is_some() { Some(Timespec { tv_sec: 0, tv_nsec: 100_000_000 }) } else { None };
        if ended.is_none() {
            fds.push(PollFd::from_borrowed_fd(sandbox.as_fd(), PollFlags::IN));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).cannot(|| "wait for output"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        for (index, _) in open.iter().zip(&ready).filter(|(_, ready)| **ready) {
            copy(&mut sources[*index], log);
        }
        if ended.is_none() && ready.last() == Some(&true) {
            ended = sandbox.try_wait()?.map(|exit| (exit, Instant::now()));
        }
    }
}

/// Copies what can be read at once.
fn copy(source: &mut Source, log: &mut LogWriter) {
    let Some(fd) = &source.fd else { return };
    let mut buffer = vec![0; 64 << 10];
    match rustix::io::read(fd, &mut buffer) {
        Ok(0) => source.fd = None,
        // Output that the disk cannot take is lost; the container goes on.
        Ok(read) => drop(log.write(source.stdout, &buffer[..read], now())),
        Err(Errno::INTR | Errno::AGAIN) => {}
        // A terminal that nobody has open any more says EIO.
        Err(_) => source.fd = None,
    }
}

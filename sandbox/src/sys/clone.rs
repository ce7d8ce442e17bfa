//! `clone3(2)` into new namespaces, and straight into the helper.

use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::sys::signal::{SigSet, SigmaskHow};

/// The descriptor numbers below this one are given to the child.
const FIRST_FREE: RawFd = 4;

/// What [`clone_helper`] needs to know.
pub(crate) struct Clone<'a> {
    /// `CLONE_NEW…` flags.
    pub(crate) namespaces: c_int,
    /// What become descriptors 0, 1 and 2 of the child.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// What becomes descriptor 3.
    pub(crate) channel: BorrowedFd<'a>,
    /// The program to execute.
    pub(crate) program: BorrowedFd<'a>,
    /// The directory of the cgroup (v2) to start in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// The first argument of the program; its name is fixed.
    pub(crate) argument: &'a CStr,
}

#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Starts the helper as a child in new namespaces and returns its process id
/// and pidfd.
///
/// The child begins with every signal blocked and the caller's handlers gone,
/// so that no handler of the caller can run in it. The helper unblocks them.
pub(crate) fn clone_helper(request: &Clone<'_>) -> io::Result<(u32, OwnedFd)> {
    // Everything the child touches exists before it does: it allocates nothing.
    let mut sources = Vec::with_capacity(4);
    for fd in request.stdio.iter().chain([&request.channel]) {
        // Copies above the targets, so that no `dup2` overwrites a source.
        sources.push(rustix::io::fcntl_dupfd_cloexec(fd, 10)?);
    }
    let sources: [RawFd; 4] = std::array::from_fn(|index| sources[index].as_raw_fd());
    let name = CString::new("rrun-init").expect("has no NUL");
    let argv = [name.as_ptr(), request.argument.as_ptr(), std::ptr::null()];
    let program = request.program.as_raw_fd();

    let mut before = SigSet::empty();
    nix::sys::signal::pthread_sigmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut before),
    )?;
    let mut pidfd: c_int = -1;
    let pid = clone(request.namespaces, request.cgroup, &mut pidfd);
    if let Ok(0) = pid {
        become_helper(&sources, program, &argv);
    }
    nix::sys::signal::pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    let pid = pid?;
    // SAFETY: the kernel stored a new descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pid, pidfd))
}

/// Forks the calling process, which must have a single thread.
///
/// Returns zero in the child.
pub(crate) fn fork() -> io::Result<u32> {
    // SAFETY: `fork` has no preconditions of its own; the caller has one
    // thread, so that the child may go on like any program.
    let pid = unsafe { libc::fork() };
    u32::try_from(pid).map_err(|_| io::Error::last_os_error())
}

/// Forks a sibling: a child of the caller's parent. Returns its process id and
/// pidfd, or none in the sibling. The caller must have a single thread.
pub(crate) fn fork_sibling() -> io::Result<Option<(u32, OwnedFd)>> {
    let mut pidfd: c_int = -1;
    let pid = clone(libc::CLONE_PARENT, None, &mut pidfd)?;
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel stored a new descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Some((pid, pidfd)))
}

/// Starts a child that waits in a user namespace of its own, for its ids to be
/// mapped, until it is killed.
pub(crate) fn fork_into_user_namespace() -> io::Result<(u32, OwnedFd)> {
    let mut pidfd: c_int = -1;
    let pid = clone(libc::CLONE_NEWUSER, None, &mut pidfd)?;
    if pid == 0 {
        loop {
            // SAFETY: waits for a signal; nothing of the caller is run.
            unsafe { libc::pause() };
        }
    }
    // SAFETY: the kernel stored a new descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pid, pidfd))
}

/// Clones like `fork`: the child goes on here with its own copy of the memory.
fn clone(namespaces: c_int, cgroup: Option<BorrowedFd<'_>>, pidfd: &mut c_int) -> io::Result<u32> {
    let base = u64::from((namespaces | libc::CLONE_PIDFD).cast_unsigned());
    let mut arguments = CloneArgs {
        // `CLONE_CLEAR_SIGHAND` (5.5): handlers of the caller are not for the child.
        flags: base | 0x1_0000_0000,
        pidfd: std::ptr::from_mut(pidfd) as u64,
        // A sibling has that of the caller.
        exit_signal: if namespaces & libc::CLONE_PARENT == 0 {
            u64::from(libc::SIGCHLD.cast_unsigned())
        } else {
            0
        },
        ..CloneArgs::default()
    };
    if let Some(fd) = cgroup {
        arguments.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        arguments.cgroup = u64::from(fd.as_raw_fd().cast_unsigned());
    }
    // SAFETY: the arguments are a valid `clone_args` and their size; without
    // CLONE_VM the child works on its own copy of this stack.
    let result = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&arguments), size_of::<CloneArgs>())
    };
    match pid(result) {
        // A filter around us knows no clone3; a cgroup cannot be entered then.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && cgroup.is_none() => {
            clone_old(namespaces, pidfd)
        }
        other => other,
    }
}

/// Does the same through `clone(2)`.
fn clone_old(namespaces: c_int, pidfd: &mut c_int) -> io::Result<u32> {
    let flags = c_long::from(namespaces | libc::CLONE_PIDFD | libc::SIGCHLD);
    // SAFETY: no stack is given, so the child continues on a copy of ours; the
    // third argument, where the pidfd is stored, is valid and exclusive.
    let result =
        unsafe { libc::syscall(libc::SYS_clone, flags, 0, std::ptr::from_mut(pidfd), 0, 0) };
    pid(result)
}

fn pid(result: c_long) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Arranges the descriptors and executes the helper. Runs between clone and
/// exec: only system calls, no allocation, no locks.
fn become_helper(sources: &[RawFd; 4], program: RawFd, argv: &[*const c_char; 3]) -> ! {
    let environment: [*const c_char; 1] = [std::ptr::null()];
    for (target, source) in (0..).zip(sources) {
        // SAFETY: dup2 takes any numbers; targets are below every source.
        unsafe { libc::dup2(*source, target) };
    }
    // SAFETY: only marks descriptors; nothing is closed before the exec.
    unsafe {
        libc::syscall(libc::SYS_close_range, FIRST_FREE, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    // SAFETY: the arrays end with null and their strings outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program,
            c"".as_ptr(),
            argv.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    // A frame of the channel's protocol: see `spawn::channel`.
    let mut frame = [crate::spawn::EXEC_FAILED, 4, 0, 0, 0, 0, 0, 0, 0];
    frame[5..].copy_from_slice(&errno.to_le_bytes());
    // SAFETY: writes nine bytes of an array of nine bytes.
    unsafe { libc::write(3, frame.as_ptr().cast(), frame.len()) };
    // SAFETY: ends the process; nothing of the caller is run.
    unsafe { libc::_exit(125) }
}

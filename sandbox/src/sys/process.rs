//! What a process does to itself before it becomes the command.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

/// One instruction of a classic BPF program, as `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeccompInstruction {
    pub(crate) code: u16,
    pub(crate) jump_true: u8,
    pub(crate) jump_false: u8,
    pub(crate) value: u32,
}

#[repr(C)]
struct Program {
    length: u16,
    instructions: *const SeccompInstruction,
}

/// Installs a system call filter on the calling thread.
///
/// `log` and `speculation` are the flags `SECCOMP_FILTER_FLAG_LOG` and
/// `…_SPEC_ALLOW`.
pub(crate) fn install_seccomp(
    filter: &[SeccompInstruction],
    log: bool,
    speculation: bool,
) -> io::Result<()> {
    let length =
        u16::try_from(filter.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = Program { length, instructions: filter.as_ptr() };
    let flags = u32::from(log) << 1 | u32::from(speculation) << 2;
    // SAFETY: the program points to `length` instructions that outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::from_ref(&program),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from `first` on as closed by an exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: takes numbers only, and closes nothing now.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, first, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel's highest signal.
const SIGNALS_MAX: c_int = 64;

/// Gives every signal its default disposition and unblocks all.
pub(crate) fn reset_signals() -> io::Result<()> {
    for signal in 1..=SIGNALS_MAX {
        // The kernel's own structure: all zero is the default disposition. The
        // C library would keep two of the signals from us.
        let default = [0u64; 4];
        // SAFETY: the structure is at least as large as the kernel's, the size
        // is that of its signal set, and no code of ours is run. SIGKILL and
        // SIGSTOP refuse, which is fine.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8,
            )
        };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Returns to the normal scheduling policy: a realtime process cannot enter a
/// cgroup without realtime budget, and a container must not inherit priority.
pub(crate) fn reset_scheduler() -> io::Result<()> {
    // SAFETY: asks for the policy of the calling process.
    let policy = unsafe { libc::sched_getscheduler(0) };
    if policy == libc::SCHED_OTHER {
        return Ok(());
    }
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter structure is valid for the call.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, std::ptr::from_ref(&parameters)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Executes `path`; returns only on failure.
pub(crate) fn exec(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end with null and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends the process at once, without running anything on the way out.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Sends any signal, including realtime ones, through a pidfd.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: takes a descriptor and a number; no information structure is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a terminal the controlling one of the calling session leader.
pub(crate) fn take_terminal(terminal: RawFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    let result = unsafe { libc::ioctl(terminal, libc::TIOCSCTTY, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the size of a terminal.
pub(crate) fn set_tty_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a `winsize`, which the pointer is.
    let result =
        unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(&size)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes over a descriptor that the parent arranged.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: asks for the flags of a number, which need not be open.
    let flags = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, was made for this program, and is taken only once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns the soft and the hard limit; none is unlimited.
pub(crate) fn get_rlimit(resource: u32) -> io::Result<[Option<u64>; 2]> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is valid and exclusive.
    let result = unsafe { libc::getrlimit(resource, std::ptr::from_mut(&mut limit)) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok([limit.rlim_cur, limit.rlim_max]
        .map(|value| (value != libc::RLIM_INFINITY).then_some(value)))
}

/// Sets the soft and the hard limit.
pub(crate) fn set_rlimit(resource: u32, [soft, hard]: [Option<u64>; 2]) -> io::Result<()> {
    let number = |value: Option<u64>| value.unwrap_or(libc::RLIM_INFINITY);
    let limit = libc::rlimit { rlim_cur: number(soft), rlim_max: number(hard) };
    // SAFETY: the structure is valid for the call.
    let result = unsafe { libc::setrlimit(resource, std::ptr::from_ref(&limit)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for any blocked signal and returns its number.
pub(crate) fn wait_signal() -> io::Result<c_int> {
    let all = *nix::sys::signal::SigSet::all().as_ref();
    let mut signal = 0;
    // SAFETY: both pointers are valid for the call.
    let errno = unsafe { libc::sigwait(std::ptr::from_ref(&all), std::ptr::from_mut(&mut signal)) };
    if errno == 0 { Ok(signal) } else { Err(io::Error::from_raw_os_error(errno)) }
}

/// Ignores what the kernel sends when a terminal or a reader goes away.
pub(crate) fn ignore_hangup() -> io::Result<()> {
    for signal in [libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: ignoring a signal runs no code of ours.
        let previous = unsafe { libc::signal(signal, libc::SIG_IGN) };
        if previous == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Gives the process a new, empty session keyring. Where there is none to be
/// had (a kernel without keys, a filter, a quota), there is none to inherit or
/// nothing that could be done.
pub(crate) fn join_new_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: takes a number and no name.
    unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<c_char>())
    };
}

/// Makes a descriptor also available under a fixed number, across an exec.
pub(crate) fn place_at(descriptor: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: takes numbers; the caller has made sure that nothing it still
    // needs is at that one.
    let result = unsafe { libc::dup2(descriptor.as_raw_fd(), number) };
    if result == number { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the NIS domain name.
pub(crate) fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of one string.
    let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the execution domain.
pub(crate) fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: takes a number.
    let result = unsafe { libc::personality(domain.into()) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Copies a descriptor that the program was started with, by its number, and
/// keeps the original from programs that are executed.
pub(crate) fn copy_inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers; one that is not open is an error.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: the kernel returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

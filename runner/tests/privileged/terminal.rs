//! `-t`, and signals to the foreground.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::harness::{Host, finish};

/// A terminal with a program on it.
struct Screen {
    master: File,
    slave: OwnedFd,
    child: Child,
    text: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Screen {
    fn new(host: &Host, args: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let copy = || Stdio::from(slave.try_clone().unwrap());
        let child =
            host.command().args(args).stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
        let master = File::from(master);
        let (sender, text) = mpsc::channel();
        let mut reader = master.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { master, slave, child, text, seen: String::new() }
    }

    fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    #[track_caller]
    fn shows(&mut self, words: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let end = loop {
            if let Some(start) = self.seen.find(words) {
                break start + words.len();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.text.recv_timeout(left);
            let bytes = bytes.unwrap_or_else(|_| panic!("{words:?} is not in {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        };
        // What came after it may be looked for next.
        self.seen.drain(..end);
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ECHO)
    }
}

#[test]
fn privileged_a_shell_on_a_terminal() {
    let host = Host::new();
    let mut screen = Screen::new(&host, &["run", "--rm", "-it", "busybox", "sh"]);
    screen.shows("# ");
    assert!(screen.is_raw());
    screen.types("tty; stty size; echo $TERM\r");
    screen.shows("33 77");
    screen.shows("xterm");
    let size = Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&screen.master, size).unwrap();
    // The kernel tells the foreground of a terminal; this one has none.
    kill(Pid::from_raw(screen.child.id().cast_signed()), Signal::SIGWINCH).unwrap();
    screen.types("sleep 0.2; stty size\r");
    screen.shows("40 100");
    // Ctrl-C goes through the container's terminal and hits its foreground only.
    screen.types("sleep 100\r");
    std::thread::sleep(Duration::from_millis(300));
    screen.types("\x03");
    screen.types("echo al''ive\r");
    screen.shows("alive");
    screen.types("exit 7\r");
    assert_eq!(screen.child.wait().unwrap().code(), Some(7));
    assert!(!screen.is_raw(), "the terminal is as before");
    host.assert_empty();
}

#[test]
fn privileged_a_terminal_in_a_running_container() {
    let host = Host::new();
    host.rrun(&["run", "-d", "-t", "--name", "box", "busybox", "sh", "-c", "tty; sleep 100"]).ok();
    let mut screen = Screen::new(&host, &["exec", "-it", "box", "sh"]);
    screen.shows("# ");
    screen.types("tty && exit 3\r");
    screen.shows("/dev/pts/");
    assert_eq!(screen.child.wait().unwrap().code(), Some(3));
    assert!(!screen.is_raw());
    assert_eq!(host.rrun(&["logs", "box"]).ok(), "/dev/pts/0\r");
    let error = host.rrun(&["run", "--rm", "-it", "busybox", "true"]).fails(125);
    assert!(error.contains("need a terminal"), "{error}");
}

#[test]
fn privileged_signals_are_passed_on() {
    let host = Host::new();
    for (signal, number) in
        [(Signal::SIGTERM, 15), (Signal::SIGINT, 2), (Signal::SIGHUP, 1), (Signal::SIGUSR1, 10)]
    {
        let script = format!(
            "trap 'exit 7{}' {number}; echo ready; while :; do sleep 0.05; done",
            number % 10
        );
        let mut child = host.start(&["run", "--rm", "busybox", "sh", "-c", &script]);
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        assert_eq!(finish(child).code, 70 + number % 10, "{signal}");
    }
    host.assert_empty();
}

#[test]
fn privileged_an_interrupt_ends_who_has_no_handler() {
    let host = Host::new();
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        // It says that it runs, and never had a handler. A shell has one until it executes.
        let program = ["tail", "-f", "/proc/sys/kernel/ostype"];
        let mut child = host.start(&[&["run", "--rm", "busybox"][..], &program].concat());
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        let before = Instant::now();
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        assert_eq!(finish(child).code, code);
        assert!(before.elapsed() < Duration::from_secs(8), "at once");
    }
    host.assert_empty();
}

#[test]
fn privileged_the_third_interrupt_kills_who_will_not_listen() {
    let host = Host::new();
    let script = "trap '' INT; echo ready; while :; do sleep 0.05; done";
    let mut child = host.start(&["run", "--rm", "busybox", "sh", "-c", script]);
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    for _ in 0..2 {
        kill(pid, Signal::SIGINT).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
    }
    kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(finish(child).code, 130);
    host.assert_empty();
}

#[test]
fn privileged_ctrl_c_ends_who_has_no_handler_on_a_terminal_too() {
    let host = Host::new();
    let args = ["run", "--rm", "-it", "busybox", "sh", "-c", "echo ready; exec sleep 100"];
    let mut screen = Screen::new(&host, &args);
    screen.shows("ready");
    let before = Instant::now();
    screen.types("\x03");
    assert_eq!(screen.child.wait().unwrap().code(), Some(130));
    assert!(before.elapsed() < Duration::from_secs(8), "at once");
    assert!(!screen.is_raw());
    // A program that takes each key for itself gets this one, too.
    let script = "stty raw; echo ready; head -c 1 | grep -q $(printf '\\003'); echo got $?; exit 5";
    let mut screen = Screen::new(&host, &["run", "--rm", "-it", "busybox", "sh", "-c", script]);
    screen.shows("ready");
    screen.types("\x03");
    screen.shows("got 0");
    assert_eq!(screen.child.wait().unwrap().code(), Some(5));
    host.assert_empty();
}

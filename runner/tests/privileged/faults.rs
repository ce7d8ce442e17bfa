//! `kill -9` at any moment: the next command understands what is left, and
//! nothing stays for ever.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Host, cgroups, finish};

/// How many programs are killed in the short form. `RRUN_SOAK=1000` makes it long.
const ROUNDS: u32 = 24;

fn kill_9(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

fn is_alive(pid: &str) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    status.is_ok_and(|stat| !stat.contains(") Z "))
}

#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn privileged_a_killed_foreground_takes_its_container_along() {
    let host = Host::new();
    let args =
        ["run", "--name", "box", "--memory", "64m", "busybox", "sh", "-c", "echo ready; sleep 100"];
    let mut child = host.start(&args);
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let pid = host.inspect("box", "{{.State.Pid}}");
    let id = host.ids().remove(0);
    assert!(is_alive(&pid));
    kill_9(child.id());
    child.wait().unwrap();
    wait_until("the container lives on", || !is_alive(&pid));
    assert_eq!(host.rrun(&["ps", "-q"]).ok(), "");
    assert!(host.rrun(&["ps", "-a"]).ok().contains("Exited (255)"));
    assert!(host.inspect("box", "{{.State.Error}}").contains("was killed"));
    assert_eq!(host.rrun(&["logs", "box"]).ok(), "ready");
    assert_eq!(host.rrun(&["wait", "box"]).ok(), "255");
    host.rrun(&["rm", "box"]).ok();
    assert!(cgroups(&id).is_empty());
    host.assert_empty();
}

#[test]
fn privileged_a_killed_foreground_with_rm_is_swept() {
    let host = Host::new();
    let mut child = host.start(&["run", "--rm", "busybox", "sh", "-c", "echo ready; sleep 100"]);
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let id = host.ids().remove(0);
    let pid = host.inspect(&id, "{{.State.Pid}}");
    kill_9(child.id());
    child.wait().unwrap();
    wait_until("the container lives on", || !is_alive(&pid));
    // Any next command will do.
    host.rrun(&["run", "--rm", "busybox", "true"]).ok();
    host.assert_empty();
    assert!(cgroups(&id).is_empty());
}

/// A disk that is full costs the log, not the container.
#[test]
fn privileged_a_log_that_cannot_be_written_ends_nothing() {
    let host = Host::new();
    let script = "read line; echo got $line; echo kept >/file; read line; exit 4";
    let mut command = host.command();
    command.args(["run", "-i", "--name", "box", "busybox", "sh", "-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    host.wait_for("box", "running");
    let id = host.ids().remove(0);
    // Nothing can be written to a directory.
    let log = host.root().join("containers").join(&id).join("log");
    std::fs::create_dir(&log).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a\nb\n").unwrap();
    drop(stdin);
    let outcome = finish(child);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (4, "got a\n"), "{outcome:?}");
    assert_eq!(host.inspect("box", "{{.State.ExitCode}}"), "4");
    let upper = host.root().join("containers").join(&id).join("upper");
    assert_eq!(std::fs::read_to_string(upper.join("file")).unwrap(), "kept\n");
    host.rrun(&["rm", "box"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_a_reader_that_does_not_read_can_be_given_up() {
    let host = Host::new();
    // More than the pipe to the reader takes, less than that and ours together.
    let args = ["run", "--name", "box", "busybox", "head", "-c", "100000", "/dev/zero"];
    let mut child = host.start(&args);
    host.wait_for("box", "running");
    let pid = host.inspect("box", "{{.State.Pid}}");
    wait_until("the container ends", || !is_alive(&pid));
    assert!(child.try_wait().unwrap().is_none(), "its output is waited for");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let mut status = None;
    wait_until("the signal is ignored", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
    host.rrun(&["rm", "box"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_a_killed_shim_is_understood() {
    let host = Host::new();
    let id = host
        .rrun(&["run", "-d", "--name", "box", "--memory", "64m", "busybox", "sleep", "100"])
        .ok();
    let running = std::fs::read(host.root().join("containers").join(&id).join("running")).unwrap();
    let running: serde_json::Value = serde_json::from_slice(&running).unwrap();
    let pid = running["pid"].to_string();
    kill_9(u32::try_from(running["shim_pid"].as_u64().unwrap()).unwrap());
    wait_until("the container lives on", || !is_alive(&pid));
    host.wait_for("box", "exited");
    assert_eq!(host.inspect("box", "{{.State.ExitCode}}"), "255");
    let error = host.rrun(&["exec", "box", "true"]).fails(1);
    assert!(error.contains("not running"), "{error}");
    host.rrun(&["prune"]).ok();
    host.assert_empty();
    assert!(cgroups(&id).is_empty());
}

#[test]
fn privileged_a_reboot_is_noticed() {
    let host = Host::new();
    let id = host.rrun(&["run", "-d", "--name", "box", "busybox", "sleep", "100"]).ok();
    let file = host.root().join("containers").join(&id).join("running");
    let text = std::fs::read_to_string(&file).unwrap();
    let running: serde_json::Value = serde_json::from_str(&text).unwrap();
    let boot_id = running["boot_id"].as_str().unwrap();
    std::fs::write(&file, text.replace(boot_id, "00000000-0000-0000-0000-000000000000")).unwrap();
    assert_eq!(host.inspect("box", "{{.State.Status}} {{.State.Pid}}"), "exited 0");
    // Pids of another boot are nobody's: nothing is signalled.
    host.rrun(&["stop", "box"]).ok();
    assert!(is_alive(&running["pid"].to_string()));
    std::fs::write(&file, text).unwrap();
    host.rrun(&["rm", "-f", "box"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_a_container_cut_short_while_it_is_made_is_garbage() {
    let host = Host::new();
    let id = "ab".repeat(32);
    let dir = host.root().join("containers").join(&id);
    std::fs::create_dir_all(dir.join("upper")).unwrap();
    std::fs::write(dir.join("lock"), "web").unwrap();
    let names = host.root().join("names");
    std::fs::create_dir_all(&names).unwrap();
    std::os::unix::fs::symlink(&id, names.join("web")).unwrap();
    host.rrun(&["ps"]).ok();
    host.assert_empty();
    // A link without its container binds nobody either.
    std::os::unix::fs::symlink(&id, names.join("web")).unwrap();
    host.rrun(&["run", "--rm", "--name", "web", "busybox", "true"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_killed_at_any_moment_nothing_stays() {
    let rounds = std::env::var_os("RRUN_SOAK")
        .map_or(ROUNDS, |text| text.to_str().unwrap().parse().unwrap());
    let host = Host::new();
    // The whole of a run takes a few milliseconds: hit each of them.
    let whole = {
        let before = Instant::now();
        host.rrun(&["run", "--rm", "--memory", "64m", "busybox", "true"]).ok();
        before.elapsed()
    };
    for round in 0..rounds {
        let args: &[&str] = match round % 4 {
            0 => &["run", "--rm", "--memory", "64m", "busybox", "true"],
            1 => &["run", "--rm", "busybox", "sleep", "100"],
            2 => &["run", "-d", "--name", "x", "--memory", "64m", "busybox", "sleep", "100"],
            _ => &["run", "-d", "--rm", "--name", "x", "busybox", "sleep", "0.01"],
        };
        let mut child = host.start(args);
        std::thread::sleep(whole.mul_f64(1.2) * (round / 4) / (rounds / 4).max(1));
        kill_9(child.id());
        child.wait().unwrap();
        drop(child);
        // The next command works, whatever is left.
        host.rrun(&["ps", "-a"]).ok();
        let next = host.rrun(&["run", "--rm", "busybox", "echo", "fine"]);
        assert_eq!(next.ok(), "fine", "round {round}");
        let mut words = vec!["rm".to_owned(), "-f".to_owned(), "x".to_owned()];
        words.extend(host.ids());
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        host.rrun(&words).ok();
    }
    // A container whose start was just under way ends on its own.
    wait_until("containers are left", || {
        host.rrun(&["prune"]).ok();
        host.ids().is_empty()
    });
    host.assert_no_traces();
    assert!(cgroups(host.root().to_str().unwrap()).is_empty());
}

#[test]
fn privileged_many_at_once() {
    let host = Host::new();
    let children: Vec<_> = (0..12)
        .map(|number| {
            let text = number.to_string();
            host.start(&["run", "--rm", "busybox", "echo", &text])
        })
        .collect();
    for (number, child) in children.into_iter().enumerate() {
        assert_eq!(finish(child).ok(), number.to_string());
    }
    host.assert_empty();
}

#[test]
fn privileged_forced_removal_wins_against_whoever_watches() {
    let host = Host::new();
    // Nobody reads what it writes, so its `rrun` waits for ever.
    let mut child = host.start(&["run", "--name", "box", "busybox", "yes"]);
    host.wait_for("box", "running");
    host.rrun(&["stop", "box"]).ok();
    host.rrun(&["rm", "-f", "box"]).ok();
    host.assert_empty();
    child.wait().unwrap();
    // Its caller is killed while it is being made, or just after.
    for round in 0..10 {
        let mut child = host
            .start(&["run", "-d", "--name", "box", "--memory", "64m", "busybox", "sleep", "100"]);
        std::thread::sleep(Duration::from_millis(3 * round));
        kill_9(child.id());
        child.wait().unwrap();
        host.rrun(&["rm", "-f", "box"]).ok();
    }
    wait_until("containers are left", || {
        host.rrun(&["prune"]).ok();
        let mut words = vec!["rm".to_owned(), "-f".to_owned(), "box".to_owned()];
        words.extend(host.ids());
        host.rrun(&words.iter().map(String::as_str).collect::<Vec<_>>()).ok();
        host.ids().is_empty()
    });
    host.assert_empty();
}

#[test]
fn privileged_a_full_disk_stops_neither_program_nor_its_output() {
    let host = Host::new();
    // The log cannot be written: there is a directory in its place.
    let mut child =
        host.start(&["run", "--name", "box", "busybox", "sh", "-c", "sleep 1; echo out; exit 3"]);
    host.wait_for("box", "running");
    let dir = host.root().join("containers").join(host.ids().remove(0));
    std::fs::create_dir(dir.join("log")).unwrap();
    std::fs::create_dir(dir.join("exit.new")).unwrap();
    child.stdin.take();
    let outcome = finish(child);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (3, "out\n"), "{outcome:?}");
    assert!(outcome.stderr.contains("warning: the container's log is not complete"), "{outcome:?}");
    assert!(outcome.stderr.contains("warning: the exit code is not recorded"), "{outcome:?}");
    // It is kept: its files may be worth something.
    assert_eq!(host.inspect("box", "{{.State.Status}}"), "exited");
    host.rrun(&["rm", "box"]).ok();
    host.assert_empty();
}

//! Containers behind their user's back: shim, log, exec, stop.

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use crate::harness::{Host, cgroups, finish};

#[test]
fn privileged_a_detached_container_outlives_its_caller() {
    let host = Host::new();
    let id = host.rrun(&["run", "-d", "busybox", "sh", "-c", "echo hello; sleep 100"]).ok();
    assert_eq!(id.len(), 64);
    assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert_eq!(host.rrun(&["ps", "-q", "--no-trunc"]).ok(), id);
    assert!(host.rrun(&["ps"]).ok().contains(" Up "));
    let error = host.rrun(&["rm", &id]).fails(1);
    assert!(error.contains("is running") && error.contains("rrun rm -f"), "{error}");
    let pid = host.inspect(&id, "{{.State.Pid}}");
    assert!(std::path::Path::new("/proc").join(pid).exists());
    host.rrun(&["rm", "-f", &id]).ok();
    host.assert_empty();
    assert!(cgroups(&id).is_empty());
}

#[test]
fn privileged_logs_follow_until_the_end() {
    let host = Host::new();
    let script = "for i in 1 2 3 4; do echo line $i; sleep 0.2; done; printf tail";
    host.rrun(&["run", "-d", "--name", "talker", "busybox", "sh", "-c", script]).ok();
    let started = Instant::now();
    let follow = host.start(&["logs", "-f", "talker"]);
    assert_eq!(finish(follow).stdout, "line 1\nline 2\nline 3\nline 4\ntail");
    assert!(started.elapsed() > Duration::from_millis(300), "it did not wait for more");
    assert_eq!(host.rrun(&["logs", "--tail", "2", "talker"]).ok(), "line 4\ntail");
    assert_eq!(host.rrun(&["logs", "--tail", "0", "talker"]).ok(), "");
    let stamped = host.rrun(&["logs", "--timestamps", "--tail", "1", "talker"]).ok();
    let (time, text) = stamped.split_once(' ').unwrap();
    assert_eq!((time.len(), text), (30, "tail"));
    assert_eq!(host.rrun(&["wait", "talker"]).ok(), "0");
}

#[test]
fn privileged_logs_are_selected_by_their_time() {
    let host = Host::new();
    let script = "for i in 1 2 3; do echo line $i; sleep 0.1; done";
    host.rrun(&["run", "--name", "box", "busybox", "sh", "-c", script]).ok();
    let stamped = host.rrun(&["logs", "-t", "box"]).ok();
    let times: Vec<_> = stamped.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(times.len(), 3);
    for (args, expected) in [
        (&["--since", times[1]][..], "line 2\nline 3"),
        (&["--until", times[1]], "line 1\nline 2"),
        (&["--since", times[1], "--until", times[1]], "line 2"),
        (&["--tail", "2", "--until", times[1]], "line 2"),
        (&["--since", "1h"], "line 1\nline 2\nline 3"),
        (&["--until", "1h"], ""),
        (&["--since", times[2], "--follow"], "line 3"),
    ] {
        let mut words = vec!["logs"];
        words.extend(args);
        words.push("box");
        assert_eq!(host.rrun(&words).ok(), expected, "{args:?}");
    }
    let error = host.rrun(&["logs", "--since", "yesterday", "box"]).fails(1);
    assert!(error.contains("\"yesterday\" is not a time"), "{error}");
    // Following ends when nothing that is asked for can come any more.
    host.rrun(&["run", "-d", "--name", "long", "busybox", "sleep", "100"]).ok();
    assert_eq!(host.rrun(&["logs", "-f", "--until", "0s", "long"]).ok(), "");
    host.rrun(&["rm", "-f", "box", "long"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_exec_joins_the_container() {
    let host = Host::new();
    host.rrun(&[
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "none",
        "-e",
        "A=1",
        "--hostname",
        "box",
        "busybox",
        "sleep",
        "100",
    ])
    .ok();
    let exec = |args: &[&str]| {
        let mut words = vec!["exec"];
        words.extend(args);
        host.rrun(&words)
    };
    assert_eq!(exec(&["box", "hostname"]).ok(), "box");
    assert_eq!(exec(&["box", "ls", "/sys/class/net"]).ok(), "lo");
    assert_eq!(exec(&["-e", "B=2", "box", "sh", "-c", "echo $A $B"]).ok(), "1 2");
    assert_eq!(
        exec(&["-u", "app", "-w", "/tmp", "box", "sh", "-c", "id -u; pwd"]).ok(),
        "1000\n/tmp"
    );
    assert_eq!(exec(&["box", "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(exec(&["box", "no-such-program"]).code, 127);
    assert_eq!(exec(&["box", "/etc/passwd"]).code, 126);
    assert_eq!(
        exec(&["box", "grep", "CapInh", "/proc/self/status"]).ok(),
        "CapInh:\t0000000000000000"
    );
    assert_eq!(exec(&["box", "grep", "Seccomp:", "/proc/self/status"]).ok(), "Seccomp:\t2");
    assert_eq!(exec(&["box", "sh", "-c", "cat /proc/1/cmdline | head -c 5"]).ok(), "sleep");
    let piped = host.rrun_with_input(&["exec", "-i", "box", "wc", "-c"], "12345");
    assert_eq!(piped.ok().trim(), "5");
    exec(&["-d", "box", "sh", "-c", "sleep 0.2; echo done > /tmp/flag; sleep 100"]).ok();
    let deadline = Instant::now() + Duration::from_secs(20);
    while exec(&["box", "cat", "/tmp/flag"]).stdout != "done\n" {
        assert!(Instant::now() < deadline, "exec -d did not go on");
        std::thread::sleep(Duration::from_millis(50));
    }
    host.rrun(&["rm", "-f", "box"]).ok();
    let error = exec(&["box", "true"]).fails(1);
    assert!(error.contains("no such container: box"), "{error}");
    host.assert_empty();
}

#[test]
fn privileged_stop_asks_first_and_kills_at_once_who_cannot_hear() {
    let host = Host::new();
    let trap = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    host.rrun(&["run", "-d", "--name", "polite", "busybox", "sh", "-c", trap]).ok();
    let mut logs = host.start(&["logs", "-f", "polite"]);
    let mut line = String::new();
    let mut reader = BufReader::new(logs.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    assert_eq!(host.rrun(&["stop", "polite"]).ok(), "polite");
    assert_eq!(host.inspect("polite", "{{.State.ExitCode}}"), "5");
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\nbye\n");
    finish(logs);

    // No handler: as the init of its namespace it would sit out the ten seconds.
    host.rrun(&["run", "-d", "--name", "deaf", "busybox", "sleep", "100"]).ok();
    let before = Instant::now();
    host.rrun(&["stop", "deaf"]).ok();
    assert!(before.elapsed() < Duration::from_secs(8), "took {:?}", before.elapsed());
    assert_eq!(host.inspect("deaf", "{{.State.ExitCode}}"), "137");

    let stubborn = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    host.rrun(&["run", "-d", "--name", "stubborn", "busybox", "sh", "-c", stubborn]).ok();
    while host.rrun(&["logs", "stubborn"]).stdout != "ready\n" {
        std::thread::sleep(Duration::from_millis(10));
    }
    let before = Instant::now();
    host.rrun(&["stop", "-t", "1", "stubborn"]).ok();
    assert!(before.elapsed() >= Duration::from_secs(1));
    assert_eq!(host.inspect("stubborn", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    // Stopping what has ended is fine, killing it is not.
    host.rrun(&["stop", "stubborn"]).ok();
    host.rrun(&["kill", "stubborn"]).fails(1);
    host.rrun(&["rm", "polite", "deaf", "stubborn"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_kill_sends_any_signal() {
    let host = Host::new();
    let script = "trap 'echo usr1' USR1; trap 'echo winch; exit 4' WINCH; echo ready; while :; do sleep 0.05; done";
    host.rrun(&["run", "-d", "--name", "box", "busybox", "sh", "-c", script]).ok();
    let says = |text: &str| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while host.rrun(&["logs", "box"]).stdout != text {
            assert!(Instant::now() < deadline, "{:?}", host.rrun(&["logs", "box"]));
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    says("ready\n");
    host.rrun(&["kill", "-s", "SIGUSR1", "box"]).ok();
    says("ready\nusr1\n");
    host.rrun(&["kill", "--signal", "28", "box"]).ok();
    assert_eq!(host.rrun(&["wait", "box"]).ok(), "4");
    host.rrun(&["kill", "-s", "NONSENSE", "box"]).fails(125);
}

#[test]
fn privileged_a_detached_container_with_rm_goes_by_itself() {
    let host = Host::new();
    let id = host.rrun(&["run", "-d", "--rm", "busybox", "sleep", "0.3"]).ok();
    assert_eq!(host.ids(), std::slice::from_ref(&id));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !host.ids().is_empty() {
        assert!(Instant::now() < deadline, "it stays");
        std::thread::sleep(Duration::from_millis(20));
    }
    host.assert_empty();
    assert!(cgroups(&id).is_empty());
}

#[test]
fn privileged_a_detached_start_that_fails_leaves_nothing() {
    let host = Host::new();
    for (command, code) in [("no-such-program", 127), ("/etc/passwd", 126)] {
        let outcome = host.rrun(&["run", "-d", "--memory", "64m", "busybox", command]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (code, ""), "{outcome:?}");
        assert!(outcome.stderr.starts_with("error: "), "{outcome:?}");
    }
    host.assert_empty();
}

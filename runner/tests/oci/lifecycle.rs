//! From create to delete.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::bundle::{Bundle, run, wait_until};

#[test]
fn privileged_a_container_goes_through_its_statuses() {
    let bundle = Bundle::new("echo ran > /data/ran; exec sleep 1000");
    let pid_file = bundle.path("pid");
    let directory = bundle.path("bundle");
    bundle
        .command(&[
            "create",
            "--bundle",
            directory.to_str().unwrap(),
            "--pid-file",
            pid_file.to_str().unwrap(),
            "c",
        ])
        .ok();
    let pid: u32 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    assert_eq!(bundle.state("status"), "created");
    assert_eq!(bundle.state("pid"), pid);
    assert_eq!(bundle.state("bundle"), directory.to_str().unwrap());
    assert!(!bundle.root("data/ran").exists(), "the command has not been executed yet");
    // Asking does not start it.
    assert_eq!(bundle.state("status"), "created");

    bundle.command(&["start", "c"]).ok();
    assert_eq!(bundle.state("status"), "running");
    wait_until("the command", || bundle.root("data/ran").exists().then_some(()));
    let error = bundle.command(&["start", "c"]).fails(1);
    assert_eq!(error, "error: cannot start an already running container\n");
    let error = bundle.command(&["delete", "c"]).fails(1);
    assert_eq!(error, "error: cannot delete container c that is not stopped: running\n");

    bundle.command(&["pause", "c"]).ok();
    assert_eq!(bundle.state("status"), "paused");
    assert!(bundle.command(&["exec", "c", "true"]).fails(255).contains("paused"));
    bundle.command(&["resume", "c"]).ok();
    assert_eq!(bundle.state("status"), "running");
    assert!(bundle.command(&["resume", "c"]).fails(1).contains("running"));

    bundle.command(&["kill", "c", "KILL"]).ok();
    bundle.wait_status("stopped");
    assert_eq!(bundle.state("pid"), 0);
    assert_eq!(bundle.command(&["kill", "c", "KILL"]).fails(1), "error: container not running\n");
    assert!(bundle.command(&["start", "c"]).fails(1).contains("has stopped"));
    bundle.command(&["delete", "c"]).ok();
    assert_eq!(bundle.command(&["state", "c"]).fails(1), "error: container \"c\" does not exist\n");
    bundle.command(&["delete", "c"]).fails(1);
    bundle.command(&["delete", "--force", "c"]).ok();
}

#[test]
fn privileged_two_starts_run_one_command() {
    let bundle = Bundle::new("echo ran >> /data/ran; exec sleep 1000");
    bundle.create().ok();
    let mut starts: Vec<_> = (0..8)
        .map(|_| {
            let mut command = bundle.program();
            command.args(["start", "c"]).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let won = starts.iter_mut().filter_map(|start| start.wait().unwrap().success().then_some(()));
    assert_eq!(won.count(), 1);
    wait_until("the command", || bundle.root("data/ran").exists().then_some(()));
    assert_eq!(fs::read_to_string(bundle.root("data/ran")).unwrap(), "ran\n");
}

#[test]
fn privileged_names_are_taken_once_and_checked() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.create().ok();
    assert_eq!(bundle.create().fails(1), "error: container with given ID already exists: c\n");
    for id in ["../c", "a/b", "", ".."] {
        let error = bundle.command(&["state", id]).fails(1);
        assert!(error.contains("invalid container ID format"), "{id:?}: {error}");
    }
    let all: Value =
        serde_json::from_str(&bundle.command(&["list", "--format", "json"]).ok()).unwrap();
    assert_eq!(all[0]["id"], "c");
    assert_eq!(all[0]["status"], "created");
    assert_eq!(all.as_array().unwrap().len(), 1);
    // One that was never started needs no force.
    bundle.command(&["delete", "c"]).ok();
    assert_eq!(bundle.command(&["list", "--quiet"]).ok(), "");
}

#[test]
fn privileged_run_exits_as_the_command_and_leaves_nothing() {
    let mut bundle = Bundle::new("echo out; echo err >&2; exit 7");
    let outcome = bundle.run();
    assert_eq!(
        (outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()),
        (7, "out\n", "err\n")
    );
    assert_eq!(bundle.command(&["list", "--quiet"]).ok(), "");
    bundle.config["process"]["args"] = json!(["sh", "-c", "kill -9 $$"]);
    // As process 1 it cannot kill itself.
    bundle.run().ok();
    let directory = bundle.path("bundle");
    bundle.command(&["run", "--keep", "--bundle", directory.to_str().unwrap(), "c"]).ok();
    assert_eq!(bundle.state("status"), "stopped");
}

#[test]
fn privileged_what_cannot_be_executed_is_said_at_create() {
    let mut bundle = Bundle::new("");
    let log = bundle.path("log");
    for (command, said) in [
        ("nosuch", r#"exec: "nosuch": executable file not found in $PATH"#),
        ("/nosuch", r#"exec: "/nosuch": stat /nosuch: no such file or directory"#),
        ("/data", r#"exec: "/data": permission denied"#),
        ("/data/seed", r#"exec: "/data/seed": permission denied"#),
    ] {
        bundle.config["process"]["args"] = json!([command]);
        let directory = bundle.path("bundle");
        let log_name = log.to_str().unwrap();
        let error = bundle
            .command(&[
                "--log",
                log_name,
                "--log-format",
                "json",
                "create",
                "--bundle",
                directory.to_str().unwrap(),
                "c",
            ])
            .fails(1);
        assert_eq!(error, format!("error: {said}\n"));
        let text = fs::read_to_string(&log).unwrap();
        let line: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!((&line["level"], &line["msg"]), (&json!("error"), &json!(said)));
        assert_eq!(bundle.command(&["list", "--quiet"]).ok(), "");
        assert!(bundle.cgroups().is_empty());
    }
}

#[test]
fn privileged_exec_joins_the_container() {
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.config["hostname"] = json!("inside");
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 50});
    bundle.start();
    let script = "hostname; id; pwd; echo $A; cat /proc/self/cgroup; exit 9";
    let outcome = bundle.command(&[
        "exec",
        "--user",
        "1000:1001",
        "--cwd",
        "/tmp",
        "--env",
        "A=b",
        "c",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(outcome.code, 9, "{outcome:?}");
    let mut lines = outcome.stdout.lines();
    assert_eq!(lines.next(), Some("inside"));
    assert_eq!(lines.next(), Some("uid=1000 gid=1001"));
    assert_eq!((lines.next(), lines.next()), (Some("/tmp"), Some("b")));
    assert!(lines.all(|line| !line.contains("rrun-oci-test")), "groups are seen from inside");

    let process = bundle.path("process.json");
    let text = json!({"args": ["sh", "-c", "echo $X; grep CapEff /proc/self/status; grep CapInh /proc/self/status"],
        "cwd": "/", "env": ["PATH=/bin", "X=y"], "user": {"uid": 0, "gid": 0}});
    fs::write(&process, text.to_string()).unwrap();
    let shown = bundle.command(&["exec", "--process", process.to_str().unwrap(), "c"]).ok();
    assert_eq!(shown, "y\nCapEff:\t0000000000000000\nCapInh:\t0000000000000000");

    let pid_file = bundle.path("pid");
    let name = pid_file.to_str().unwrap();
    bundle.command(&["exec", "--detach", "--pid-file", name, "c", "sleep", "900"]).ok();
    let pid: u32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    let listed: Vec<u32> =
        serde_json::from_str(&bundle.command(&["ps", "--format", "json", "c"]).ok()).unwrap();
    assert!(listed.contains(&pid) && listed.len() == 2, "{listed:?} {pid}");
    assert!(bundle.command(&["ps", "c"]).ok().contains("sleep 900"));
    let error = bundle.command(&["exec", "c", "nosuch"]).fails(255);
    assert_eq!(error, "error: exec: \"nosuch\": executable file not found in $PATH\n");
    for user in ["name", "-1", "4294967296"] {
        assert!(bundle.command(&["exec", &format!("--user={user}"), "c", "true"]).code != 0);
    }
    bundle.command(&["kill", "--all", "c", "KILL"]).ok();
    bundle.wait_status("stopped");
}

#[test]
fn privileged_the_terminal_goes_through_the_console_socket() {
    let mut bundle = Bundle::new("test -t 0 && echo tty; stat -c %t:%T /dev/console");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 11, "width": 22});
    assert!(bundle.create().fails(1).contains("console socket"));
    let path = bundle.path("console");
    let listener = UnixListener::bind(&path).unwrap();
    let directory = bundle.path("bundle");
    bundle
        .command(&[
            "create",
            "--console-socket",
            path.to_str().unwrap(),
            "--bundle",
            directory.to_str().unwrap(),
            "c",
        ])
        .ok();
    let (stream, _) = listener.accept().unwrap();
    let mut name = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::empty());
    assert!(got.unwrap().bytes > 0);
    let master: OwnedFd = control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .unwrap();
    let size = rustix::termios::tcgetwinsize(&master).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (11, 22));
    bundle.command(&["start", "c"]).ok();
    bundle.wait_status("stopped");
    let mut text = [0; 256];
    let read = rustix::io::read(&master, &mut text).unwrap();
    let text = String::from_utf8_lossy(&text[..read]).into_owned();
    // Major number 136: a pseudo-terminal.
    assert!(text.starts_with("tty\r\n88:"), "{text:?}");
}

#[test]
fn privileged_only_preserved_descriptors_reach_the_command() {
    let bundle = Bundle::new("ls /proc/self/fd | wc -l; cat <&3 2>/dev/null; cat <&4 2>/dev/null");
    // 0, 1, 2, and the directory that is listed.
    assert_eq!(bundle.run().stdout, "4\n");
    let (one, two) = (bundle.path("one"), bundle.path("two"));
    fs::write(&one, "first\n").unwrap();
    fs::write(&two, "second\n").unwrap();
    let mut shell = Command::new("sh");
    let line = format!(
        "exec 3<{} 4<{} 5<{}; exec {} --root {} run --preserve-fds 2 --bundle {} c",
        one.display(),
        two.display(),
        two.display(),
        env!("CARGO_BIN_EXE_rrun-oci"),
        bundle.path("states").display(),
        bundle.path("bundle").display()
    );
    shell.args(["-c", &line]).stdin(Stdio::null());
    assert_eq!(run(&mut shell).ok(), "6\nfirst\nsecond");
}

#[test]
fn privileged_a_runtime_that_is_killed_leaves_what_delete_understands() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.create().ok();
    bundle.command(&["delete", "--force", "c"]).ok();
    let directory = bundle.path("bundle");
    for round in 0..40u64 {
        let mut create = bundle
            .program()
            .args(["create", "--bundle", directory.to_str().unwrap(), "c"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_micros(round * 700));
        create.kill().unwrap();
        create.wait().unwrap();
        let list: Value =
            serde_json::from_str(&bundle.command(&["list", "--format", "json"]).ok()).unwrap();
        if let Some(entry) = list.as_array().unwrap().first() {
            let status = entry["status"].as_str().unwrap();
            assert!(["created", "stopped"].contains(&status), "{status}");
            assert_eq!(bundle.state("status"), status);
        }
        bundle.command(&["delete", "--force", "c"]).ok();
        assert_eq!(bundle.command(&["list", "--quiet"]).ok(), "");
    }
    // The name and the place are free again.
    bundle.start();
}

//! Containers that are made first and started later, once or several times.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::{Host, cgroups};

#[test]
fn privileged_a_created_container_is_started_later_and_again() {
    let host = Host::new();
    let script = "echo run >> /runs; cat /runs; sleep 0.1; exit 3";
    let id = host.rrun(&["create", "--name", "box", "busybox", "sh", "-c", script]).ok();
    assert_eq!(host.inspect("box", "{{.State.Status}} {{.State.Pid}}"), "created 0");
    assert_eq!(host.rrun(&["ps", "-q"]).ok(), "", "it does not run");
    assert!(host.rrun(&["ps", "-a"]).ok().contains(" Created "));

    assert_eq!(host.rrun(&["start", "box"]).ok(), "box");
    assert_eq!(host.rrun(&["wait", "box"]).ok(), "3");
    // The same files as before, and the container's own exit code.
    let again = host.rrun(&["start", "--attach", "box"]);
    assert_eq!((again.code, again.stdout.as_str()), (3, "run\nrun\n"));
    assert_eq!(host.rrun(&["logs", "box"]).ok(), "run\nrun\nrun", "the log goes on");
    assert_eq!(host.inspect("box", "{{.Id}} {{.State.ExitCode}}"), format!("{id} 3"));
    host.rrun(&["rm", "box"]).ok();
    host.assert_empty();
    assert!(cgroups(&id).is_empty());
}

#[test]
fn privileged_a_restart_keeps_files_and_volumes_and_takes_a_new_process() {
    let host = Host::new();
    let script = "echo x >> /data/file; echo x >> /file; sleep 100";
    host.rrun(&["run", "-d", "--name", "box", "-v", "/data", "busybox", "sh", "-c", script]).ok();
    let lines = |path: &str, count: &str| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while host.rrun(&["exec", "box", "grep", "-c", "x", path]).stdout.trim() != count {
            assert!(Instant::now() < deadline, "{path} has not {count} lines");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    lines("/file", "1");
    let first = host.inspect("box", "{{.State.Pid}}");
    assert_eq!(host.rrun(&["restart", "-t", "0", "box"]).ok(), "box");
    assert_eq!(host.inspect("box", "{{.State.Status}}"), "running");
    assert_ne!(host.inspect("box", "{{.State.Pid}}"), first);
    lines("/data/file", "2");
    lines("/file", "2");
    assert_eq!(host.rrun(&["exec", "box", "cat", "/data/seed"]).ok(), "from the image");
    // One that runs is left alone by `start`, one that has ended is started by `restart`.
    let second = host.inspect("box", "{{.State.Pid}}");
    host.rrun(&["start", "box"]).ok();
    assert_eq!(host.inspect("box", "{{.State.Pid}}"), second);
    host.rrun(&["stop", "box"]).ok();
    host.rrun(&["restart", "box"]).ok();
    lines("/file", "3");
    host.rrun(&["rm", "-f", "box"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_a_start_that_fails_leaves_the_container_as_it_was() {
    let host = Host::new();
    let source = host.path("source");
    fs::create_dir(&source).unwrap();
    let mount = format!("type=bind,source={},target=/mnt", source.display());
    let create = ["create", "--name", "box", "--mount", &mount, "busybox", "sh", "-c", "exit 4"];
    host.rrun(&create).ok();
    host.rrun(&["start", "-a", "box"]).fails(4);
    fs::remove_dir(&source).unwrap();
    let error = host.rrun(&["start", "box"]).fails(1);
    assert!(error.contains("does not exist"), "{error}");
    assert_eq!(host.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 4");
    let error = host.rrun(&["start", "-a", "box", "other"]).fails(1);
    assert!(error.contains("only one container"), "{error}");
    host.rrun(&["create", "--name", "none", "busybox", "no-such-program"]).ok();
    // As with docker, the command's code is that of whoever stays with it.
    host.rrun(&["start", "none"]).fails(1);
    host.rrun(&["start", "-a", "none"]).fails(127);
    assert_eq!(host.inspect("none", "{{.State.Status}}"), "created");
    host.rrun(&["rm", "box", "none"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_a_created_container_with_rm_stays_until_it_has_run() {
    let host = Host::new();
    host.rrun(&["create", "--rm", "--name", "box", "busybox", "true"]).ok();
    host.rrun(&["ps"]).ok();
    assert_eq!(host.ids().len(), 1, "it has not run yet");
    let error = host.rrun(&["restart", "box"]).fails(1);
    assert!(error.contains("--rm"), "{error}");
    assert_eq!(host.rrun(&["start", "box"]).ok(), "box");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !host.ids().is_empty() {
        assert!(Instant::now() < deadline, "it stays");
        std::thread::sleep(Duration::from_millis(20));
    }
    host.assert_empty();
}

#[test]
fn privileged_a_paused_container_stands_still_until_it_goes_on() {
    let host = Host::new();
    let script = "i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.02; done";
    let id = host.rrun(&["run", "-d", "--name", "box", "busybox", "sh", "-c", script]).ok();
    let file = host.root().join("containers").join(&id).join("upper/count");
    let changes = || {
        let read = || fs::read_to_string(&file).unwrap_or_default();
        let (before, deadline) = (read(), Instant::now() + Duration::from_millis(500));
        while read() == before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        read() != before
    };
    while !changes() {}
    assert_eq!(host.rrun(&["pause", "box"]).ok(), "box");
    assert!(!changes(), "it goes on");
    assert_eq!(host.inspect("box", "{{.State.Status}} {{.State.Paused}}"), "paused true");
    assert!(host.rrun(&["ps"]).ok().contains("(Paused)"));
    let error = host.rrun(&["pause", "box"]).fails(1);
    assert!(error.contains("is paused"), "{error}");
    let error = host.rrun(&["exec", "box", "true"]).fails(1);
    assert!(error.contains("rrun unpause box"), "{error}");
    assert_eq!(host.rrun(&["unpause", "box"]).ok(), "box");
    while !changes() {}
    let error = host.rrun(&["unpause", "box"]).fails(1);
    assert!(error.contains("is not paused"), "{error}");
    host.rrun(&["rm", "-f", "box"]).ok();
    host.assert_empty();
    assert!(cgroups(&id).is_empty());
}

/// What is frozen on v1 does not even end when it is killed.
#[test]
fn privileged_a_paused_container_can_be_ended_in_every_way() {
    let host = Host::new();
    for ways in [&["stop", "-t", "1"][..], &["kill"], &["rm", "-f"]] {
        let id = host.rrun(&["run", "-d", "--name", "box", "busybox", "sleep", "100"]).ok();
        host.rrun(&["pause", "box"]).ok();
        let mut words = ways.to_vec();
        words.push("box");
        host.rrun(&words).ok();
        if ways[0] != "rm" {
            assert_eq!(host.rrun(&["wait", "box"]).ok(), "137", "{ways:?}");
            host.rrun(&["rm", "box"]).ok();
        }
        host.assert_empty();
        assert!(cgroups(&id).is_empty(), "{ways:?}");
    }
}

#[test]
fn privileged_a_renamed_container_has_only_its_new_name() {
    let host = Host::new();
    host.rrun(&["run", "-d", "--rm", "--name", "old", "busybox", "sleep", "100"]).ok();
    let id = host.rrun(&["create", "--name", "other", "busybox"]).ok();
    let error = host.rrun(&["rename", "old", "other"]).fails(1);
    assert!(error.contains("already in use"), "{error}");
    host.rrun(&["rename", "old", "-bad"]).fails(125);
    assert_eq!(host.rrun(&["rename", "old", "new"]).ok(), "");
    host.rrun(&["inspect", "old"]).fails(1);
    assert_eq!(host.inspect("new", "{{.Name}} {{.State.Status}}"), "/new running");
    host.rrun(&["rename", &id, "old"]).ok();
    assert_eq!(host.inspect("old", "{{.Id}}"), id);
    host.rrun(&["kill", "new"]).ok();
    // It still goes by itself, under the name it has now.
    let deadline = Instant::now() + Duration::from_secs(20);
    while host.ids().len() > 1 {
        assert!(Instant::now() < deadline, "it stays");
        std::thread::sleep(Duration::from_millis(20));
    }
    host.rrun(&["rm", "old"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_ps_selects_containers() {
    let host = Host::new();
    let run = |name: &str, words: &[&str]| {
        let mut args = vec!["run", "-d", "--name", name, "--label", "team=a", "busybox"];
        args.extend(words);
        host.rrun(&args).ok()
    };
    run("web-1", &["sleep", "100"]);
    host.rrun(&["run", "--name", "job", "--label", "team=b", "busybox", "sh", "-c", "exit 3"]);
    let id = run("web-2", &["sleep", "100"]);
    host.rrun(&["create", "--name", "later", "busybox"]).ok();
    host.rrun(&["pause", "web-2"]).ok();
    for (args, expected) in [
        ("", "web-2 web-1"),
        ("-a", "later web-2 job web-1"),
        ("-l", "later"),
        ("-n 2", "later web-2"),
        ("-a -f name=web", "web-2 web-1"),
        ("-f name=^/?web-1$", "web-1"),
        ("-f status=exited -f status=created", "later job"),
        ("-f status=paused", "web-2"),
        ("-f label=team -f label=team=a", "web-2 web-1"),
        ("-a -f label=team=b", "job"),
        ("-f exited=3", ""),
        ("-a -f exited=3", "job"),
        ("-a -f exited=0", ""),
        ("-a -f before=job", "web-1"),
        ("-a -f since=job", "later web-2"),
        ("-a -f ancestor=busybox:latest -f name=job", "job"),
        ("-a -f ancestor=alpine", ""),
        ("-a -f network=none", ""),
    ] {
        let mut words = vec!["ps", "--format", "{{.Names}}"];
        words.extend(args.split_whitespace());
        assert_eq!(host.rrun(&words).ok().replace('\n', " "), expected, "ps {args}");
    }
    assert_eq!(host.rrun(&["ps", "-q", "-f", &format!("id={}", &id[..20])]).ok(), id[..12]);
    host.rrun(&["ps", "-f", "before=nobody"]).fails(1);
    host.rrun(&["ps", "-f", "colour=red"]).fails(125);
}

#[test]
fn privileged_top_shows_the_processes_of_this_container_only() {
    let host = Host::new();
    let script = "sleep 101 & exec sleep 100";
    host.rrun(&["run", "-d", "--name", "box", "busybox", "sh", "-c", script]).ok();
    host.rrun(&["run", "-d", "--name", "other", "busybox", "sleep", "102"]).ok();
    let deadline = Instant::now() + Duration::from_secs(20);
    let commands = loop {
        let text = host.rrun(&["top", "box"]).ok();
        let column = text.find("CMD").unwrap();
        assert!(text.starts_with("UID   PID "), "{text}");
        let commands: Vec<_> = text.lines().skip(1).map(|line| line[column..].to_owned()).collect();
        if commands.len() == 2 && commands[0] == "sleep 100" {
            break commands;
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(commands, ["sleep 100", "sleep 101"]);
    host.rrun(&["kill", "box"]).ok();
    host.rrun(&["wait", "box"]).ok();
    let error = host.rrun(&["top", "box"]).fails(1);
    assert!(error.contains("is not running"), "{error}");
}

/// Whoever watches is killed: the kernel ends the container, and it starts
/// again with the files it had.
#[test]
fn privileged_a_container_whose_shim_was_killed_starts_again() {
    let host = Host::new();
    let script = "echo run >> /runs; cat /runs; sleep 100";
    let id = host.rrun(&["run", "-d", "--name", "box", "busybox", "sh", "-c", script]).ok();
    while host.rrun(&["logs", "box"]).stdout != "run\n" {
        std::thread::sleep(Duration::from_millis(10));
    }
    let state = host.root().join("containers").join(&id).join("running");
    let state: serde_json::Value = serde_json::from_slice(&fs::read(state).unwrap()).unwrap();
    let shim = state["shim_pid"].as_i64().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-9", &shim]).status().unwrap().success());
    host.wait_for("box", "exited");
    assert_eq!(host.inspect("box", "{{.State.ExitCode}}"), "255");
    host.rrun(&["start", "box"]).ok();
    while host.rrun(&["logs", "box"]).stdout != "run\nrun\nrun\n" {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(host.inspect("box", "{{.State.Status}}"), "running");
    host.rrun(&["rm", "-f", "box"]).ok();
    host.assert_empty();
    assert!(cgroups(&id).is_empty());
}

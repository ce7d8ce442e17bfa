//! Containers that are started again when they have ended.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::Host;

/// What a container writes into its own files at each start.
const COUNT: &str = "echo start >> /starts; echo out $(wc -l < /starts)";

/// Waits until `is_so`, for so long and no longer.
#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(pid: &str) {
    assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
}

impl Host {
    /// Returns the pid of whoever watches a container.
    fn watcher(&self, id: &str) -> String {
        let file = self.root().join("containers").join(id).join("running");
        let record: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        record["shim_pid"].to_string()
    }

    fn restarts(&self, container: &str) -> u32 {
        self.inspect(container, "{{.RestartCount}}").parse().unwrap()
    }
}

#[test]
fn privileged_a_failing_container_is_started_again_so_often_and_no_more() {
    let host = Host::new();
    let script = format!("{COUNT}; exit 3");
    let run = ["run", "-d", "--name", "box", "--restart", "on-failure:2", "busybox", "sh", "-c"];
    host.rrun(&[&run[..], &[&script]].concat()).ok();
    let is_over = || host.inspect("box", "{{.State.Status}} {{.RestartCount}}") == "exited 2";
    wait_until("it has failed three times", is_over);
    assert_eq!(host.inspect("box", "{{.State.ExitCode}} {{.State.Restarting}}"), "3 false");
    assert_eq!(host.rrun(&["logs", "box"]).ok(), "out 1\nout 2\nout 3");
    let policy =
        "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}";
    assert_eq!(host.inspect("box", policy), "on-failure 2");
    // Its user's start counts from the beginning.
    host.rrun(&["start", "box"]).ok();
    wait_until("it has failed six times", || {
        is_over() && host.rrun(&["logs", "box"]).ok().ends_with("out 6")
    });
    // An end without failure is the end.
    host.rrun(&["run", "-d", "--name", "fine", "--restart", "on-failure", "busybox", "true"]).ok();
    assert_eq!(host.rrun(&["wait", "fine"]).ok(), "0");
    assert_eq!(host.inspect("fine", "{{.State.Status}} {{.RestartCount}}"), "exited 0");
    host.rrun(&["rm", "box", "fine"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_stop_ends_a_restarting_container_for_good() {
    let host = Host::new();
    let script = format!("{COUNT}; exit 5");
    let id = host
        .rrun(&["run", "-d", "--name", "box", "--restart=always", "busybox", "sh", "-c", &script])
        .ok();
    // By then it waits for longer than a command takes.
    wait_until("it is started four times", || host.restarts("box") >= 4);
    host.wait_for("box", "restarting");
    let shown = host.rrun(&["ps", "--format", "{{.Status}}"]).ok();
    assert!(shown.starts_with("Restarting (5) ") && shown.ends_with(" ago"), "{shown}");
    assert_eq!(host.rrun(&["ps", "-q", "--filter", "status=restarting"]).ok(), id[..12]);
    assert_eq!(host.inspect("box", "{{.State.Running}} {{.State.Restarting}}"), "true true");
    // What needs a container that runs, or one that has ended.
    let error = host.rrun(&["exec", "box", "true"]).fails(1);
    assert!(error.contains("container box is restarting\nhint: "), "{error}");
    let error = host.rrun(&["rm", "box"]).fails(1);
    assert!(error.contains("rrun stop box"), "{error}");
    host.rrun(&["prune", "-f"]).ok();
    host.rrun(&["stop", "box"]).ok();
    let count = host.restarts("box");
    assert_eq!(host.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 5");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(host.inspect("box", "{{.State.Status}}"), "exited");
    assert_eq!(host.restarts("box"), count);
    // The same for `kill` and for `rm -f`.
    for command in [["kill", "box"].as_slice(), &["rm", "-f", "box"]] {
        host.rrun(&["start", "box"]).ok();
        wait_until("it is started four times", || host.restarts("box") >= 4);
        host.wait_for("box", "restarting");
        host.rrun(command).ok();
        if command[0] == "kill" {
            host.wait_for("box", "exited");
        }
    }
    host.assert_empty();
}

#[test]
fn privileged_only_its_user_ends_a_container_that_always_runs() {
    let host = Host::new();
    let script = format!("{COUNT}; exec sleep 1000");
    let run = ["run", "-d", "--name", "box", "--restart", "unless-stopped", "busybox", "sh", "-c"];
    host.rrun(&[&run[..], &[&script]].concat()).ok();
    // Whoever kills its process is not its user.
    let first = host.inspect("box", "{{.State.Pid}}");
    kill(&first);
    wait_until("it runs again", || {
        host.restarts("box") == 1 && host.inspect("box", "{{.State.Status}}") == "running"
    });
    assert_eq!(host.rrun(&["exec", "box", "cat", "/starts"]).ok(), "start\nstart");
    for command in [["stop", "-t", "0", "box"].as_slice(), &["kill", "box"]] {
        host.rrun(&["start", "box"]).ok();
        host.rrun(command).ok();
        host.wait_for("box", "exited");
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!(host.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    }
    // `restart` is an end and a start by its user.
    host.rrun(&["restart", "box"]).ok();
    assert_eq!(host.inspect("box", "{{.State.Status}} {{.RestartCount}}"), "running 0");
    host.rrun(&["rm", "-f", "box"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_a_killed_watcher_leaves_a_restarting_container_ended() {
    let host = Host::new();
    let id = host
        .rrun(&["run", "-d", "--name", "box", "--restart=always", "busybox", "sh", "-c", "exit 6"])
        .ok();
    wait_until("it is started four times", || host.restarts("box") >= 4);
    host.wait_for("box", "restarting");
    kill(&host.watcher(&id));
    host.wait_for("box", "exited");
    assert_eq!(host.inspect("box", "{{.State.ExitCode}}"), "6");
    // The container that runs ends with its watcher, and nobody is left.
    host.rrun(&["update", "--restart", "no", "box"]).ok();
    let run = ["run", "-d", "--name", "long", "--restart=always", "busybox", "sleep", "1000"];
    let long = host.rrun(&run).ok();
    kill(&host.watcher(&long));
    host.wait_for("long", "exited");
    assert_eq!(host.inspect("long", "{{.State.ExitCode}}"), "255");
    host.rrun(&["start", "long"]).ok();
    host.rrun(&["rm", "-f", "box", "long"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_a_container_in_the_foreground_is_started_again_behind() {
    let host = Host::new();
    let script = format!("{COUNT}; test $(wc -l < /starts) -gt 2 && exec sleep 1000; exit 4");
    let run = ["run", "--name", "box", "--restart", "on-failure", "busybox", "sh", "-c", &script];
    let outcome = host.rrun(&run);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (4, "out 1\n"), "{outcome:?}");
    wait_until("it runs again", || {
        host.restarts("box") == 2 && host.inspect("box", "{{.State.Status}}") == "running"
    });
    assert_eq!(host.rrun(&["logs", "box"]).ok(), "out 1\nout 2\nout 3");
    host.rrun(&["rm", "-f", "box"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_a_restarted_container_has_its_address_and_ports() {
    let host = Host::new();
    let script = "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www";
    let run = ["run", "-d", "--name", "web", "--restart=always", "-p", "18080:80", "busybox"];
    host.rrun(&[&run[..], &["sh", "-c", script]].concat()).ok();
    let address = host.inspect("web", "{{.NetworkSettings.IPAddress}}");
    let fetch = "busybox wget -qO- http://127.0.0.1:18080/";
    wait_until("it answers", || host.shell(fetch).stdout == "hello\n");
    kill(&host.inspect("web", "{{.State.Pid}}"));
    wait_until("it runs again", || host.restarts("web") == 1);
    wait_until("it answers again", || host.shell(fetch).stdout == "hello\n");
    assert_eq!(host.inspect("web", "{{.NetworkSettings.IPAddress}}"), address);
    host.rrun(&["rm", "-f", "web"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_a_start_again_that_fails_is_told_by_inspect() {
    let host = Host::new();
    let source = host.path("source");
    fs::create_dir(&source).unwrap();
    let mount = format!("type=bind,source={},target=/mnt", source.display());
    let run = ["run", "-d", "--name", "box", "--restart=always", "--mount", &mount, "busybox"];
    host.rrun(&[&run[..], &["sleep", "1000"]].concat()).ok();
    fs::remove_dir(&source).unwrap();
    kill(&host.inspect("box", "{{.State.Pid}}"));
    host.wait_for("box", "exited");
    let error = host.inspect("box", "{{.State.ExitCode}} {{.State.Error}}");
    assert!(error.starts_with("137 ") && error.contains("does not exist"), "{error}");
    host.rrun(&["rm", "box"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_a_policy_is_changed_while_the_container_runs() {
    let host = Host::new();
    host.rrun(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    host.rrun(&["update", "--restart", "on-failure:7", "box"]).ok();
    kill(&host.inspect("box", "{{.State.Pid}}"));
    wait_until("it runs again", || {
        host.restarts("box") == 1 && host.inspect("box", "{{.State.Status}}") == "running"
    });
    host.rrun(&["update", "--restart", "no", "box"]).ok();
    kill(&host.inspect("box", "{{.State.Pid}}"));
    host.wait_for("box", "exited");
    assert_eq!(host.inspect("box", "{{.HostConfig.RestartPolicy.Name}}"), "no");
    // What cannot be asked for.
    let error = host.rrun(&["update", "--restart", "daily", "box"]).fails(125);
    assert!(error.contains("unknown policy 'daily'"), "{error}");
    let both = ["run", "--rm", "--restart", "always", "busybox", "true"];
    let error = host.rrun(&both).fails(125);
    assert!(error.contains("cannot specify both --restart and --rm"), "{error}");
    host.rrun(&["create", "--rm", "--name", "gone", "busybox", "true"]).ok();
    let error = host.rrun(&["update", "--restart", "always", "gone"]).fails(1);
    assert!(error.contains("--rm"), "{error}");
    host.rrun(&["rm", "box", "gone"]).ok();
    host.assert_empty();
}

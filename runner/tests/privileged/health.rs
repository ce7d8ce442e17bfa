//! Containers that are checked while they run.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Host, busybox_tar};

/// Checks whether a file is there, often.
const CHECK: [&str; 6] = [
    "--health-cmd",
    "echo looked; test -e /ok",
    "--health-interval=100ms",
    "--health-retries=2",
    "--name",
    "box",
];

impl Host {
    /// Waits until a container's checks say this.
    #[track_caller]
    fn wait_for_health(&self, status: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let found = self.inspect("box", "{{.State.Health.Status}}");
            if found == status {
                return;
            }
            assert!(Instant::now() < deadline, "it is {found}, not {status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts a container that is checked and sleeps.
    fn run_checked(&self, flags: &[&str]) -> String {
        let run = ["run", "-d"];
        self.rrun(&[&run[..], &CHECK, flags, &["busybox", "sleep", "1000"]].concat()).ok()
    }
}

#[test]
fn privileged_checks_say_whether_a_container_works() {
    let host = Host::new();
    let id = host.run_checked(&[]);
    host.wait_for_health("unhealthy");
    let status = || host.rrun(&["ps", "--format", "{{.Status}}"]).ok();
    assert!(status().ends_with(" (unhealthy)"), "{}", status());
    let last = "{{.State.Health.FailingStreak}} {{json .State.Health.Log}}";
    let last = host.inspect("box", last);
    assert!(last.contains(r#""ExitCode":1"#) && last.contains(r#""Output":"looked\n""#), "{last}");
    host.rrun(&["exec", "box", "touch", "/ok"]).ok();
    host.wait_for_health("healthy");
    assert!(status().ends_with(" (healthy)"), "{}", status());
    assert_eq!(host.inspect("box", "{{.State.Health.FailingStreak}}"), "0");
    let filtered =
        |health: &str| host.rrun(&["ps", "-q", "--filter", &format!("health={health}")]).ok();
    assert_eq!((filtered("healthy"), filtered("unhealthy")), (id[..12].to_owned(), String::new()));
    // Only the last five are kept, however many there were.
    std::thread::sleep(Duration::from_millis(800));
    let log = host.inspect("box", "{{json .State.Health.Log}}");
    assert_eq!(log.matches("ExitCode").count(), 5, "{log}");
    // Another start is checked anew.
    host.rrun(&["restart", "-t", "0", "box"]).ok();
    host.wait_for_health("healthy");
    host.rrun(&["rm", "-f", "box"]).ok();
    let error = host.rrun(&["ps", "--filter", "health=good"]).fails(125);
    assert!(error.contains("no health \"good\""), "{error}");
    host.assert_empty();
}

#[test]
fn privileged_a_check_of_the_image_may_be_left_out_and_may_hang() {
    let host = Host::new();
    host.add_image("checked", busybox_tar(), |config| {
        config.config.env = vec!["PATH=/bin".to_owned()];
        config.config.healthcheck = Some(
            oci::Json::parse(
                r#"{"Test":["CMD","sleep","1000"],"Interval":100000000,"Timeout":200000000,"Retries":1}"#,
            )
            .unwrap(),
        );
    });
    host.rrun(&["run", "-d", "--name", "box", "checked", "sleep", "1000"]).ok();
    assert_eq!(host.inspect("box", "{{.State.Health.Status}}"), "starting");
    host.wait_for_health("unhealthy");
    let log = host.inspect("box", "{{json .State.Health.Log}}");
    assert!(log.contains(r#""ExitCode":-1"#), "{log}");
    assert!(log.contains("Health check exceeded timeout (200ms)"), "{log}");
    // What took too long is gone: there are the container's process and at most one check.
    let processes = host.rrun(&["top", "box"]).ok().matches("sleep").count();
    assert!((1..=2).contains(&processes), "{processes}");
    host.rrun(&["run", "-d", "--name", "none", "--no-healthcheck", "checked", "sleep", "1000"])
        .ok();
    let status = host.rrun(&["ps", "--filter", "name=none", "--format", "{{.Status}}"]).ok();
    assert!(status.starts_with("Up ") && !status.contains('('), "{status}");
    let none = host.rrun(&["ps", "-q", "--filter", "health=none"]).ok();
    assert_eq!(none.lines().count(), 1);
    let both = ["run", "--no-healthcheck", "--health-retries", "2", "checked", "true"];
    let error = host.rrun(&both).fails(125);
    assert!(error.contains("--no-healthcheck conflicts with --health-* options"), "{error}");
    let error = host.rrun(&["run", "--health-interval", "soon", "checked", "true"]).fails(125);
    assert!(error.contains("\"soon\" is not a duration"), "{error}");
    host.rrun(&["rm", "-f", "box", "none"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_failures_do_not_count_while_a_container_begins() {
    let host = Host::new();
    host.run_checked(&["--health-start-period=1h", "--health-start-interval=50ms"]);
    std::thread::sleep(Duration::from_millis(800));
    let found = host.inspect("box", "{{.State.Health.Status}} {{.State.Health.FailingStreak}}");
    assert_eq!(found, "starting 0");
    let status = host.rrun(&["ps", "--format", "{{.Status}}"]).ok();
    assert!(status.ends_with(" (health: starting)"), "{status}");
    host.rrun(&["exec", "box", "touch", "/ok"]).ok();
    host.wait_for_health("healthy");
    host.rrun(&["exec", "box", "rm", "/ok"]).ok();
    host.wait_for_health("unhealthy");
    host.rrun(&["rm", "-f", "box"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_what_does_not_work_is_ended_or_started_anew() {
    let host = Host::new();
    host.run_checked(&["--health-on-failure", "stop"]);
    host.wait_for("box", "exited");
    host.rrun(&["rm", "box"]).ok();
    host.run_checked(&["--health-on-failure", "kill"]);
    host.wait_for("box", "exited");
    assert_eq!(
        host.inspect("box", "{{.State.ExitCode}} {{.State.Health.Status}}"),
        "137 unhealthy"
    );
    host.rrun(&["rm", "box"]).ok();
    // Killed by its checks is not stopped by its user.
    host.run_checked(&["--health-on-failure=kill", "--restart=always"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while host.inspect("box", "{{.RestartCount}}") != "1" {
        assert!(Instant::now() < deadline, "it is not started again");
        std::thread::sleep(Duration::from_millis(20));
    }
    host.rrun(&["rm", "-f", "box"]).ok();
    host.run_checked(&["--health-on-failure=restart"]);
    let first = host.inspect("box", "{{.State.Pid}}");
    let has_changed = || {
        let found = host.inspect("box", "{{.State.Status}} {{.State.Pid}}");
        found.starts_with("running") && found != format!("running {first}")
    };
    while !has_changed() {
        assert!(Instant::now() < deadline + Duration::from_secs(30), "it is not started anew");
        std::thread::sleep(Duration::from_millis(20));
    }
    host.rrun(&["rm", "-f", "box"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_a_container_in_the_foreground_is_checked_too() {
    let host = Host::new();
    let run = [&["run"][..], &CHECK, &["--health-on-failure=kill", "busybox", "sleep", "1000"]];
    let outcome = host.rrun(&run.concat());
    assert_eq!(outcome.code, 137, "{outcome:?}");
    host.rrun(&["rm", "box"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_nobody_checks_after_the_watcher_was_killed() {
    let host = Host::new();
    let id = host.run_checked(&[]);
    host.wait_for_health("unhealthy");
    let running = std::fs::read(host.root().join("containers").join(&id).join("running")).unwrap();
    let running: serde_json::Value = serde_json::from_slice(&running).unwrap();
    let shim = running["shim_pid"].to_string();
    assert!(Command::new("kill").args(["-9", &shim]).status().unwrap().success());
    host.wait_for("box", "exited");
    // One may be under way.
    std::thread::sleep(Duration::from_millis(300));
    let log = host.inspect("box", "{{json .State.Health.Log}}");
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(host.inspect("box", "{{json .State.Health.Log}}"), log);
    host.rrun(&["rm", "box"]).ok();
    host.assert_empty();
}

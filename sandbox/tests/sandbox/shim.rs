//! Containers that live on their own.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::Busybox;
use sandbox::shim::{ShimSpec, start};
use sandbox::{CgroupSpec, Limits, Running, Spec, cgroup};
use serde_json::Value;

fn shim(spec: Spec, directory: &Path, exit_command: &[&str]) -> ShimSpec {
    ShimSpec {
        spec,
        log: directory.join("log"),
        running: directory.join("running"),
        exit: directory.join("exit"),
        open_stdin: false,
        exit_command: exit_command.iter().map(ToString::to_string).collect(),
        restart: None,
        checks: None,
        keep: vec![OwnedFd::from(fs::File::open("/dev/null").unwrap())],
        farewell: sandbox::netlink::Messages::new(),
    }
}

fn wait_for(path: &Path) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn privileged_a_shim_keeps_the_log_and_the_end() {
    let busybox = Busybox::new();
    let directory = tempfile::tempdir().unwrap();
    let touched = directory.path().join("touched");
    let mut spec = busybox.shell("echo out; echo err >&2; sleep 0.2; printf 'no end'; exit 5");
    let name = format!("sandbox-test-{}-shim", std::process::id());
    spec.cgroup = Some(CgroupSpec {
        name: name.clone(),
        limits: Limits { pids: Some(50), ..Limits::default() },
        ..CgroupSpec::default()
    });
    let started =
        start(shim(spec, directory.path(), &["/bin/touch", touched.to_str().unwrap()])).unwrap();
    let running = wait_for(&directory.path().join("running"));
    assert_eq!(running["pid"], started.pid);
    assert_eq!(running["start_time"], started.start_time);
    assert_eq!(running["shim_pid"], started.shim_pid);
    let exit = wait_for(&directory.path().join("exit"));
    assert_eq!(
        (&exit["code"], &exit["signal"], &exit["oom_killed"]),
        (&5.into(), &Value::Null, &false.into())
    );
    let log = fs::read_to_string(directory.path().join("log")).unwrap();
    let records: Vec<&str> = log.lines().map(|line| &line[31..]).collect();
    assert!(records.contains(&"stdout F out") && records.contains(&"stderr F err"), "{log}");
    assert_eq!(records.last(), Some(&"stdout P no end"), "{log}");
    assert!(!cgroup::destroy(&name).unwrap(), "the control group is left");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !touched.exists() {
        assert!(Instant::now() < deadline, "the exit command does not run");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn privileged_a_killed_shim_takes_its_container_along() {
    let busybox = Busybox::new();
    let directory = tempfile::tempdir().unwrap();
    let mut spec = busybox.spec(&["sleep", "1000"]);
    let name = format!("sandbox-test-{}-killed", std::process::id());
    spec.cgroup = Some(CgroupSpec {
        name: name.clone(),
        limits: Limits { pids: Some(50), ..Limits::default() },
        ..CgroupSpec::default()
    });
    let started = start(shim(spec, directory.path(), &[])).unwrap();
    let container = Running { pid: started.pid, start_time: started.start_time };
    let shim = Running { pid: started.shim_pid, start_time: started.shim_start_time };
    let is_ours = |other: &str| other == name;
    assert!(cgroup::sweep(is_ours).unwrap().is_empty(), "swept while the shim lives");
    assert!(container.is_alive() && shim.is_alive());
    sandbox::send_signal(std::os::fd::AsFd::as_fd(&shim.open().unwrap()), 9).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while container.is_alive() {
        assert!(Instant::now() < deadline, "the container lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(cgroup::sweep(is_ours).unwrap(), [name.as_str()]);
    assert!(!directory.path().join("exit").exists());
}

#[test]
fn privileged_a_failed_start_is_told_and_leaves_nothing() {
    let busybox = Busybox::new();
    let directory = tempfile::tempdir().unwrap();
    let error = start(shim(busybox.spec(&["nosuch"]), directory.path(), &[])).unwrap_err();
    assert_eq!(error.exit_code(), 127, "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

//! Limits on the control groups that this host has.

use std::io::Read as _;
use std::time::Duration;

use crate::support::{Busybox, run, start};
use sandbox::{CgroupSpec, Error, Exit, Limits, Stdio, cgroup};

fn group(name: &str, limits: Limits) -> Option<CgroupSpec> {
    Some(CgroupSpec {
        name: format!("sandbox-test-{}-{name}", std::process::id()),
        limits,
        ..CgroupSpec::default()
    })
}

#[test]
fn privileged_limits_are_in_force_and_nothing_stays() {
    let busybox = Busybox::new();
    let mut spec = busybox.shell(
        "sleep 0.1; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 0.3 & done; wait; echo end",
    );
    spec.cgroup = group("pids", Limits { pids: Some(6), ..Limits::default() });
    let name = spec.cgroup.as_ref().unwrap().name.clone();
    let (sandbox, mut reader) = start(&spec).unwrap();
    assert!(cgroup::pids(&name).unwrap().contains(&sandbox.pid()));
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    assert!(output.contains("can't fork"), "{output}");
    sandbox.wait().unwrap();
    drop(sandbox);
    assert!(cgroup::pids(&name).unwrap().is_empty());
    assert!(!cgroup::destroy(&name).unwrap(), "the group is left");
}

#[test]
fn privileged_memory_is_limited_and_the_kill_is_noticed() {
    let busybox = Busybox::new();
    let mut spec =
        busybox.shell("head -c 200000000 /dev/zero | tail -c 190000000 > /dev/null; echo $?");
    spec.process.args[2] =
        "x=$(dd if=/dev/zero bs=1M count=100 2>/dev/null | tr '\\0' 'x'); echo survived".into();
    spec.cgroup = group("memory", Limits { memory_bytes: Some(24 << 20), ..Limits::default() });
    let (sandbox, mut reader) = start(&spec).unwrap();
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    let exit = sandbox.wait().unwrap();
    assert!(sandbox.oom_killed(), "{exit}: {output}");
    assert!(!output.contains("survived"));
    let peak = sandbox.memory_peak().unwrap();
    assert!(peak > 8 << 20 && peak <= 24 << 20, "{peak}");
}

#[test]
fn privileged_limits_can_be_seen_inside() {
    let busybox = Busybox::new();
    let mut spec = busybox.shell(
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; \
         cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null; \
         echo 1 > /sys/fs/cgroup/memory/memory.limit_in_bytes || echo refused",
    );
    spec.cgroup = group(
        "seen",
        Limits {
            memory_bytes: Some(64 << 20),
            cpus: Some(0.5),
            cpu_shares: Some(512),
            ..Limits::default()
        },
    );
    let (exit, output) = run(&spec).unwrap();
    assert_eq!(exit, Exit::Code(0), "{output}");
    assert!(
        output.contains("67108864") && output.contains("50000") && output.contains("refused"),
        "{output}"
    );
}

/// A container may make device nodes, but not read the host's disk.
#[test]
fn privileged_device_nodes_are_guarded() {
    let busybox = Busybox::new();
    let line = "rm -f /tmp/n /tmp/d /tmp/m; mknod /tmp/n c 1 3 && echo x > /tmp/n && echo null; \
                mknod /tmp/d b 254 0 && head -c 1 /tmp/d; mknod /tmp/m c 1 1 && head -c 1 /tmp/m";
    let mut spec = busybox.shell(line);
    spec.cgroup = group("devices", Limits::default());
    let (_, output) = run(&spec).unwrap();
    assert!(output.starts_with("null\n"), "{output}");
    assert_eq!(output.matches("not permitted").count(), 2, "{output}");
    // Without a control group nothing but the mount keeps them from use.
    spec.cgroup = None;
    let (_, output) = run(&spec).unwrap();
    assert_eq!(output.matches("ermission denied").count(), 3, "{output}");
}

#[test]
fn privileged_groups_of_the_dead_are_swept() {
    let busybox = Busybox::new();
    let mut spec = busybox.spec(&["sleep", "1000"]);
    spec.cgroup = group("swept", Limits { pids: Some(50), ..Limits::default() });
    let name = spec.cgroup.as_ref().unwrap().name.clone();
    let (sandbox, _reader) = start(&spec).unwrap();
    let is_ours = |other: &str| other == name;
    assert!(cgroup::sweep(is_ours).unwrap().is_empty(), "swept while it is used");
    assert!(sandbox.try_wait().unwrap().is_none(), "killed by the sweep");
    // Its owner goes without cleaning up, as after kill -9.
    let error = sandbox::spawn(&spec, Stdio::null()).unwrap_err();
    assert!(error.to_string().contains("control group"), "{error}");
    let running = sandbox::Running { pid: sandbox.pid(), start_time: sandbox.start_time() };
    sandbox.leave();
    assert_eq!(cgroup::sweep(is_ours).unwrap(), std::slice::from_ref(&name));
    assert!(!running.is_alive());
    // A process that another test is starting has inherited all locks for a moment, and the next
    // call sweeps what this one left for it.
    std::thread::sleep(Duration::from_millis(100));
    cgroup::sweep(is_ours).unwrap();
    assert!(!cgroup::destroy(&name).unwrap());
}

#[test]
fn privileged_limits_that_make_no_sense_are_refused() {
    let busybox = Busybox::new();
    let mut spec = busybox.spec(&["true"]);
    spec.cgroup = group("bad", Limits { memory_bytes: Some(1), ..Limits::default() });
    assert!(matches!(run(&spec), Err(Error::Invalid { .. })));
    spec.cgroup = Some(CgroupSpec {
        name: "../x".into(),
        limits: Limits::default(),
        ..CgroupSpec::default()
    });
    assert!(matches!(run(&spec), Err(Error::Invalid { .. })));
}

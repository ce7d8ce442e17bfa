//! What RUN steps may use and do: limits, networks, entitlements, devices. These need root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use crate::privileged::{BASE, logs, output, start, wait_until_gone, world};
use crate::world::World;

#[track_caller]
fn said(world: &World, lines: &str, arguments: &[&str]) -> Vec<String> {
    let arguments = [arguments, &["--progress", "json"]].concat();
    let built = world.build_with(&format!("{BASE}{lines}\n"), &arguments);
    assert_eq!(built.status, 0, "{lines}\n{}", built.stderr);
    logs(&built)
}

/// Returns the control groups of this name's beginning, in whatever tree.
fn groups(prefix: &str) -> Vec<PathBuf> {
    fn walk(directory: &Path, prefix: &str, depth: usize, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.push(entry.path());
            } else if depth > 0 {
                walk(&entry.path(), prefix, depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), prefix, 5, &mut found);
    found
}

/// Returns the control groups that a process is in, by name.
fn groups_of(child: &Child) -> Vec<String> {
    let children = format!("/proc/{0}/task", child.id());
    let mut names = Vec::new();
    for task in fs::read_dir(children).unwrap().flatten() {
        let pids = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for pid in pids.split_whitespace() {
            let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let name = text.lines().filter_map(|line| line.rsplit('/').next());
            names.extend(name.filter(|name| name.starts_with("rbuild-")).map(str::to_owned));
        }
    }
    names.sort();
    names.dedup();
    names
}

/// CVE-2024-23653: what a Dockerfile asks for is not what it gets.
#[test]
fn privileged_what_is_not_allowed_is_refused_before_anything_runs() {
    let world = world();
    for (flag, what) in
        [("--security=insecure", "security.insecure"), ("--network=host", "network.host")]
    {
        let failed = world.fail(&format!("{BASE}RUN echo ran\nRUN {flag} true\n"));
        assert!(failed.contains(&format!("{what} is not allowed")), "{failed}");
        assert!(failed.contains("Dockerfile:4"), "{failed}");
        assert!(!failed.contains("ran\n"), "{failed}");
        // The other one does not help, the one that was asked for does.
        let other = if what == "network.host" { "security.insecure" } else { "network.host" };
        let file = format!("{BASE}RUN {flag} true\n");
        assert_eq!(world.build_with(&file, &["--allow", other]).status, 1);
        assert_eq!(world.build_with(&file, &["--allow", what]).status, 0);
    }
    // A trigger of a base image is no way around it.
    world.build(&format!("{BASE}ONBUILD RUN --security=insecure true\n"));
    assert_eq!(world.run(&["tag", crate::world::NAME, "trigger/image"]).status, 0);
    let failed = world.fail("FROM trigger/image\n");
    assert!(failed.contains("security.insecure is not allowed"), "{failed}");
    let failed = world.build_with(BASE, &["--allow", "everything"]);
    assert_eq!(failed.status, 125);
    let failed = world.fail(&format!("{BASE}RUN --device=vendor.com/x=1 true\n"));
    assert!(failed.contains("RUN --device (CDI) is not supported yet"), "{failed}");
}

#[test]
fn privileged_an_insecure_run_has_all_of_root() {
    let world = world();
    let look = "k=/proc/sys/kernel/core_uses_pid; (cat $k > $k) 2> /dev/null && echo -n w; \
                mount -t tmpfs none /mnt 2> /dev/null && echo -n m; echo .";
    assert_eq!(output(&world, &format!("RUN mkdir /mnt && {look}")), ["."]);
    let line = format!("RUN --security=insecure mkdir /mnt && {look}");
    assert_eq!(said(&world, &line, &["--allow", "security.insecure"]), ["wm."]);
    let line = format!("RUN --security=sandbox mkdir /mnt; {look}");
    assert_eq!(said(&world, &line, &["--allow", "security.insecure"]), ["."]);
}

#[test]
fn privileged_the_network_is_the_one_that_was_asked_for() {
    let world = world();
    let count = "ip -o link | wc -l";
    let host: usize = output(&world, &format!("RUN {count}"))[0].parse().unwrap();
    assert_eq!(said(&world, &format!("RUN {count}"), &["--network", "none"]), ["1"]);
    assert_eq!(output(&world, &format!("RUN --network=none true; {count}")), ["1"]);
    let line = format!("RUN --network=default true && {count}");
    assert_eq!(said(&world, &line, &["--network", "none"]), ["1"], "default is what was asked for");
    let line = format!("RUN --network=host {count}");
    let arguments = ["--network", "none", "--allow", "network.host"];
    assert_eq!(said(&world, &line, &arguments), [host.to_string()]);
    let line = format!("{line}; true");
    assert_eq!(said(&world, &line, &["--network", "host"]), [host.to_string()]);
    assert_eq!(world.build_with(BASE, &["--network", "bridge"]).status, 125);
}

#[test]
fn privileged_hosts_are_added_and_their_addresses_are_no_reason_to_run_again() {
    let world = world();
    let arguments = ["--add-host", "db:10.0.0.1", "--add-host", "me=host-gateway"];
    let lines = said(&world, "RUN cat /etc/hosts", &arguments);
    assert_eq!(lines[2..], ["10.0.0.1\tdb", "127.0.0.1\tme"]);
    let build = |address: &str| {
        let host = format!("db:{address}");
        world.build_with(&format!("{BASE}RUN true\n"), &["--add-host", &host]).counts()
    };
    assert_eq!(build("10.0.0.1"), (1, 1));
    assert_eq!(build("10.0.0.2"), (2, 0));
    assert_eq!(world.build(&format!("{BASE}RUN true\n")).counts(), (1, 1), "the name counts");
    let line = "RUN (echo x >> /etc/hosts) 2> /dev/null || echo refused";
    assert_eq!(output(&world, line), ["refused"]);
    assert_eq!(world.layers().last().unwrap(), &[0; 1024]);
}

#[test]
fn privileged_resource_limits_are_in_force() {
    let world = world();
    let arguments = ["--ulimit", "nofile=123:456", "--ulimit", "core=0"];
    assert_eq!(
        said(&world, "RUN ulimit -Sn; ulimit -Hn; ulimit -c", &arguments),
        ["123", "456", "0"]
    );
    let file = format!("{BASE}RUN x=$(seq 9000000); echo survived\n");
    let failed = world.build_with(&file, &["--memory", "24m"]);
    assert_eq!(failed.status, 1, "{}", failed.stderr);
    assert!(failed.stderr.contains("exit code: 137: cannot allocate memory"), "{}", failed.stderr);
    let failed = world.build_with(&file, &["--memory", "1m"]);
    assert!(failed.stderr.contains("a memory limit must be at least 6 MiB"), "{}", failed.stderr);
    // What a limit is cannot be seen in the result.
    let file = format!("{BASE}RUN echo x > /x\n");
    assert_eq!(world.build_with(&file, &["--memory", "64m", "--cpus", "0.5"]).counts(), (1, 1));
    assert_eq!(world.build(&file).counts(), (2, 0));
    let look =
        "RUN cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2> /dev/null; true";
    let quota = said(&world, look, &["--cpus", "0.5"]);
    assert!(quota == ["50000"] || quota == ["50000 100000"], "{quota:?}");
}

/// A build needs no limits to have a control group: without one, device nodes that a step
/// makes could not be opened.
#[test]
fn privileged_device_nodes_work_and_the_host_s_disks_do_not() {
    let world = world();
    let line = "RUN mknod /null c 1 3 && echo x > /null && echo works; \
                mknod /disk b 253 0 && (cat /disk > /null) 2>&1; rm /disk /null";
    let lines = output(&world, line);
    assert_eq!(lines[0], "works");
    assert!(lines[1].ends_with("Operation not permitted"), "{lines:?}");
}

#[test]
fn privileged_a_step_has_a_group_and_tells_its_memory() {
    let world = world();
    let lines = "RUN x=$(seq 300000); echo ${#x} > /dev/null\n";
    let built = world.build_with(&format!("{BASE}{lines}"), &["--progress", "json"]);
    let peak = built.stderr.lines().find(|line| line.contains("memory_peak")).unwrap();
    let peak: serde_json::Value = serde_json::from_str(peak).unwrap();
    let bytes = peak["bytes"].as_u64().unwrap();
    assert!(bytes > 1 << 20 && bytes < 1 << 30, "{peak}");
    let built = world.build_with(&format!("{BASE}{lines}"), &["--progress", "plain", "--no-cache"]);
    let done = built.stderr.lines().find(|line| line.contains("peak memory")).unwrap();
    assert!(done.contains(" DONE "), "{done}");
}

#[test]
fn privileged_ctrl_c_and_kill_leave_no_process_and_no_group() {
    let world = world();
    // Killed: the processes go at once, the group with the next build.
    let mut child = start(&world, "RUN (sleep 3603 &) ; echo started; sleep 3603");
    let own = groups_of(&child);
    assert_eq!(own.len(), 1, "the step has one name in all trees");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until_gone("sleep\u{0}3603");
    world.build(&format!("{BASE}RUN echo next\n"));
    assert_eq!(groups(&own[0]), Vec::<PathBuf>::new());
    // Stopped: all of it at once.
    let mut child = start(&world, "RUN (sleep 3604 &) ; echo started; sleep 3604");
    let own = groups_of(&child);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    wait_until_gone("sleep\u{0}3604");
    assert_eq!(groups(&own[0]), Vec::<PathBuf>::new());
}

/// The parent has a name that begins as those of our groups do: other builds once took it
/// for one that a killed build had left, and removed it with the step inside.
#[test]
fn privileged_groups_are_made_where_they_are_wanted() {
    let world = world();
    let parent = format!("rbuild-test-{}", std::process::id());
    let arguments = ["--cgroup-parent", &format!("/{parent}"), "--memory", "64m"];
    said(&world, "RUN true", &arguments);
    let made = groups(&parent);
    assert!(!made.is_empty());
    for path in made {
        assert_eq!(groups_in(&path), 0, "{}", path.display());
        fs::remove_dir(path).unwrap();
    }
    assert_eq!(world.build_with(BASE, &["--cgroup-parent", "/../x"]).status, 125);
}

fn groups_in(path: &Path) -> usize {
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    fs::read_dir(path).unwrap().flatten().filter(is_dir).count()
}

#[test]
fn privileged_the_log_of_a_step_is_complete() {
    let world = world();
    let failed =
        world.fail(&format!("{BASE}RUN seq 20000; seq 20001 40000 >&2; echo end; exit 3\n"));
    let command = "process \"/bin/sh -c seq 20000; seq 20001 40000 >&2; echo end; exit 3\" \
                   did not complete successfully: exit code: 3";
    assert!(failed.contains(command), "{failed}");
    let log = failed.rsplit("output is in ").next().unwrap().trim();
    let log = fs::read_to_string(log).unwrap();
    let mut numbers: Vec<u32> = log.lines().filter_map(|line| line.parse().ok()).collect();
    numbers.sort_unstable();
    assert!(numbers == (1..=40000).collect::<Vec<u32>>(), "{} numbers", numbers.len());
    assert!(log.contains("end\n"));
    let failed = world.fail(&format!("{BASE}RUN sh -c 'kill -9 $$'; exit $?\n"));
    assert!(failed.contains("exit code: 137\n"), "{failed}");
}

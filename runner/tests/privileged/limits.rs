//! Limits are in force, not only written down.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Host, cgroups};

#[test]
fn privileged_memory_beyond_the_limit_kills() {
    let host = Host::new();
    // A line without end, which `tail` must keep.
    let hog = ["busybox", "sh", "-c", "tail /dev/zero"];
    let mut args = vec!["run", "--name", "hog", "--memory", "32m", "--memory-swap", "32m"];
    args.extend(hog);
    assert_eq!(host.rrun(&args).code, 137);
    assert_eq!(host.inspect("hog", "{{.State.OOMKilled}}"), "true");
    let mut args = vec!["run", "-d", "--name", "hidden", "--memory", "32m"];
    args.extend(hog);
    host.rrun(&args).ok();
    assert_eq!(host.rrun(&["wait", "hidden"]).ok(), "137");
    assert_eq!(host.inspect("hidden", "{{.State.OOMKilled}}"), "true");
    host.rrun(&["rm", "hog", "hidden"]).ok();
    host.rrun(&["run", "--rm", "--memory", "32m", "busybox", "true"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_processes_beyond_the_limit_are_refused() {
    let host = Host::new();
    let script = "i=0; while [ $i -lt 30 ]; do sleep 2 & i=$((i+1)); done; echo all";
    let limited = host.rrun(&["run", "--rm", "--pids-limit", "10", "busybox", "sh", "-c", script]);
    assert!(limited.stderr.contains("fork"), "{limited:?}");
    assert_ne!(limited.stdout, "all\n");
    let free = host.rrun(&["run", "--rm", "busybox", "sh", "-c", script]);
    assert_eq!(free.ok(), "all");
}

#[test]
fn privileged_processor_time_is_a_quota() {
    let host = Host::new();
    host.rrun(&["run", "-d", "--name", "slow", "--cpus", "0.25", "busybox", "sleep", "100"]).ok();
    let pid = host.inspect("slow", "{{.State.Pid}}");
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let quota = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|controller| controller == "cpu") {
            let dir = PathBuf::from("/sys/fs/cgroup").join(controllers).join(path);
            let read =
                |name: &str| fs::read_to_string(dir.join(name)).ok()?.trim().parse::<f64>().ok();
            return Some(read("cpu.cfs_quota_us")? / read("cpu.cfs_period_us")?);
        }
        let text =
            fs::read_to_string(PathBuf::from("/sys/fs/cgroup").join(path).join("cpu.max")).ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    });
    assert_eq!(quota, Some(0.25), "{groups}");
}

#[test]
fn privileged_resource_limits_are_as_asked_or_refused() {
    let host = Host::new();
    let ulimit = |options: &[&str], what: &str| {
        let mut words = vec!["run", "--rm"];
        words.extend(options);
        words.extend(["busybox", "sh", "-c", what]);
        host.rrun(&words)
    };
    assert_eq!(ulimit(&["--ulimit", "nofile=64:128"], "ulimit -Sn; ulimit -Hn").ok(), "64\n128");
    assert_eq!(ulimit(&["--ulimit", "core=0"], "ulimit -c").ok(), "0");
    let error = ulimit(&["--ulimit", "files=3"], "true").fails(125);
    assert!(error.contains("no resource \"files\""), "{error}");
}

#[test]
fn privileged_limits_are_changed_while_it_runs_and_for_the_next_start() {
    let host = Host::new();
    let limits = ["--memory", "64m", "--pids-limit", "50"];
    let mut words = vec!["run", "-d", "--name", "box"];
    words.extend(limits);
    words.extend(["busybox", "sleep", "1000"]);
    let id = host.rrun(&words).ok();
    let memory = || {
        let files = ["memory.max", "memory.limit_in_bytes"];
        let read =
            |dir: &PathBuf| files.iter().find_map(|it| fs::read_to_string(dir.join(it)).ok());
        cgroups(&id).iter().find_map(read).unwrap().trim().parse::<u64>().unwrap()
    };
    assert_eq!(memory(), 64 << 20);
    let fork = "i=0; while [ $i -lt 30 ]; do sleep 1 & i=$((i+1)); done; echo all";
    assert_eq!(host.rrun(&["exec", "box", "sh", "-c", fork]).ok(), "all");
    // Less, and then more than memory and swap together were.
    let update = |options: &[&str]| {
        let mut words = vec!["update"];
        words.extend(options);
        words.push("box");
        host.rrun(&words)
    };
    assert_eq!(update(&["--memory", "32m", "--pids-limit", "10"]).ok(), "box");
    assert_eq!(memory(), 32 << 20);
    // Either the shell cannot start more, or it is not started itself.
    assert_ne!(host.rrun(&["exec", "box", "sh", "-c", fork]).stdout, "all\n");
    update(&["--memory", "256m", "--pids-limit", "-1"]).ok();
    assert_eq!(memory(), 256 << 20);
    assert_eq!(
        host.inspect("box", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"),
        "268435456 <no value>"
    );
    host.rrun(&["stop", "box"]).ok();
    update(&["--memory", "48m"]).ok();
    host.rrun(&["start", "box"]).ok();
    assert_eq!(memory(), 48 << 20);

    let error = update(&["--memory-swap", "16m"]).fails(1);
    assert!(error.contains("it cannot be less than --memory (48 MiB)"), "{error}");
    assert!(update(&[]).fails(1).contains("nothing to change was given"));
    // Where a controller has no group for it, that is said.
    let outcome = update(&["--cpus", "0.5"]);
    let words = "it was started without a limit on cpus, so none can be set while it runs";
    assert!(outcome.code == 0 || outcome.stderr.contains(words), "{outcome:?}");
    assert_eq!(memory(), 48 << 20);
    host.rrun(&["rm", "-f", "box"]).ok();
    host.assert_empty();
}

//! Limits are in force, not only written down.

use std::fs;
use std::path::PathBuf;

use crate::harness::Host;

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

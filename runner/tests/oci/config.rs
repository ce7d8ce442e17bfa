//! What a configuration asks for is there.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::Bundle;

#[test]
fn privileged_a_process_has_its_ids_capabilities_and_limits() {
    let mut bundle = Bundle::new(
        "id; umask; ulimit -n; grep -e Cap -e NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj; echo $HOME",
    );
    bundle.config["process"]["user"] =
        json!({"uid": 1000, "gid": 1001, "additionalGids": [7], "umask": 0o27});
    bundle.config["process"]["oomScoreAdj"] = json!(500);
    bundle.config["process"]["rlimits"] =
        json!([{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}]);
    let kill = json!(["CAP_KILL"]);
    bundle.config["process"]["capabilities"] = json!({
        "bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": kill, "permitted": kill,
        "inheritable": kill, "ambient": kill
    });
    assert_eq!(
        bundle.run().ok(),
        "uid=1000 gid=1001 groups=7\n0027\n99\n\
         CapInh:\t0000000000000020\nCapPrm:\t0000000000000020\nCapEff:\t0000000000000020\n\
         CapBnd:\t0000000000000021\nCapAmb:\t0000000000000020\nNoNewPrivs:\t1\n500\n/"
    );
}

#[test]
fn privileged_every_namespace_is_new_when_asked_for() {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let script = format!(
        "for n in {}; do readlink /proc/self/ns/$n; done; cat /proc/self/uid_map; touch /data/new",
        kinds.join(" ")
    );
    let mut bundle = Bundle::new(&script);
    bundle.namespace("user", Some(json!({"type": "user"})));
    bundle.namespace("time", Some(json!({"type": "time"})));
    bundle.config["linux"]["timeOffsets"] =
        json!({"boottime": {"secs": 1_000_000_000, "nanosecs": 0}});
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    // As engines do it: the root's files belong to the container's root.
    for name in ["", "data"] {
        std::os::unix::fs::chown(bundle.root(name), Some(100_000), Some(100_000)).unwrap();
    }
    let shown = bundle.run().ok();
    let mut lines = shown.lines();
    for kind in kinds {
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let inside = lines.next().unwrap();
        assert!(inside.starts_with(&format!("{kind}:[")), "{inside}");
        assert_ne!(own.to_str().unwrap(), inside);
    }
    assert_eq!(
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536"]
    );
    let made = fs::metadata(bundle.root("data/new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 100_000);
    bundle.config["process"]["args"] = json!(["sh", "-c", "cut -d. -f1 /proc/uptime"]);
    let uptime: u64 = bundle.run().ok().parse().unwrap();
    assert!(uptime > 1_000_000_000, "{uptime}");
}

/// A process in namespaces of its own.
struct Other(Child);

impl Other {
    fn new() -> Self {
        let child = Command::new("unshare")
            .args(["--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "sleep", "1000"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Returns the file of a namespace.
    fn file(&self, kind: &str) -> String {
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let name = if kind == "pid" { "pid_for_children" } else { kind };
        crate::bundle::wait_until("namespaces", || {
            let path = format!("/proc/{}/ns/{name}", self.0.id());
            fs::read_link(&path).is_ok_and(|other| other != own).then_some(path)
        })
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn privileged_namespaces_are_joined_by_path() {
    let other = Other::new();
    let mut bundle = Bundle::new("for n in ipc net uts pid; do readlink /proc/self/ns/$n; done");
    let mut expected = Vec::new();
    for (kind, name) in [("ipc", "ipc"), ("network", "net"), ("uts", "uts"), ("pid", "pid")] {
        let path = other.file(name);
        expected.push(fs::read_link(&path).unwrap().to_str().unwrap().to_owned());
        bundle.namespace(kind, Some(json!({"type": kind, "path": path})));
    }
    bundle.config.as_object_mut().unwrap().remove("hostname");
    assert_eq!(bundle.run().ok().lines().collect::<Vec<_>>(), expected);
    bundle.namespace("uts", Some(json!({"type": "uts", "path": "/etc/passwd"})));
    assert!(bundle.run().fails(1).contains("/etc/passwd is not a namespace"));
    bundle.namespace("uts", Some(json!({"type": "uts", "path": other.file("ipc")})));
    assert!(bundle.run().fails(1).contains("cannot join the namespace"));
}

#[test]
fn privileged_mounts_have_their_options() {
    let mut bundle = Bundle::new(
        "grep -e ' /a ' -e ' /b ' -e ' /c ' -e ' /data ' /proc/self/mountinfo | cut -d' ' -f5-7; cat /data/seed; (touch /a/x) 2>&1",
    );
    let source = bundle.path("source");
    fs::create_dir(&source).unwrap();
    for (target, options) in [
        ("/a", json!(["bind", "ro", "nosuid", "nodev", "noexec", "noatime"])),
        ("/b", json!(["rbind", "rro", "rnosuid", "rslave"])),
    ] {
        bundle
            .push("/mounts", json!({"destination": target, "source": source, "options": options}));
    }
    bundle.push(
        "/mounts",
        json!({"destination": "/c", "type": "tmpfs", "source": "c", "options": ["size=1m", "mode=700", "ro", "noexec", "rshared"]}),
    );
    bundle.push(
        "/mounts",
        json!({"destination": "/data", "type": "tmpfs", "source": "d", "options": ["tmpcopyup", "nosuid"]}),
    );
    let shown = bundle.run().stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0].trim_end_matches(" -"), "/a ro,nosuid,nodev,noexec,noatime");
    assert!(lines[1].starts_with("/b ro,nosuid,"), "{}", lines[1]);
    assert!(lines[2].starts_with("/c ro,noexec,relatime shared:"), "{}", lines[2]);
    assert!(lines[3].starts_with("/data rw,nosuid,relatime"), "{}", lines[3]);
    assert_eq!(lines[4], "from the image");
    assert!(lines[5].contains("Read-only file system"), "{}", lines[5]);
    bundle.push("/mounts", json!({"destination": "/e", "type": "tmpfs", "options": ["nosuch=1"]}));
    assert!(bundle.run().fails(1).contains("mount tmpfs at /e with the option nosuch=1"));
}

#[test]
fn privileged_ids_of_a_mount_are_mapped() {
    let mut bundle = Bundle::new("stat -c %u:%g /mapped/file; touch /mapped/new");
    let source = bundle.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    let map = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1000}]);
    bundle.push(
        "/mounts",
        json!({"destination": "/mapped", "source": source, "options": ["rbind"],
            "uidMappings": map(5000), "gidMappings": map(6000)}),
    );
    // What is 0 on disk is seen as 5000, and the container's 0 is nobody's.
    assert_eq!(bundle.run().stdout, "5000:6000\n");
}

#[test]
fn privileged_paths_are_masked_and_protected_and_parameters_set() {
    let mut bundle = Bundle::new(
        "cat /data/seed; ls /etc; (touch /tmp/x) 2>&1; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni; hostname; cat /proc/sys/kernel/domainname; (echo 1 > /proc/sys/kernel/shmmni) 2>&1",
    );
    bundle.config["linux"]["maskedPaths"] = json!(["/data/seed", "/etc", "/nosuch/path"]);
    bundle.push("/linux/readonlyPaths", json!("/tmp"));
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shmmni": "77"});
    bundle.config["hostname"] = json!("host-name");
    bundle.config["domainname"] = json!("domain-name");
    let shown = bundle.run().stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 6, "{shown}");
    assert!(lines[0].contains("Read-only file system"));
    assert_eq!(lines[1..5], ["1", "77", "host-name", "domain-name"]);
    assert!(lines[5].contains("Read-only file system"));
}

#[test]
fn privileged_devices_are_made_and_guarded() {
    let mut bundle = Bundle::new(
        "stat -c '%F %t:%T %a %u:%g' /dev/fuse2 /dev/sub/loop /dev/null; \
         dd if=/dev/zero of=/dev/null count=1 2>/dev/null && echo zero; \
         mknod /dev/mem2 c 1 1 && (cat /dev/mem2 >/dev/null) 2>&1 | grep -o 'not permitted'",
    );
    for set in ["bounding", "permitted", "effective"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
    }
    bundle.config["linux"]["devices"] = json!([
        {"path": "/dev/fuse2", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/dev/sub/loop", "type": "b", "major": 7, "minor": 0}
    ]);
    assert_eq!(
        bundle.run().stdout,
        "character special file a:e5 640 5:6\nblock special file 7:0 666 0:0\n\
         character special file 1:3 666 0:0\nzero\nnot permitted\n"
    );
}

#[test]
fn privileged_resources_are_limited_and_changed() {
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.config["linux"]["resources"] = json!({
        "memory": {"limit": 64 << 20, "swap": 128 << 20},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 20}
    });
    bundle.start();
    let read = |names: [&str; 2]| {
        let found = bundle.cgroups().into_iter().find_map(|group| {
            names.iter().find_map(|name| fs::read_to_string(group.join(name)).ok())
        });
        found.unwrap().trim().to_owned()
    };
    let memory = ["memory.limit_in_bytes", "memory.max"];
    let pids = ["pids.max", "pids.max"];
    assert_eq!(read(memory), "67108864");
    assert_eq!(read(pids), "20");
    assert_eq!(read(["cpuset.cpus", "cpuset.cpus"]), "0");
    assert!(["50000", "50000 100000"].contains(&read(["cpu.cfs_quota_us", "cpu.max"]).as_str()));
    // Above the old limit on memory and swap together, and below again.
    let update = |memory: &str, swap: &str| {
        bundle.command(&["update", "--memory", memory, "--memory-swap", swap, "c"])
    };
    update("268435456", "268435456").ok();
    assert_eq!(read(memory), "268435456");
    update("33554432", "33554432").ok();
    assert_eq!(read(memory), "33554432");
    let file = bundle.path("resources.json");
    fs::write(&file, r#"{"pids":{"limit":33}}"#).unwrap();
    bundle.command(&["update", "--resources", file.to_str().unwrap(), "c"]).ok();
    assert_eq!(read(pids), "33");
    let stats: Value =
        serde_json::from_str(&bundle.command(&["events", "--stats", "c"]).ok()).unwrap();
    assert_eq!(stats["type"], "stats");
    assert_eq!(stats["data"]["pids"], json!({"current": 1, "limit": 33}));
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 33_554_432);
    assert!(stats["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
}

#[test]
fn privileged_the_filter_is_that_of_the_configuration() {
    let mut bundle =
        Bundle::new("(mkdir /data/x) 2>&1; hostname new 2>&1; grep Seccomp: /proc/self/status");
    std::os::unix::fs::symlink("busybox", bundle.root("bin/mkdir")).unwrap();
    bundle.config["process"]["noNewPrivileges"] = json!(false);
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]
    });
    let shown = bundle.run().stdout;
    assert!(shown.contains("No space left on device"), "{shown}");
    assert!(shown.ends_with("Seccomp:\t2\n"), "{shown}");
    // What is started later has it, too.
    bundle.config["process"]["args"] = json!(["sleep", "1000"]);
    bundle.start();
    assert!(bundle.command(&["exec", "c", "mkdir", "/data/y"]).fails(1).contains("No space left"));
    bundle.command(&["delete", "--force", "c"]).ok();
    bundle.config["linux"]["seccomp"]["defaultAction"] = json!("SCMP_ACT_NOTIFY");
    assert!(bundle.run().fails(1).contains("SCMP_ACT_NOTIFY"));
}

#[test]
fn privileged_what_is_not_supported_is_refused() {
    let bundle = Bundle::new("true");
    assert!(bundle.command(&["--systemd-cgroup", "state", "c"]).fails(1).contains("cgroupfs"));
    let mut bundle = bundle;
    bundle.config["process"]["selinuxLabel"] = json!("system_u:object_r:x:s0");
    assert_eq!(bundle.run().fails(1), "error: process.selinuxLabel is not supported yet\n");
    bundle.config["ociVersion"] = json!("2.0.0");
    assert!(bundle.run().fails(1).contains("1.x is supported"));
}

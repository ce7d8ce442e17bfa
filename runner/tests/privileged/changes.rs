//! What a container has changed, and what it uses: `diff` and `stats`.

use crate::harness::Host;

#[test]
fn privileged_changes_of_a_containers_files_are_listed() {
    let host = Host::new();
    let script = "echo x >/data/new; mkdir -p /data/deep/er; echo y >>/data/seed; rm /etc/group; \
                  rm -r /home/app; mkdir /home/app; echo z >/home/app/z; ln -s /nowhere /tmp/link; echo done; sleep 1000";
    host.rrun(&["run", "-d", "--name", "box", "--tmpfs", "/work", "busybox", "sh", "-c", script])
        .ok();
    while host.rrun(&["logs", "box"]).stdout != "done\n" {}
    let expected = "C /data\nA /data/deep\nA /data/deep/er\nA /data/new\nC /data/seed\nC /etc\nD /etc/group\n\
                    C /home\nC /home/app\nA /home/app/z\nC /tmp\nA /tmp/link\nA /work";
    assert_eq!(host.rrun(&["diff", "box"]).ok(), expected);
    host.rrun(&["stop", "box"]).ok();
    assert_eq!(host.rrun(&["diff", "box"]).ok(), expected, "it need not run");
    host.rrun(&["create", "--name", "untouched", "busybox", "true"]).ok();
    assert_eq!(host.rrun(&["diff", "untouched"]).ok(), "");
    let error = host.rrun(&["diff", "nobody"]).fails(1);
    assert!(error.contains("no such container: nobody"), "{error}");
    host.rrun(&["rm", "-f", "box", "untouched"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_what_containers_use_is_shown() {
    let host = Host::new();
    let busy = "yes >/dev/null & yes >/dev/null & wait";
    host.rrun(&["run", "-d", "--name", "busy", "--memory", "64m", "busybox", "sh", "-c", busy])
        .ok();
    host.rrun(&["run", "-d", "--name", "idle", "--network", "none", "busybox", "sleep", "1000"])
        .ok();
    host.rrun(&["create", "--name", "never", "busybox", "true"]).ok();
    let stats = |args: &[&str]| {
        let mut words = vec!["stats", "--no-stream"];
        words.extend(args);
        host.rrun(&words).ok()
    };
    let table = stats(&[]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("CONTAINER ID   NAME   CPU %"), "{table}");
    assert_eq!(lines.len(), 3, "{table}");
    let format = "{{.Name}} {{.CPUPerc}} {{.PIDs}} {{.MemUsage}}";
    let busy = stats(&["--format", format, "busy"]);
    let words: Vec<&str> = busy.split(' ').collect();
    assert_eq!((words[0], words[2], words[4], words[5]), ("busy", "3", "/", "64MiB"), "{busy}");
    let share: f64 = words[1].strip_suffix('%').unwrap().parse().unwrap();
    assert!(share > 1.0, "{busy}");
    let idle = stats(&["--format", "{{.Name}} {{.CPUPerc}} {{.PIDs}} {{.NetIO}}", "idle"]);
    assert_eq!(idle, "idle 0.00% 1 0B / 0B");
    assert_eq!(stats(&["--format", "{{.Name}} {{.PIDs}}", "never"]), "never 0");
    let error = host.rrun(&["stats", "--no-stream", "nobody"]).fails(1);
    assert!(error.contains("no such container: nobody"), "{error}");
    host.rrun(&["rm", "-f", "busy", "idle", "never"]).ok();
}

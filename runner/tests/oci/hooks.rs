//! The six kinds of hooks.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::Bundle;

/// A hook that notes its name, where it is, and what it is told.
fn note(log: &Path, name: &str) -> Value {
    let script = format!(
        "state=$(cat); echo \"{name} $(readlink /proc/self/ns/uts) $(test -e /data/seed && echo inside) $state\" >> {}",
        log.display()
    );
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]})
}

#[test]
fn privileged_hooks_come_in_order_and_in_their_namespaces() {
    let mut bundle = Bundle::new("exec sleep 1000");
    let log = bundle.path("log");
    fs::write(&log, "").unwrap();
    // The hook in the root writes to the same file.
    bundle.push(
        "/mounts",
        json!({"destination": log, "source": log, "type": "bind", "options": ["bind"]}),
    );
    let kinds =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    bundle.config["hooks"] =
        kinds.iter().map(|kind| (kind.to_string(), json!([note(&log, kind)]))).collect();
    bundle.create().ok();
    let read = || -> Vec<(String, String, bool, Value)> {
        let text = fs::read_to_string(&log).unwrap();
        text.lines()
            .map(|line| {
                let (head, state) = line.split_once('{').unwrap();
                let words: Vec<&str> = head.split_whitespace().collect();
                let state = serde_json::from_str(&format!("{{{state}")).unwrap();
                (words[0].to_owned(), words[1].to_owned(), words.contains(&"inside"), state)
            })
            .collect()
    };
    let names = |list: &[(String, String, bool, Value)]| -> Vec<String> {
        list.iter().map(|(name, ..)| name.clone()).collect()
    };
    assert_eq!(names(&read()), ["prestart", "createRuntime", "createContainer"]);
    bundle.command(&["start", "c"]).ok();
    assert_eq!(names(&read()).len(), 5);
    let pid = bundle.state("pid");
    bundle.command(&["delete", "--force", "c"]).ok();
    let all = read();
    assert_eq!(names(&all), kinds);
    let own = fs::read_link("/proc/self/ns/uts").unwrap();
    let in_runtime: Vec<bool> = all.iter().map(|(_, ns, ..)| Path::new(ns) == own).collect();
    assert_eq!(in_runtime, [true, true, false, false, true, true]);
    let in_root: Vec<bool> = all.iter().map(|(_, _, inside, _)| *inside).collect();
    assert_eq!(in_root, [false, false, false, true, false, false]);
    for (name, _, _, state) in &all[..5] {
        assert_eq!((&state["id"], &state["pid"]), (&json!("c"), &pid), "{name}");
    }
    assert_eq!(all[0].3["status"], "creating");
    assert_eq!(all[5].3["status"], "stopped");
}

#[test]
fn privileged_a_hook_that_fails_or_hangs_ends_the_creation() {
    let mut bundle = Bundle::new("exec sleep 1000");
    for (hook, said) in [
        (json!({"path": "/bin/false"}), "the createRuntime hook /bin/false failed: exit status: 1"),
        (json!({"path": "/nosuch"}), "cannot run the createRuntime hook /nosuch: No such file"),
        (
            json!({"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}),
            "cannot run the createRuntime hook /bin/sleep: timed out",
        ),
    ] {
        bundle.config["hooks"] = json!({"createRuntime": [hook]});
        let error = bundle.create().fails(1);
        assert!(error.contains(said), "{error}");
        assert_eq!(bundle.command(&["list", "--quiet"]).ok(), "");
        assert!(bundle.cgroups().is_empty());
    }
    bundle.config["hooks"] = json!({"createContainer": [{"path": "/bin/false"}]});
    assert!(bundle.create().fails(1).contains("createContainer hook /bin/false failed"));
    bundle.config["hooks"] = json!({"startContainer": [{"path": "/bin/false"}]});
    bundle.create().ok();
    assert!(bundle.command(&["start", "c"]).fails(1).contains("startContainer hook /bin/false"));
}

//! What a registry does with its configuration: at its start, and when it changes.

use std::ffi::OsStr;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::client;
use crate::support::process::Process;
use crate::world::{CONFIG, add_user, password};

fn run(arguments: &[&OsStr]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rregistry")).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A section that nobody understands must not be as if it were not there.
#[test]
fn a_broken_configuration_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    for (text, expected) in [
        ("[acess]\n", "line 1, column 2"),
        ("[access]\npolicy = []\n", "line 2, column 1"),
        ("[access]\nusers-file = \"none\"\n", "cannot read"),
        ("[access]\n", "nobody may do anything"),
        ("[tls]\ncertificate = \"a\"\nkey = \"b\"\n", "cannot read"),
        ("[storage]\nroot = \"root\"\nurl = \"s3://a\"\n", "not both"),
    ] {
        std::fs::write(&path, text).unwrap();
        let serve = ["serve", "--listen", "127.0.0.1:0", "--config"].map(OsStr::new);
        let check = ["config", "check"].map(OsStr::new);
        let (code, message) = run(&[&serve[..], &[path.as_os_str()]].concat());
        assert_eq!(code, Some(1), "served with {text}");
        assert!(message.contains(expected), "{expected} is not in {message}");
        if !text.starts_with("[storage]") {
            let (code, message) = run(&[&check[..], &[path.as_os_str()]].concat());
            assert_eq!(code, Some(1));
            assert!(message.contains(expected), "{expected} is not in {message}");
        }
    }
    assert!(!directory.path().join("root").exists());
}

fn configure(directory: &Path, more: &str) {
    let text = format!("{more}\n[storage]\nroot = \"root\"\n{CONFIG}");
    std::fs::write(directory.join("config.toml"), text).unwrap();
}

async fn status(process: &Process, user: &str, path: &str) -> u16 {
    let request = client().get(format!("{}{path}", process.url));
    let request = request.basic_auth(user, Some(password(user)));
    request.send().await.unwrap().status().as_u16()
}

/// Waits until a change has come through.
async fn becomes(process: &Process, user: &str, path: &str, expected: u16) {
    let mut last = 0;
    for _ in 0..100 {
        last = status(process, user, path).await;
        if last == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{user} {path} is {last}, not {expected}");
}

#[tokio::test]
async fn changes_are_used_without_a_restart_and_broken_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    add_user(&users, "admin");
    add_user(&users, "maker");
    configure(directory.path(), "");
    let config = directory.path().join("config.toml");
    let arguments = [OsStr::new("--config"), config.as_os_str()];
    let mut process = Process::with(arguments, Stdio::piped());
    assert_eq!(status(&process, "admin", "/v2/").await, 200);
    assert_eq!(status(&process, "later", "/v2/").await, 401);
    // Without a signal: files are looked at every two seconds.
    add_user(&users, "later");
    becomes(&process, "later", "/v2/", 200).await;
    // A broken file of users, and a broken configuration: what was, stays.
    std::fs::write(&users, "later:plain\n").unwrap();
    process.signal(Signal::HUP);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(status(&process, "admin", "/v2/").await, 200);
    std::fs::write(&config, "[access").unwrap();
    process.signal(Signal::HUP);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(status(&process, "admin", "/v2/").await, 200);
    assert_eq!(status(&process, "nobody", "/v2/").await, 401);
    // Repaired, and read-only now.
    let repaired = directory.path().join("repaired");
    add_user(&repaired, "maker");
    std::fs::rename(&repaired, &users).unwrap();
    configure(directory.path(), "read-only = true");
    process.signal(Signal::HUP);
    becomes(&process, "admin", "/v2/", 401).await;
    let request = client().post(format!("{}/v2/team/a/blobs/uploads/", process.url));
    let refused = request.basic_auth("maker", Some(password("maker"))).send().await.unwrap();
    assert_eq!(refused.status(), 405);

    // A wrong password: whose it was is told where a user has the name; any other name may be
    // a password in the wrong field.
    for (name, secret) in [("maker", "wrong-password"), ("name-or-password", "x")] {
        let request = client().get(format!("{}/v2/", process.url));
        let refused = request.basic_auth(name, Some(secret)).send().await.unwrap();
        assert_eq!(refused.status(), 401);
    }

    process.signal(Signal::TERM);
    let mut log = String::new();
    process.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(log.matches("the configuration cannot be used; the one before stays").count(), 2);
    assert!(log.contains("line 1: passwords are hashed by argon2"), "{log}");
    // CVE-2025-48374: who did it is told, how they proved it is not.
    for secret in [password("admin"), password("maker"), password("later")] {
        assert!(!log.contains(&secret), "the log has a password:\n{log}");
    }
    assert!(!log.contains("argon2id$"), "the log has a hash:\n{log}");
    assert!(log.contains("audit") && log.contains("user=\"maker\""), "{log}");
    assert!(log.contains("tried=\"maker\""), "{log}");
    assert!(!log.contains("wrong-password") && !log.contains("name-or-password"), "{log}");
}

/// What `config schema` prints is JSON, and knows the sections.
#[test]
fn the_schema_is_printed() {
    let output = Command::new(env!("CARGO_BIN_EXE_rregistry")).args(["config", "schema"]).output();
    let output = output.unwrap();
    assert!(output.status.success());
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(schema["properties"]["access"].is_object());
}

//! Secrets and agents in RUN: seen by their step, and nowhere else. These need root.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;

use crate::mounts::said;
use crate::privileged::{BASE, logs, world};
use crate::world::Built;

/// Returns every file below a directory that has this text in it or in its name.
fn holding(directory: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if path.to_string_lossy().contains(text) {
            found.push(path.display().to_string());
        }
        if kind.is_dir() {
            found.extend(holding(&path, text));
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap();
            if content.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[test]
fn privileged_a_secret_is_seen_by_its_step_and_nowhere_else() {
    const CANARY: &str = "tweet-4711-tweet";
    let world = world();
    let file = world.root().with_file_name("secret");
    fs::write(&file, format!("{CANARY}\n")).unwrap();
    let secret = format!("id=s,src={}", file.display());
    let lines = "RUN --mount=type=secret,id=s stat -c '%a %u:%g %s' /run/secrets/s; ls /run/secrets\n\
         RUN --mount=type=secret,id=s,target=/k,mode=0440,uid=7,gid=8 stat -c '%a %u:%g' /k\n\
         RUN --mount=type=secret,id=s,env=TOKEN echo ${#TOKEN}; ls /run 2> /dev/null | wc -l\n\
         RUN --mount=type=secret,id=s,target=/k,env=TOKEN test \"$(cat /k)\" = \"$(echo $TOKEN)\" && echo same\n\
         RUN --mount=type=secret,id=s cat /run/secrets/s; echo \"in $(cat /run/secrets/s) text\" >&2\n\
         RUN --mount=type=secret,id=missing test ! -e /run/secrets/missing && echo gone\n";
    let mut all = String::new();
    for progress in ["json", "plain"] {
        let arguments = ["--secret", &secret, "--progress", progress, "--no-cache"];
        let built = world.build_with(&format!("{BASE}{lines}"), &arguments);
        assert_eq!(built.status, 0, "{}", built.stderr);
        if progress == "json" {
            let mut lines = logs(&built);
            lines.sort();
            assert_eq!(
                lines,
                ["***", "0", "17", "400 0:0 17", "440 7:8", "gone", "in *** text", "s", "same"]
            );
        }
        all.push_str(&built.stderr);
        all.push_str(&built.stdout);
    }
    // A step that fails says so without it.
    let lines = "RUN --mount=type=secret,id=s cat /run/secrets/s && false\n";
    let built = world.build_with(&format!("{BASE}{lines}"), &["--secret", &secret]);
    assert_eq!(built.status, 1);
    all.push_str(&built.stderr);
    all.push_str(&world.run(&["inspect", crate::world::NAME]).stdout);
    assert!(!all.contains(CANARY), "{all}");
    assert_eq!(holding(&world.root(), CANARY), [""; 0]);
    assert_eq!(holding(&world.context(), CANARY), [""; 0]);
    // Another value is no other step.
    let lines = "RUN --mount=type=secret,id=s true\n";
    let build = |secret: &str| world.build_with(&format!("{BASE}{lines}"), &["--secret", secret]);
    assert_eq!(build(&secret).counts(), (1, 1));
    fs::write(&file, "other").unwrap();
    assert_eq!(build(&secret).counts(), (2, 0));
    let failed = world.fail(&format!("{BASE}RUN --mount=type=secret,id=m,required true\n"));
    assert!(failed.contains("secret m: not found"), "{failed}");
}

/// While a step with a secret runs, no process but its own knows it.
#[test]
fn privileged_a_secret_is_in_no_other_process() {
    const CANARY: &str = "tweet-4712-tweet";
    let world = world();
    let file = world.root().with_file_name("secret");
    fs::write(&file, CANARY).unwrap();
    let secret = format!("id=s,src={}", file.display());
    let lines =
        "RUN --mount=type=secret,id=s,env=TOKEN --mount=type=secret,id=s echo started; sleep 1.5";
    let mut command = world
        .build_command(&format!("{BASE}{lines}\n"), &["--secret", &secret, "--progress", "plain"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let mut inside = 0;
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let has = |bytes: &[u8]| bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes());
        for name in ["cmdline", "mountinfo", "status"] {
            assert!(!has(&read(name)), "{pid}: {name}");
        }
        if has(&read("environ")) {
            // Only the shell and its sleep, which are in another mount namespace.
            let own = fs::read_link("/proc/self/ns/mnt").unwrap();
            assert_ne!(fs::read_link(entry.path().join("ns/mnt")).unwrap(), own, "{pid}");
            inside += 1;
        }
    }
    assert!(inside > 0, "the step has not started");
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{text}");
    assert!(!text.contains(CANARY));
}

#[test]
fn privileged_secrets_come_from_variables_too() {
    let world = world();
    let lines = "RUN --mount=type=secret,id=TOKEN,env=T echo ${#T}; env | wc -l";
    let mut command = world.build_command(
        &format!("{BASE}{lines}\n"),
        &["--secret", "id=TOKEN", "--progress", "json"],
    );
    let built = Built::of(command.env("TOKEN", "four").output().unwrap());
    assert_eq!(built.status, 0, "{}", built.stderr);
    // HOME, PATH, PWD, SHLVL and the secret.
    assert_eq!(logs(&built), ["4", "5"]);
    let failed = world.build_with(BASE, &["--secret", "id=NOT_SET_ANYWHERE"]);
    assert_eq!(failed.status, 1);
    assert!(failed.stderr.contains("--secret id=NOT_SET_ANYWHERE"), "{}", failed.stderr);
}

#[test]
fn privileged_an_agent_is_forwarded_for_its_signatures_only() {
    let world = world();
    let socket = world.root().with_file_name("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut request = [0; 5];
            while client.read_exact(&mut request).is_ok() {
                let answer = format!("\0\0\0\x06\x0casked{}", "");
                std::io::Write::write_all(&mut client, answer.as_bytes()).unwrap();
            }
        }
    });
    let ssh = format!("default={}", socket.display());
    // Busybox has no client for sockets: what is there is looked at from both sides.
    let lines = "RUN --mount=type=ssh echo $SSH_AUTH_SOCK; stat -c '%F %a %u:%g' $SSH_AUTH_SOCK\n\
                 RUN --mount=type=ssh,target=/s,mode=0666,uid=7,gid=8 stat -c '%F %a %u:%g' /s; echo $SSH_AUTH_SOCK";
    let mut out = said(&world, lines, &["--ssh", &ssh]);
    out.sort();
    assert_eq!(out, ["/run/buildkit/ssh_agent.0", "/s", "socket 600 0:0", "socket 666 7:8"]);
    let lines = "RUN --mount=type=ssh,id=other test ! -e $SSH_AUTH_SOCK && echo none";
    assert_eq!(said(&world, lines, &["--ssh", &ssh]), ["none"]);
    let failed = world.fail(&format!("{BASE}RUN --mount=type=ssh,required true\n"));
    assert!(failed.contains("unset ssh forward key default"), "{failed}");
    assert!(UnixStream::connect(&socket).is_ok(), "the user's agent is still there");
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755 & mode, "nobody changed it");
}

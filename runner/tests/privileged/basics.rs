//! What runs, as whom, with which words, and what comes back.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;

use crate::harness::{Host, cgroups};

#[test]
fn privileged_the_exit_code_is_the_commands_or_dockers() {
    let host = Host::new();
    for (args, code) in [
        (&["run", "--rm", "busybox", "true"][..], 0),
        (&["run", "--rm", "busybox", "false"], 1),
        (&["run", "--rm", "busybox", "sh", "-c", "exit 42"], 42),
        (&["run", "--rm", "busybox", "sh", "-c", "exit 255"], 255),
        (&["run", "--rm", "busybox", "no-such-program"], 127),
        (&["run", "--rm", "busybox", "/no/such/path"], 127),
        (&["run", "--rm", "busybox", "/etc/passwd"], 126),
        (&["run", "--rm", "busybox", "/etc"], 126),
        (&["run", "--no-such-flag", "busybox"], 125),
        (&["run", "--rm", "--pull=never", "no-such-image"], 125),
        (&["run", "--rm", "--pull=never", "Not A Name"], 125),
        (&["run", "--rm", "--user", "nobody-here", "busybox", "true"], 125),
        (&["run", "--rm", "--workdir", "relative", "busybox", "true"], 125),
        (&["run", "--rm", "--entrypoint", "", "busybox"], 125),
    ] {
        let outcome = host.rrun(args);
        assert_eq!(outcome.code, code, "{args:?}: {outcome:?}");
        assert_eq!(outcome.stderr.is_empty(), code < 125 || code == 255, "{args:?}: {outcome:?}");
    }
    host.assert_empty();
}

#[test]
fn privileged_errors_say_what_and_what_to_do() {
    let host = Host::new();
    let missing = host.rrun(&["run", "--rm", "busybox", "no-such-program"]).fails(127);
    insta::assert_snapshot!(missing, @r"
    error: no-such-program: not found in the container
    hint: it is in no directory of PATH in the image
    ");
    let image = host.rrun(&["run", "--pull=never", "no-such-image"]).fails(125);
    insta::assert_snapshot!(image, @r"
    error: no such image: no-such-image:latest
    hint: `rrun images` lists the local ones; fetch it with `rrun pull no-such-image:latest`, or leave out --pull=never
    ");
    let container = host.rrun(&["logs", "nobody"]).fails(1);
    insta::assert_snapshot!(container, @r"
    error: no such container: nobody
    hint: `rrun ps -a` lists all containers
    ");
}

#[test]
fn privileged_output_and_input_go_where_they_belong() {
    let host = Host::new();
    let outcome = host.rrun(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    let outcome = host.rrun_with_input(&["run", "--rm", "-i", "busybox", "cat"], "a\nb");
    assert_eq!(outcome.ok(), "a\nb");
    let outcome = host.rrun_with_input(&["run", "--rm", "busybox", "cat"], "not for the container");
    assert_eq!(outcome.ok(), "");
    // More than all pipes hold, in both directions.
    let input = "0123456789abcde\n".repeat(40_000);
    let outcome = host.rrun_with_input(&["run", "--rm", "-i", "busybox", "cat"], &input);
    assert_eq!(outcome.ok().len(), input.len() - 1);
    host.assert_empty();
}

#[test]
fn privileged_a_reader_that_goes_ends_the_writer() {
    let host = Host::new();
    let mut child = host.start(&["run", "--rm", "busybox", "yes"]);
    let mut buffer = [0; 4];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut buffer).unwrap();
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    assert_ne!(status.code(), Some(0));
    assert_eq!(status.signal(), None);
    host.assert_empty();
}

#[test]
fn privileged_environment_is_the_images_and_the_users() {
    let host = Host::new();
    let file = host.path("env");
    fs::write(&file, "# comment\nFROM_FILE=1\nPASSED\n").unwrap();
    let file = file.to_str().unwrap();
    let mut command = host.command();
    command.env("PASSED", "over").env("SECRET", "of the host").args([
        "run",
        "--rm",
        "--hostname",
        "box",
        "--env-file",
        file,
        "-e",
        "A=b c",
        "-e",
        "UNSET_HERE",
        "busybox",
        "env",
    ]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["A=b c", "FROM_FILE=1", "HOME=/root", "HOSTNAME=box", "PASSED=over", "PATH=/bin"]
    );
}

#[test]
fn privileged_user_directory_and_entrypoint_are_as_asked() {
    let host = Host::new();
    host.add_image("tool", crate::harness::busybox_tar(), |config| {
        config.config.env = vec!["PATH=/bin".to_owned()];
        config.config.entrypoint = Some(vec!["echo".to_owned(), "tool".to_owned()]);
        config.config.cmd = Some(vec!["default".to_owned()]);
        config.config.user = Some("app".to_owned());
        config.config.working_dir = Some("/home/app".to_owned());
    });
    for (args, expected) in [
        (&["busybox", "id"][..], "uid=0(root) gid=0(root) groups=0(root)"),
        (
            &["-u", "app", "busybox", "id"],
            "uid=1000(app) gid=1001(app) groups=1001(app),2000(extra)",
        ),
        (&["-u", "7:8", "busybox", "id"], "uid=7 gid=8 groups=8"),
        (&["-u", "app", "busybox", "sh", "-c", "echo $HOME"], "/home/app"),
        (&["busybox", "pwd"], "/"),
        (&["-w", "/made/for/it", "busybox", "pwd"], "/made/for/it"),
        (&["tool"], "tool default"),
        (&["tool", "word"], "tool word"),
        (&["--entrypoint", "id", "tool", "-u"], "1000"),
        (&["--entrypoint", "pwd", "tool"], "/home/app"),
        (&["--hostname", "box", "busybox", "hostname"], "box"),
    ] {
        let mut words = vec!["run", "--rm"];
        words.extend(args);
        assert_eq!(host.rrun(&words).ok(), expected, "{args:?}");
    }
}

#[test]
fn privileged_the_container_has_little_and_sees_little() {
    let host = Host::new();
    let run = |script: &str| {
        host.rrun(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", script])
    };
    // Itself alone, and three descriptors.
    assert_eq!(run("echo $$; ls /proc | grep -c '^[0-9]'").ok().lines().next(), Some("1"));
    assert_eq!(run("ls /proc/self/fd | wc -l").ok(), "4", "three, and that of ls itself");
    assert_eq!(run("ls /sys/class/net").ok(), "lo");
    assert_eq!(run("grep CapInh /proc/self/status").ok(), "CapInh:\t0000000000000000");
    assert_eq!(run("grep Seccomp: /proc/self/status").ok(), "Seccomp:\t2");
    assert_eq!(run("echo x > /proc/sys/kernel/hostname").code, 1);
    assert_ne!(run("mount -t tmpfs none /tmp").code, 0);
    let nnp = |options: &[&str]| {
        let mut words = vec!["run", "--rm"];
        words.extend(options);
        words.extend(["busybox", "grep", "NoNewPrivs", "/proc/self/status"]);
        host.rrun(&words).ok()
    };
    assert_eq!(nnp(&[]), "NoNewPrivs:\t0");
    assert_eq!(nnp(&["--security-opt", "no-new-privileges"]), "NoNewPrivs:\t1");
    let caps = |options: &[&str]| {
        let mut words = vec!["run", "--rm"];
        words.extend(options);
        words.extend(["busybox", "grep", "CapEff", "/proc/self/status"]);
        u64::from_str_radix(host.rrun(&words).ok().trim_start_matches("CapEff:\t"), 16).unwrap()
    };
    assert_eq!(caps(&["--cap-drop", "ALL"]), 0);
    assert_eq!(caps(&["--cap-drop", "ALL", "--cap-add", "net_bind_service"]), 1 << 10);
    assert_eq!(caps(&["--cap-drop", "chown"]), caps(&[]) & !1);
}

#[test]
fn privileged_removal_leaves_nothing() {
    let host = Host::new();
    let cidfile = host.path("cid");
    let cidfile = cidfile.to_str().unwrap();
    let args =
        ["run", "--rm", "--cidfile", cidfile, "--memory", "64m", "busybox", "touch", "/file"];
    host.rrun(&args).ok();
    let id = fs::read_to_string(cidfile).unwrap();
    assert_eq!(id.len(), 64);
    assert!(cgroups(&id).is_empty());
    host.assert_empty();
    let again = host.rrun(&args).fails(125);
    assert!(again.contains("cannot create the container id file"), "{again}");
    host.assert_empty();
}

#[test]
fn privileged_a_container_without_rm_stays_to_be_looked_at() {
    let host = Host::new();
    let args = ["run", "--name", "kept", "busybox", "sh", "-c", "echo one; echo two >&2; exit 3"];
    assert_eq!(host.rrun(&args).code, 3);
    assert_eq!(host.rrun(&["ps", "-q"]).ok(), "");
    let table = host.rrun(&["ps", "-a"]).ok();
    let (heading, row) = table.split_once('\n').unwrap();
    assert_eq!(
        heading.split_whitespace().collect::<Vec<_>>().join(" "),
        "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES"
    );
    assert!(row.contains("Exited (3)") && row.contains("kept") && row.contains("busybox"), "{row}");
    let logs = host.rrun(&["logs", "kept"]);
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\n", "two\n"));
    assert_eq!(host.inspect("kept", "{{.State.ExitCode}} {{.Name}}"), "3 /kept");
    let json: serde_json::Value =
        serde_json::from_str(&host.rrun(&["ps", "-a", "--format", "json"]).ok()).unwrap();
    assert_eq!(json["Names"], "kept");
    assert_eq!(host.rrun(&["wait", "kept"]).ok(), "3");
    let error = host.rrun(&["exec", "kept", "true"]).fails(1);
    assert!(error.contains("container kept is not running"), "{error}");
    let id = host.ids().remove(0);
    assert_eq!(host.rrun(&["rm", &id[..12]]).ok(), id[..12]);
    host.assert_empty();
}

#[test]
fn privileged_a_name_belongs_to_one() {
    let host = Host::new();
    host.rrun(&["run", "-d", "--name", "web", "busybox", "sleep", "100"]).ok();
    let error = host.rrun(&["run", "--rm", "--name", "web", "busybox", "true"]).fails(125);
    assert!(error.contains("the name \"web\" is already in use by container"), "{error}");
    assert!(error.contains("rrun rm -f web"), "{error}");
    assert_eq!(host.ids().len(), 1);
    // Two at once: one of them wins.
    let race: Vec<_> = (0..4)
        .map(|_| host.start(&["run", "--rm", "--name", "race", "busybox", "sleep", "1"]))
        .collect();
    let codes: Vec<_> = race.into_iter().map(|child| crate::harness::finish(child).code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 125).count(), 3, "{codes:?}");
    host.rrun(&["rm", "-f", "web"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_an_init_stands_above_and_reaps() {
    let host = Host::new();
    let script = "cat /proc/1/comm; echo $$; (sleep 0.1 &) ; sleep 0.5; grep -l Z /proc/[0-9]*/stat | wc -l; exit 6";
    let outcome = host.rrun(&["run", "--rm", "--init", "busybox", "sh", "-c", script]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (6, "rrun-init\n2\n0\n"), "{outcome:?}");
}

#[test]
fn privileged_the_system_call_filter_is_as_asked() {
    let host = Host::new();
    let profile = host.path("profile.json");
    let text = r#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]
    }"#;
    fs::write(&profile, text).unwrap();
    let run = |option: &str, script: &str| {
        host.rrun(&["run", "--rm", "--security-opt", option, "busybox", "sh", "-c", script])
    };
    assert_eq!(run("seccomp=unconfined", "grep Seccomp: /proc/self/status").ok(), "Seccomp:\t0");
    let with_profile = format!("seccomp={}", profile.display());
    let outcome = run(&with_profile, "mkdir /new");
    assert!(outcome.code == 1 && outcome.stderr.contains("not supported"), "{outcome:?}");
    assert_eq!(run(&with_profile, "touch /new && echo fine").ok(), "fine");
    let error = run("seccomp=/does/not/exist", "true").fails(125);
    assert!(error.contains("cannot read the seccomp profile /does/not/exist"), "{error}");
    fs::write(&profile, "{").unwrap();
    assert!(run(&with_profile, "true").fails(125).starts_with("error: "));
    host.assert_empty();
}

#[test]
fn privileged_an_image_for_other_machines_is_named() {
    let host = Host::new();
    host.add_image("foreign", crate::harness::busybox_tar(), |config| {
        config.platform = "linux/s390x".parse().unwrap();
    });
    let error = host.rrun(&["run", "--rm", "foreign", "true"]).fails(125);
    assert!(error.contains("s390x"), "{error}");
    assert_eq!(host.ids(), [""; 0]);
}

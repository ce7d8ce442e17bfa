//! Plain directories without namespaces.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::time::{Duration, Instant};

use sandbox::{Exit, Mount, MountKind, Network, Root, Spec};

use crate::support::{Busybox, run, start};

fn shell(busybox: &Busybox, line: &str) -> Spec {
    let mut spec = busybox.shell(line);
    spec.root = Root::Chroot { path: busybox.lower("") };
    spec
}

/// Returns whether a process with this word on its command line runs.
fn is_running(word: &str) -> bool {
    let is_it = |entry: fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).split('\0').any(|part| part == word)
    };
    fs::read_dir("/proc").unwrap().flatten().any(is_it)
}

#[track_caller]
fn wait_until(running: bool, word: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_running(word) != running {
        assert!(Instant::now() < deadline, "{word} runs: {}", !running);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn privileged_a_chroot_is_a_root_directory_with_a_user() {
    let busybox = Busybox::new();
    let mut spec = shell(&busybox, "pwd; id -u; id -G; echo $HOME; touch /tmp/made; exit 7");
    spec.process.user = "web".into();
    spec.process.cwd = "/tmp/new/directory".into();
    let (exit, output) = run(&spec).unwrap();
    assert_eq!(output, "/tmp/new/directory\n33\n33 8\n/var/www\n");
    assert_eq!(exit, Exit::Code(7));
    assert!(busybox.lower("tmp/made").exists());
    let (exit, _) = run(&shell(&busybox, "kill -9 $$")).unwrap();
    assert_eq!(exit, Exit::Code(137));
    let mut missing = shell(&busybox, "");
    missing.process.args = vec!["/no/such".into()];
    assert_eq!(run(&missing).unwrap_err().exit_code(), 127);
}

#[test]
fn privileged_nothing_leads_out_of_a_chroot() {
    let busybox = Busybox::new();
    std::os::unix::fs::symlink("/etc/hostname", busybox.lower("link")).unwrap();
    std::os::unix::fs::symlink("busybox", busybox.lower("bin/chroot")).unwrap();
    let tries = "chroot / true || echo no chroot; mknod /sda b 8 0 || echo no device; \
                 cat /link /../etc/hostname || echo no file; mount -t tmpfs none /tmp || echo no mount";
    let (_, output) = run(&shell(&busybox, tries)).unwrap();
    for refused in ["no chroot", "no device", "no file", "no mount"] {
        assert!(output.contains(refused), "{refused}: {output}");
    }
}

#[test]
fn privileged_processes_of_a_chroot_end_with_it() {
    let busybox = Busybox::new();
    // Left behind by a command that ends, and by its own parent.
    let (exit, _) = run(&shell(&busybox, "(/bin/sleep 4711 >/tmp/out 2>&1 &)")).unwrap();
    assert_eq!(exit, Exit::Code(0));
    wait_until(false, "4711");

    // Killed with the command, from another thread.
    let (sandbox, output) =
        start(&shell(&busybox, "(/bin/sleep 4712 &); echo begun; /bin/sleep 4712")).unwrap();
    let mut output = BufReader::new(output);
    output.read_line(&mut String::new()).unwrap();
    wait_until(true, "4712");
    sandbox.kill_all();
    sandbox.wait().unwrap();
    output.read_to_end(&mut Vec::new()).unwrap();
    wait_until(false, "4712");
}

#[test]
fn a_chroot_has_no_mounts_and_no_network_of_its_own() {
    let spec = || Spec::new(Root::Chroot { path: "/nowhere".into() }, vec!["true".into()]);
    let mut mounted = spec();
    let kind = MountKind::Tmpfs { size_bytes: None, mode: 0o755, readonly: false };
    mounted.mounts = vec![Mount { target: Path::new("/tmp").into(), kind }];
    let mut alone = spec();
    alone.network = Network::None;
    for spec in [mounted, alone] {
        assert!(run(&spec).unwrap_err().to_string().contains("chroot"));
    }
}

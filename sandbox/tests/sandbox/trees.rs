//! Mounts from stacks of directories, files in memory, and what the host hides or not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Busybox, run};
use sandbox::{CgroupSpec, Exit, Mount, MountKind, SecretBytes, cgroup};

/// Two directories to stack, an empty one to mount at, and what takes writes.
struct Stack(tempfile::TempDir);

impl Stack {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["top/d", "bottom/d", "place", "upper", "work"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("top/d/f"), "top").unwrap();
        fs::write(directory.path().join("bottom/d/f"), "bottom").unwrap();
        fs::write(directory.path().join("bottom/d/g"), "below").unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn mount(&self, path: &str, writable: bool) -> Mount {
        let kind = MountKind::Tree {
            lowers: vec![self.path("top"), self.path("bottom")],
            writable: writable.then(|| (self.path("upper"), self.path("work"))),
            place: self.path("place"),
            path: path.into(),
            readonly: !writable,
        };
        Mount { target: "/mnt".into(), kind }
    }
}

fn single(directory: &Path, path: &str, readonly: bool) -> MountKind {
    MountKind::Tree {
        lowers: vec![directory.to_owned()],
        writable: None,
        place: directory.to_owned(),
        path: path.into(),
        readonly,
    }
}

#[track_caller]
fn output(busybox: &Busybox, mounts: Vec<Mount>, line: &str) -> String {
    let mut spec = busybox.shell(line);
    spec.mounts = mounts;
    let (exit, output) = run(&spec).unwrap();
    assert_eq!(exit, Exit::Code(0), "{line}: {output}");
    output
}

#[test]
fn privileged_a_stack_is_merged_and_parts_of_it_are_found() {
    let (busybox, stack) = (Busybox::new(), Stack::new());
    let all = output(&busybox, vec![stack.mount("/", false)], "cat /mnt/d/f /mnt/d/g");
    assert_eq!(all, "topbelow");
    assert_eq!(output(&busybox, vec![stack.mount("/d", false)], "ls /mnt"), "f\ng\n");
    let file = Mount { target: "/file".into(), ..stack.mount("/d/g", false) };
    assert_eq!(output(&busybox, vec![file], "cat /file"), "below");
    let refused = "touch /mnt/x 2> /dev/null || echo refused";
    assert_eq!(output(&busybox, vec![stack.mount("/d", false)], refused), "refused\n");
    // Its own layers can be mounted, too: the stack does not cover them.
    let own = MountKind::Tree {
        lowers: vec![busybox.lower(""), stack.path("bottom")],
        writable: None,
        place: stack.path("place"),
        path: "/bin/busybox".into(),
        readonly: true,
    };
    let own = Mount { target: "/copy/busybox".into(), kind: own };
    assert_eq!(
        output(&busybox, vec![own], "/copy/busybox echo yes; ls /bin/busybox"),
        "yes\n/bin/busybox\n"
    );
    let missing = Busybox::new();
    let mut spec = missing.shell("true");
    spec.mounts = vec![stack.mount("/no/such", false)];
    let error = run(&spec).unwrap_err().to_string();
    assert!(error.contains("/no/such"), "{error}");
}

#[test]
fn privileged_what_is_written_to_a_stack_stays_out_of_its_directories() {
    let (busybox, stack) = (Busybox::new(), Stack::new());
    let line = "echo new > /mnt/d/f; rm /mnt/d/g; cat /mnt/d/f; ls /mnt/d";
    assert_eq!(output(&busybox, vec![stack.mount("/", true)], line), "new\nf\n");
    assert_eq!(fs::read_to_string(stack.path("top/d/f")).unwrap(), "top");
    assert_eq!(fs::read_to_string(stack.path("bottom/d/g")).unwrap(), "below");
}

#[test]
fn privileged_a_single_directory_takes_what_is_written() {
    let (busybox, stack) = (Busybox::new(), Stack::new());
    let mount = |readonly| {
        vec![Mount { target: "/c".into(), kind: single(&stack.path("top"), "/d", readonly) }]
    };
    output(&busybox, mount(false), "echo kept > /c/new");
    assert_eq!(fs::read_to_string(stack.path("top/d/new")).unwrap(), "kept\n");
    let refused = output(&busybox, mount(true), "(echo x > /c/new) 2> /dev/null || echo refused");
    assert_eq!(refused, "refused\n");
}

/// CVE-2024-1753, CVE-2024-9675: a link or `..` in the source of a mount, in a
/// cache that an earlier step has filled, must not show the host.
#[test]
fn privileged_no_link_in_a_source_leads_to_the_host() {
    let (busybox, stack) = (Busybox::new(), Stack::new());
    let canary = stack.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("secret"), "host").unwrap();
    symlink(&canary, stack.path("top/absolute")).unwrap();
    symlink("../../../../../../../../etc", stack.path("top/above")).unwrap();
    symlink("/proc/self/root", stack.path("top/magic")).unwrap();
    for path in ["/absolute", "/absolute/secret", "/above", "/above/passwd", "/magic", "/../canary"]
    {
        let mut spec = busybox.shell("ls /c");
        spec.mounts =
            vec![Mount { target: "/c".into(), kind: single(&stack.path("top"), path, false) }];
        let error = run(&spec).unwrap_err().to_string();
        assert!(error.contains(path), "{path}: {error}");
    }
    // Inside, a link means what it means there.
    symlink("/d", stack.path("top/inside")).unwrap();
    let mounts =
        vec![Mount { target: "/c".into(), kind: single(&stack.path("top"), "/inside", false) }];
    assert_eq!(output(&busybox, mounts, "ls /c"), "f\n");
}

/// CVE-2024-23651: two steps share a cache; one exchanges the directory that
/// the other mounts with a link to the host while it is being mounted.
#[test]
fn privileged_a_race_for_the_path_of_a_cache_shows_nothing_of_the_host() {
    let (busybox, stack) = (Busybox::new(), Stack::new());
    let canary = stack.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("secret"), "host").unwrap();
    let cache = stack.path("top");
    fs::create_dir(cache.join("sub")).unwrap();
    symlink(&canary, cache.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A failure ends the other thread, too.
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let directory = fs::File::open(&cache).unwrap();
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(&directory, "sub", &directory, "link", exchange).unwrap();
            }
        });
        for _ in 0..60 {
            let mut spec = busybox.shell("ls /c; echo mark > /c/mark");
            spec.mounts = vec![Mount { target: "/c".into(), kind: single(&cache, "/sub", false) }];
            // Either the directory was there, or the link, which leads nowhere inside.
            if let Ok((_, output)) = run(&spec) {
                assert!(!output.contains("secret"), "{output}");
            }
        }
    });
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 1, "nothing was written to the host");
}

/// Stops a thread at the end of a scope, however that is left.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn privileged_a_file_in_memory_has_its_owner_and_no_name_elsewhere() {
    let busybox = Busybox::new();
    let file = |target: &str, mode| Mount {
        target: target.into(),
        kind: MountKind::File {
            content: SecretBytes::new(b"canary".to_vec()),
            mode,
            uid: 33,
            gid: 8,
        },
    };
    let mounts = || vec![file("/run/secrets/a", 0o400), file("/etc/passwd", 0o4755)];
    let line = "cat /run/secrets/a /etc/passwd; echo; stat -c '%a %u %g' /run/secrets/a /etc/passwd; \
                ls -A /dev | grep memory; (echo x > /run/secrets/a) 2> /dev/null || echo refused";
    let said = output(&busybox, mounts(), line);
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("/bin/sh")).collect();
    assert_eq!(lines, ["canarycanary", "400 33 8", "4755 33 8", "refused"]);
    // Even where /dev is somebody else's.
    let directory = tempfile::tempdir().unwrap();
    let mut mounts = mounts();
    mounts.push(Mount { target: "/dev".into(), kind: single(directory.path(), "/", false) });
    assert_eq!(output(&busybox, mounts, "cat /run/secrets/a"), "canary");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    let secret = SecretBytes::new(b"canary".to_vec());
    assert_eq!(format!("{secret:?}"), "SecretBytes(6 bytes)");
}

#[test]
fn privileged_only_a_privileged_sandbox_sees_all_of_proc_and_sys() {
    let busybox = Busybox::new();
    let line = "grep -c ' /proc/' /proc/mounts; \
                (cat /proc/sys/kernel/core_uses_pid > /proc/sys/kernel/core_uses_pid) 2> /dev/null \
                && echo wrote; grep ' /sys ' /proc/mounts | grep -c ' ro,'";
    let mut spec = busybox.shell(line);
    let (_, plain) = run(&spec).unwrap();
    let lines: Vec<&str> = plain.lines().collect();
    assert_eq!(lines[1..], ["1"], "{plain}");
    assert_ne!(lines[0], "0", "nothing is masked");
    spec.privileged = true;
    spec.process.security.cap_add = vec!["ALL".into()];
    spec.process.security.seccomp = sandbox::Seccomp::Unconfined;
    let busybox = Busybox::new();
    spec.root = busybox.overlay();
    let (_, full) = run(&spec).unwrap();
    assert_eq!(full, "0\nwrote\n0\n");
}

/// Without limits the group guards devices, and says how much memory was used.
#[test]
fn privileged_a_group_without_limits_guards_devices_and_counts_memory() {
    let busybox = Busybox::new();
    let mut spec = busybox.shell(
        "mknod /null c 1 3 && echo x > /null && echo works; mknod /disk b 7 0 && head -c 1 /disk",
    );
    let name = format!("sandbox-test-{}-guard", std::process::id());
    let guard = CgroupSpec { name: name.clone(), account_memory: true, ..CgroupSpec::default() };
    spec.cgroup = Some(guard);
    let (sandbox, mut reader) = crate::support::start(&spec).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut reader, &mut said).unwrap();
    sandbox.wait().unwrap();
    assert!(said.starts_with("works\n"), "{said}");
    assert!(said.contains("Operation not permitted"), "{said}");
    let peak = sandbox.memory_peak();
    assert!(peak.is_some_and(|peak| peak > 0), "{peak:?}");
    drop(sandbox);
    assert!(!cgroup::destroy(&name).unwrap(), "the group is left");
}

#[test]
fn privileged_a_group_is_made_in_the_parent_that_was_asked_for() {
    let busybox = Busybox::new();
    let parent = format!("/sandbox-test-{}", std::process::id());
    let mut spec = busybox.shell("true");
    // What this process is in may be below the top, the parent is not.
    let line = "cat /proc/self/cgroup";
    spec.process.args[2] = line.into();
    spec.cgroup = Some(CgroupSpec {
        name: "step".into(),
        parent: Some(parent.clone().into()),
        account_memory: true,
        ..CgroupSpec::default()
    });
    let (sandbox, _reader) = crate::support::start(&spec).unwrap();
    let found = find(Path::new("/sys/fs/cgroup"), parent.trim_start_matches('/'), 3);
    assert!(!found.is_empty());
    assert!(found.iter().any(|path| path.join("step").is_dir()), "{found:?}");
    sandbox.wait().unwrap();
    drop(sandbox);
    for path in found {
        assert!(!path.join("step").exists());
        fs::remove_dir(path).unwrap();
    }
    spec.cgroup.as_mut().unwrap().parent = Some("/../../x".into());
    assert!(run(&spec).unwrap_err().to_string().contains("is not a path of control groups"));
}

fn find(directory: &Path, name: &str, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name() == name {
            found.push(entry.path());
        } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(find(&entry.path(), name, depth - 1));
        }
    }
    found
}

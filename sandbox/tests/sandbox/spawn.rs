//! Sandboxes as their users see them: what is inside, how they end, what stays.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use crate::support::{Busybox, run, start};
use sandbox::{Error, Exit, Mount, MountKind, Network, Resource, Rlimit, Root, Seccomp, Stdio};

fn bind(source: &std::path::Path, target: &str, readonly: bool) -> Mount {
    Mount {
        target: target.into(),
        kind: MountKind::Bind { source: source.to_owned(), readonly, recursive: true },
    }
}

#[test]
fn privileged_a_command_runs_and_its_status_is_returned() {
    let busybox = Busybox::new();
    assert_eq!(run(&busybox.spec(&["true"])).unwrap(), (Exit::Code(0), String::new()));
    for code in [1, 2, 42, 125, 126, 127, 128, 255] {
        let (exit, output) = run(&busybox.shell(&format!("exit {code}"))).unwrap();
        assert_eq!((exit, output.as_str()), (Exit::Code(code), ""));
    }
    // Without an init, process 1 has only the signals it handles.
    let (exit, _) = run(&busybox.shell("sh -c 'kill -9 $$'; exit $?")).unwrap();
    assert_eq!(exit, Exit::Code(137));
}

#[test]
fn privileged_failures_to_start_have_docker_s_codes() {
    let busybox = Busybox::new();
    fs::write(busybox.lower("bin/plain"), "text").unwrap();
    fs::write(busybox.lower("bin/script"), "#!/no/such/interpreter\n").unwrap();
    fs::write(busybox.lower("bin/garbage"), [0u8; 64]).unwrap();
    for name in ["script", "garbage"] {
        let path = busybox.lower("bin").join(name);
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    for (command, code) in [
        ("nosuch", 127),
        ("/bin/nosuch", 127),
        ("/bin/script", 127),
        ("/bin/plain", 126),
        ("/bin/garbage", 126),
        ("/bin", 126),
        ("plain", 126),
    ] {
        let error = run(&busybox.spec(&[command])).unwrap_err();
        assert_eq!(error.exit_code(), code, "{command}: {error}");
    }
    assert_eq!(run(&busybox.spec(&[])).unwrap_err().exit_code(), 125);
}

#[test]
fn privileged_the_namespaces_are_its_own() {
    let busybox = Busybox::new();
    let mut spec = busybox.shell("echo $$; hostname; ip -o link | wc -l; cat /proc/mounts | grep -c ^ ; ls /; readlink /proc/self/ns/net");
    spec.hostname = Some("inside".into());
    spec.network = Network::None;
    let (exit, output) = run(&spec).unwrap();
    assert_eq!(exit, Exit::Code(0), "{output}");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..3], ["1", "inside", "1"], "{output}");
    assert!(!output.contains("lower") && output.contains("bin"));
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(lines.last().unwrap(), &host.to_str().unwrap());
    assert_ne!(rustix::system::uname().nodename().to_str().unwrap(), "inside");
    let (_, output) = run(&busybox.shell("readlink /proc/self/ns/net")).unwrap();
    assert_eq!(output.trim(), host.to_str().unwrap(), "the host's network");
    let mut spec = busybox.shell("ip addr show lo | grep -c 'inet 127.0.0.1'");
    spec.network = Network::None;
    assert_eq!(run(&spec).unwrap().1.trim(), "1", "loopback is up");
}

#[test]
fn privileged_dev_proc_and_sys_are_as_runtimes_make_them() {
    let busybox = Busybox::new();
    let nodes = busybox.output("cd /dev; stat -c '%n %t:%T %a' null zero full random urandom tty");
    assert_eq!(
        nodes,
        "null 1:3 666\nzero 1:5 666\nfull 1:7 666\nrandom 1:8 666\nurandom 1:9 666\ntty 5:0 666\n"
    );
    let links =
        busybox.output("cd /dev; for l in fd stdin stdout stderr ptmx core; do readlink $l; done");
    assert_eq!(
        links,
        "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n/proc/kcore\n"
    );
    busybox.output(
        "echo x > /dev/null && echo x > /dev/shm/x && test -d /dev/mqueue -a -c /dev/pts/ptmx",
    );
    // Masked: empty, although the kernel has something there.
    assert_eq!(
        busybox.output(
            "cat /proc/interrupts /proc/timer_list /proc/keys 2>/dev/null; ls /sys/firmware"
        ),
        ""
    );
    let protected = busybox.output(
        "for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/profiling; do \
         (echo x > $f) 2>/dev/null && echo wrote $f; done; \
         mount | grep -E 'sysfs|proc' | grep -v '^proc.*(ro' | grep -c '(ro'; true",
    );
    assert!(!protected.contains("wrote"), "{protected}");
    assert!(busybox.output("mount | grep 'on /sys type'").contains("(ro,"));
}

#[test]
fn privileged_what_a_process_may_do() {
    let busybox = Busybox::new();
    let status = busybox.output("grep -E 'Cap|NoNew|Seccomp:' /proc/self/status");
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000a80425fb",
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t0",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "no {line} in {status}");
    }
    let mut spec = busybox.shell("grep -E 'Cap(Eff|Bnd)|NoNew|Seccomp:' /proc/self/status");
    spec.process.security.cap_drop = vec!["ALL".into()];
    spec.process.security.cap_add = vec!["CHOWN".into()];
    spec.process.security.no_new_privileges = true;
    spec.process.security.seccomp = Seccomp::Unconfined;
    let (_, output) = run(&spec).unwrap();
    let expected =
        "CapEff:\t0000000000000001\nCapBnd:\t0000000000000001\nNoNewPrivs:\t1\nSeccomp:\t0\n";
    assert_eq!(output, expected);
    // The default filter: mount is refused by it and by the capabilities.
    let (_, output) =
        run(&busybox.shell("mount -t tmpfs x /tmp; mkdir /tmp/x && mount --bind /tmp /tmp/x"))
            .unwrap();
    assert!(output.contains("ermission denied") || output.contains("not permitted"), "{output}");
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":30}]}"#;
    let mut spec = busybox.shell("mkdir /tmp/y; echo done");
    spec.process.security.seccomp = Seccomp::Json(json.into());
    let (_, output) = run(&spec).unwrap();
    assert!(output.contains("Read-only file system") && output.contains("done"), "{output}");
}

#[test]
fn privileged_users_are_those_of_the_image() {
    let busybox = Busybox::new();
    let whoami = |user: &str| {
        let mut spec = busybox.shell(
            "id -u; id -g; id -G; echo $HOME; grep CapEff /proc/self/status; echo x > /dev/stdout",
        );
        spec.process.user = user.into();
        run(&spec).map(|(_, output)| output.replace('\n', " "))
    };
    assert_eq!(whoami("").unwrap(), "0 0 0 /root CapEff:\t00000000a80425fb x ");
    assert_eq!(whoami("web").unwrap(), "33 33 33 8 /var/www CapEff:\t0000000000000000 x ");
    assert_eq!(whoami("web:mail").unwrap(), "33 8 8 /var/www CapEff:\t0000000000000000 x ");
    assert_eq!(whoami("1234:5").unwrap(), "1234 5 5 / CapEff:\t0000000000000000 x ");
    for user in ["nobody", "4294967296", "-1", "4294967295", "web:none"] {
        assert_eq!(whoami(user).unwrap_err().exit_code(), 125, "accepted {user:?}");
    }
}

/// CVE-2026-47262, CVE-2024-9676: the image's passwd file is whatever it wants.
#[test]
fn privileged_hostile_passwd_files_are_refused() {
    let busybox = Busybox::new();
    let passwd = busybox.lower("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &passwd,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    assert!(run(&busybox.spec(&["true"])).unwrap_err().to_string().contains("not a regular file"));
    fs::remove_file(&passwd).unwrap();
    fs::File::create(&passwd).unwrap().set_len(10 << 30).unwrap();
    assert!(run(&busybox.spec(&["true"])).unwrap_err().to_string().contains("larger than"));
    fs::remove_file(&passwd).unwrap();
    symlink("/../../../../../../etc/shadow", &passwd).unwrap();
    let mut spec = busybox.spec(&["true"]);
    spec.process.user = "root".into();
    assert!(run(&spec).unwrap_err().to_string().contains("no user"), "read a file of the host");
}

/// CVE-2024-21626: no directory of the host is reached through a descriptor.
#[test]
fn privileged_the_working_directory_is_inside() {
    let busybox = Busybox::new();
    for number in 3..64 {
        for path in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../../..")]
        {
            let mut spec = busybox.spec(&["pwd"]);
            spec.process.cwd = path.clone().into();
            assert!(run(&spec).is_err(), "entered {path}");
        }
        if number > 12 {
            break;
        }
    }
    symlink("/proc/self/fd/7", busybox.lower("link")).unwrap();
    let mut spec = busybox.spec(&["pwd"]);
    spec.process.cwd = "/link".into();
    assert!(run(&spec).is_err());
    let mut spec = busybox.spec(&["pwd"]);
    spec.process.cwd = "/made/for it".into();
    assert_eq!(run(&spec).unwrap().1, "/made/for it\n");
    let spec = busybox.shell("ls /proc/self/fd | tr '\\n' ' '");
    // The last one is the directory that `ls` itself has open.
    assert_eq!(run(&spec).unwrap().1, "0 1 2 3 ");
}

/// CVE-2026-41579, CVE-2026-47766: a link at /dev must not lead device nodes out.
#[test]
fn privileged_links_in_place_of_top_directories_are_refused() {
    let canary = tempfile::tempdir().unwrap();
    for name in ["dev", "proc", "sys"] {
        let busybox = Busybox::new();
        fs::remove_dir(busybox.lower(name)).unwrap();
        symlink(canary.path(), busybox.lower(name)).unwrap();
        let error = run(&busybox.spec(&["true"])).unwrap_err();
        assert!(error.to_string().contains(&format!("/{name}")), "{error}");
        fs::remove_file(busybox.lower(name)).unwrap();
        fs::write(busybox.lower(name), "").unwrap();
        assert!(run(&busybox.spec(&["true"])).is_err(), "a file at /{name}");
    }
    assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 0);
}

#[test]
fn privileged_mounts_land_inside_and_make_their_targets() {
    let busybox = Busybox::new();
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("file"), "content").unwrap();
    let canary = tempfile::tempdir().unwrap();
    symlink(canary.path(), busybox.lower("out")).unwrap();
    let mut spec = busybox.shell(
        "cat /data/file /etc/hosts; echo x > /data/new; echo y > /ro/new; echo z > /run/z && stat -c %a /run; ls -d /out/sub",
    );
    spec.mounts = vec![
        bind(host.path(), "/data", false),
        bind(host.path(), "/ro", true),
        bind(&host.path().join("file"), "/etc/hosts", true),
        bind(host.path(), "/out/sub", false),
        Mount {
            target: "/run".into(),
            kind: MountKind::Tmpfs { size_bytes: Some(1 << 20), mode: 0o1777, readonly: false },
        },
    ];
    let (sandbox, mut reader) = start(&spec).unwrap();
    let mut output = String::new();
    std::io::Read::read_to_string(&mut reader, &mut output).unwrap();
    assert_eq!(sandbox.wait().unwrap(), Exit::Code(0), "{output}");
    assert!(output.starts_with("contentcontent"), "{output}");
    assert!(
        output.contains("/ro/new: Read-only file system") && output.contains("1777"),
        "{output}"
    );
    assert_eq!(fs::read_to_string(host.path().join("new")).unwrap(), "x\n");
    assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 0, "a link led out of the root");
    let stubs: Vec<String> =
        sandbox.stubs().iter().map(|stub| stub.path.display().to_string()).collect();
    for path in ["/data", "/ro", "/run", "/etc/hosts"] {
        assert!(stubs.contains(&path.to_owned()), "{stubs:?}");
    }
    sandbox::stubs::remove(&busybox.upper(), sandbox.stubs()).unwrap();
    assert!(!busybox.upper().join("data").exists() && !busybox.upper().join("etc/hosts").exists());
    for target in ["/", "/proc", "/proc/sys", "relative", "/a/../b"] {
        let mut spec = busybox.spec(&["true"]);
        spec.mounts = vec![bind(host.path(), target, false)];
        assert!(run(&spec).is_err(), "mounted on {target}");
    }
    symlink("/proc", busybox.lower("p")).unwrap();
    let mut spec = busybox.spec(&["true"]);
    spec.mounts = vec![bind(host.path(), "/p/sys", false)];
    assert!(run(&spec).is_err(), "mounted in /proc through a link");
}

#[test]
fn privileged_roots_of_every_kind() {
    let busybox = Busybox::new();
    let line = "echo x > /file && echo wrote; cat /bin/x 2>/dev/null; true";
    let roots = [
        (Root::Directory { path: busybox.lower(""), readonly: true }, "sh: can't create"),
        (
            Root::Overlay {
                lowers: vec![busybox.lower("")],
                upper: None,
                work: None,
                readonly: true,
                volatile: false,
            },
            "sh: can't create",
        ),
        (busybox.overlay(), "wrote"),
    ];
    for (root, expected) in roots {
        let mut spec = busybox.shell(line);
        spec.root = root.clone();
        let (_, output) = run(&spec).unwrap();
        assert!(output.replace("/bin/sh", "sh").contains(expected), "{root:?}: {output}");
    }
    assert!(busybox.upper().join("file").exists());
    assert!(!busybox.lower("file").exists());
    // Many layers with long names: through mount(2) as well as through fsconfig.
    let layers = tempfile::tempdir().unwrap();
    let long = layers.path().join("x".repeat(200)).join("y".repeat(100));
    let mut lowers = Vec::new();
    for number in 0..20 {
        let layer = long.join(format!("{number}"));
        fs::create_dir_all(&layer).unwrap();
        fs::write(layer.join(format!("in-{number}")), "").unwrap();
        lowers.push(layer);
    }
    lowers.push(busybox.lower(""));
    let mut spec = busybox.shell("ls / | grep -c in-");
    spec.root = match busybox.overlay() {
        Root::Overlay { upper, work, readonly, volatile, .. } => {
            Root::Overlay { lowers, upper, work, readonly, volatile }
        }
        Root::Directory { .. } | Root::Chroot { .. } => unreachable!(),
    };
    assert_eq!(run(&spec).unwrap().1, "20\n");
}

#[test]
fn privileged_limits_that_the_host_refuses() {
    let busybox = Busybox::new();
    let (_, hard) = (0, rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum);
    let mut spec = busybox.shell("ulimit -n");
    let limit =
        |soft, hard, required| Rlimit { resource: Resource::OpenFiles, soft, hard, required };
    spec.process.rlimits = vec![limit(Some(100), Some(200), true)];
    assert_eq!(run(&spec).unwrap().1, "100\n");
    // Only a host without CAP_SYS_RESOURCE, or with a ceiling, refuses.
    let Some(hard) = hard else { return };
    let above = hard.max(1 << 31) + 1;
    spec.process.rlimits = vec![limit(Some(above), Some(above), true)];
    assert_eq!(run(&spec).unwrap_err().exit_code(), 125);
    spec.process.rlimits = vec![limit(Some(above), Some(above), false)];
    let (sandbox, _reader) = start(&spec).unwrap();
    assert_eq!(sandbox.wait().unwrap(), Exit::Code(0));
    assert!(
        sandbox.warnings().iter().any(|warning| warning.contains("nofile")),
        "{:?}",
        sandbox.warnings()
    );
}

#[test]
fn privileged_process_one_that_stays_forwards_and_reaps() {
    let busybox = Busybox::new();
    let mut spec = busybox.shell("echo $$; sh -c 'sleep 0 & exit 3'; exit $?");
    spec.process.init = true;
    assert_eq!(run(&spec).unwrap(), (Exit::Code(3), "2\n".into()));
    spec.process.args[2] =
        "trap 'echo got; exit 7' TERM; echo ready; while true; do sleep 0.05; done".into();
    let (sandbox, mut reader) = start(&spec).unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(&mut reader, &mut ready).unwrap();
    sandbox.signal(libc_sigterm()).unwrap();
    assert_eq!(sandbox.wait().unwrap(), Exit::Code(7));
    spec.process.args = vec!["nosuch".into()];
    assert!(matches!(run(&spec), Err(Error::CommandNotFound { .. }) | Ok((Exit::Code(127), _))));
}

fn libc_sigterm() -> i32 {
    rustix::process::Signal::TERM.as_raw()
}

#[test]
fn privileged_dropping_kills_and_many_starts_leave_nothing() {
    let busybox = Busybox::new();
    let (sandbox, _reader) = start(&busybox.spec(&["sleep", "1000"])).unwrap();
    let running = sandbox::Running { pid: sandbox.pid(), start_time: sandbox.start_time() };
    assert!(running.is_alive());
    let killer = sandbox.killer();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            killer.kill();
        });
        assert_eq!(sandbox.wait().unwrap(), Exit::Signal(9));
    });
    let (sandbox, _reader) = start(&busybox.spec(&["sleep", "1000"])).unwrap();
    let running = sandbox::Running { pid: sandbox.pid(), start_time: sandbox.start_time() };
    drop(sandbox);
    assert!(!running.is_alive());
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let mut spec = busybox.spec(&["true"]);
    spec.network = Network::None;
    let began = std::time::Instant::now();
    for _ in 0..200 {
        // A start that hangs hangs the test: see youki and SIGCHLD.
        let sandbox = sandbox::spawn(&spec, Stdio::null()).unwrap();
        assert_eq!(sandbox.wait().unwrap(), Exit::Code(0));
    }
    let each = began.elapsed() / 200;
    assert!(each < Duration::from_millis(500), "{each:?} for each start");
    let after = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(before, after, "a mount is left on the host");
    assert!(descriptors() < 60, "{} descriptors are open", descriptors());
}

#[test]
fn privileged_signals_begin_at_their_defaults() {
    let busybox = Busybox::new();
    let all = nix::sys::signal::SigSet::all();
    let previous = all.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK).unwrap();
    // Without a shell, which ignores signals of its own.
    let status =
        run(&busybox.spec(&["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"])).unwrap().1;
    previous.thread_set_mask().unwrap();
    assert_eq!(status, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

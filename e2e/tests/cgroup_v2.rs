//! Limits on a host with control groups v2 alone, which few machines that run tests are: in a
//! virtual machine with Debian's kernel. Processors are emulated, so any host can do it; it
//! proves what works, not how fast.
#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{World, run, try_run};

/// Usually it takes half a minute; a machine that is this late hangs.
const LONGEST: Duration = Duration::from_secs(300);

/// Where the programs run, and what is checked there; `testdata/vm/cgroup-v2` says how. Ordinary
/// users make no devices, and what cannot differ from root is not repeated.
const LAYOUTS: [(&str, &str); 3] = [
    ("ROOT", "run,memory,swap,pids,cpus,combined,devices,background,exec_counts,killed,build"),
    ("SESSION", "run,memory,pids,cpus,devices,background,exec_counts,killed,build"),
    ("USER", "run,memory,pids,cpus,background,exec_counts,killed,build"),
];

#[test]
fn privileged_limits_hold_where_control_groups_are_v2() {
    let world = World::with_busybox();
    let kernel = PathBuf::from(run(&mut Command::new(testdata("kernel"))).text());
    let console = boot(&world, &kernel.join("vmlinuz"), &initramfs(&world, &kernel));

    let results: BTreeMap<&str, &str> = console
        .lines()
        .filter_map(|line| line.trim().strip_prefix("RESULT ")?.split_once(' '))
        .collect();
    let expected: BTreeMap<String, &str> = LAYOUTS
        .iter()
        .flat_map(|(layout, checks)| checks.split(',').map(move |check| (layout, check)))
        .map(|(layout, check)| (format!("{}/{check}", layout.to_lowercase()), "ok"))
        .collect();
    let expected = expected.iter().map(|(name, result)| (name.as_str(), *result)).collect();
    assert_eq!(results, expected, "\n--- console\n{console}");
}

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/vm").join(name)
}

/// Packs the machine's first file system: busybox, our programs with the libraries they are
/// linked with, an image and the script that tries them.
fn initramfs(world: &World, kernel: &Path) -> PathBuf {
    let root = world.path("initramfs");
    for dir in ["bin", "dev", "proc", "sys", "usr/bin"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    symlink("busybox", root.join("bin/sh")).unwrap();
    let mut programs = ["rbuild", "rrun", "rrun-init"].map(World::program).to_vec();
    programs.extend(["/usr/bin/newuidmap", "/usr/bin/newgidmap"].map(PathBuf::from));
    for program in programs {
        // With its mode: those that map ids are set-user-id.
        fs::copy(&program, root.join("usr/bin").join(program.file_name().unwrap())).unwrap();
        // Of a static program it says so, and fails.
        let libraries = try_run(Command::new("ldd").arg(&program)).stdout;
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let copy = root.join(library.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(library, copy).unwrap();
        }
    }
    fs::copy(kernel.join("overlay.ko"), root.join("overlay.ko")).unwrap();
    fs::copy(testdata("cgroup-v2"), root.join("init")).unwrap();
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
    let image = root.join("busybox.tar");
    world.rbuild(&["save", "-o", image.to_str().unwrap(), "busybox"]);

    // Not compressed: that would cost the emulated processor seconds.
    let packed = world.path("initramfs.cpio");
    run(Command::new("/bin/busybox")
        .args(["sh", "-c", "busybox find . | busybox cpio -o -H newc >../initramfs.cpio"])
        .current_dir(&root));
    packed
}

/// Runs the machine until it turns itself off, and returns what its console showed.
fn boot(world: &World, kernel: &Path, initramfs: &Path) -> String {
    let console = world.path("console");
    let checks = LAYOUTS.map(|(layout, checks)| format!("CHECK_{layout}={checks}")).join(" ");
    let mut machine = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-M", "q35", "-m", "1G"])
        .args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(["-append", &format!("console=ttyS0 quiet loglevel=1 panic=-1 {checks}")])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stdout(File::create(&console).unwrap())
        .spawn()
        .expect("testdata/install-packages test has installed qemu");
    let started = Instant::now();
    let ended = loop {
        if let Some(status) = machine.try_wait().unwrap() {
            break status.success();
        }
        if started.elapsed() > LONGEST {
            machine.kill().unwrap();
            machine.wait().unwrap();
            break false;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let shown = String::from_utf8_lossy(&fs::read(console).unwrap()).into_owned();
    assert!(ended, "the machine failed or was stopped after {LONGEST:?}:\n{shown}");
    shown
}

//! Images for other platforms, several at once.

use std::fs;

use crate::world::{Built, NAME, World};

/// The beginning of an ELF executable for a 64-bit Arm processor: enough for the kernel to say
/// that it is no program of this machine.
fn arm_program() -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    header[16..21].copy_from_slice(&[2, 0, 183, 0, 1]);
    header
}

fn blob(world: &World, digest: &str) -> serde_json::Value {
    let path = world.root().join("blobs").join(digest.replace(':', "/"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Returns the index that the name leads to.
fn index(world: &World) -> serde_json::Value {
    let entries = fs::read_dir(world.root().join("images")).unwrap();
    let entries: Vec<serde_json::Value> = entries
        .map(|entry| serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap())
        .filter(|entry: &serde_json::Value| {
            entry["reference"].as_str().is_some_and(|name| name.ends_with(NAME))
        })
        .collect();
    assert_eq!(entries.len(), 1);
    blob(world, entries[0]["descriptor"]["digest"].as_str().unwrap())
}

#[test]
fn several_platforms_become_an_index() {
    let world = World::new();
    for architecture in ["amd64", "arm64"] {
        world.write(&format!("app-{architecture}"), architecture);
    }
    world.write("shared", "shared");
    let file = "FROM --platform=$BUILDPLATFORM scratch AS tools\nCOPY shared /tool\n\
                FROM scratch\nARG TARGETARCH\nCOPY app-$TARGETARCH /app\n\
                COPY --from=tools /tool /\n";
    let platforms = ["--platform", "linux/amd64,linux/arm64", "--no-cache"];
    let built = world.build_with(file, &platforms);
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert_eq!(
        built.counts(),
        (1, 5),
        "the stage for this machine is built once: {}",
        built.stderr
    );
    let index = index(&world);
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 2);
    for (manifest, architecture) in manifests.iter().zip(["amd64", "arm64"]) {
        assert_eq!(
            manifest["platform"],
            serde_json::json!({"architecture": architecture, "os": "linux"})
        );
        let manifest = blob(&world, manifest["digest"].as_str().unwrap());
        let config = blob(&world, manifest["config"]["digest"].as_str().unwrap());
        assert_eq!(config["architecture"], architecture);
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        let layer = fs::read(world.root().join("blobs").join(layer.replace(':', "/"))).unwrap();
        let mut archive = tar::Archive::new(&layer[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let mut content = String::new();
        std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
        assert_eq!(content, architecture);
    }
    let again = world.build_with(file, &platforms[..2]);
    assert_eq!(again.counts(), (6, 0));
}

#[test]
fn one_platform_is_an_image_and_no_index() {
    let world = World::new();
    world.write("f", "x");
    let built = world.build_with("FROM scratch\nCOPY f /\n", &["--platform", "linux/arm/v7"]);
    assert_eq!(built.status, 0, "{}", built.stderr);
    let manifest = index(&world);
    let config = blob(&world, manifest["config"]["digest"].as_str().unwrap());
    assert_eq!((&config["architecture"], &config["variant"]), (&"arm".into(), &"v7".into()));
}

#[test]
fn a_platform_nobody_knows_is_refused() {
    let world = World::new();
    let built = world.build_with("FROM scratch\n", &["--platform", "linux/amd64,a b"]);
    assert_eq!(built.status, 125);
    assert!(built.stderr.contains("a b"), "{}", built.stderr);
}

#[test]
fn privileged_a_run_for_a_processor_without_emulator_says_what_is_missing() {
    crate::privileged::helper();
    let world = World::new();
    world.write("sh", arm_program());
    world.chmod("sh", 0o755);
    let file = "FROM scratch\nCOPY sh /bin/sh\nRUN true\n";
    let built = world.build_with(file, &["--platform", "linux/arm64"]);
    assert_eq!(built.status, 1, "{}", built.stderr);
    // Where the host can run such programs, this one still is none.
    let is_registered = fs::read_dir("/proc/sys/fs/binfmt_misc").is_ok_and(|mut entries| {
        entries.any(|entry| entry.unwrap().path().ends_with("qemu-aarch64"))
    });
    if !is_registered {
        assert!(
            built
                .stderr
                .contains("cannot run programs for linux/arm64 on linux/amd64: binfmt_misc"),
            "{}",
            built.stderr
        );
        assert!(built.stderr.contains("hint: register an emulator"), "{}", built.stderr);
    }
    // The same file in an image for this machine is just a bad file.
    let built = world.build_with(file, &[]);
    assert!(!built.stderr.contains("emulator"), "{}", built.stderr);
}

#[test]
fn privileged_a_stage_for_another_platform_runs_what_the_kernel_can() {
    let world = crate::privileged::world();
    let file =
        "FROM scratch\nADD busybox.tar /\nARG TARGETPLATFORM\nRUN echo $TARGETPLATFORM > /p\n";
    let built = world.build_with(file, &["--platform", "linux/amd64,linux/riscv64"]);
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert!(built.stderr.contains("[linux/riscv64 2/2] RUN echo"), "{}", built.stderr);
}

/// A program for 64-bit RISC-V that prints `hello` and ends.
fn riscv_program() -> Vec<u8> {
    const MESSAGE: &[u8] = b"hello from riscv64\n";
    const START: u32 = 64 + 56;
    let load = |register: u32, value: u32| value << 20 | register << 7 | 0x13;
    let code = [
        load(10, 1),
        11 << 7 | 0x17, // auipc a1, 0
        32 << 20 | 11 << 15 | 11 << 7 | 0x13,
        load(12, u32::try_from(MESSAGE.len()).unwrap()),
        load(17, 64), // write
        0x73,
        load(10, 0),
        load(17, 93), // exit
        0x73,
    ];
    let size = u64::from(START) + 36 + MESSAGE.len() as u64;
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0\x01\0\0\0".to_vec();
    program.extend(u64::to_le_bytes(0x40_0000 + u64::from(START)));
    program
        .extend([&64_u64.to_le_bytes()[..], &[0; 12], b"\x40\0\x38\0\x01\0\0\0\0\0\0\0"].concat());
    // One segment, read and executed.
    program.extend([1_u32.to_le_bytes(), 5_u32.to_le_bytes()].concat());
    for value in [0, 0x40_0000, 0x40_0000, size, size, 0x1_0000_u64] {
        program.extend(value.to_le_bytes());
    }
    program.extend(code.iter().flat_map(|word| word.to_le_bytes()));
    program.extend(MESSAGE);
    program
}

/// Returns the command, run where binfmt_misc is mounted and knows an emulator of RISC-V. The mount
/// is the command's own, and the registration goes with it.
fn emulated(command: &std::process::Command, emulator: &str) -> std::process::Command {
    let magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xf3\x00";
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
    let line = format!(":rbuild-test-riscv64:M::{magic}:{mask}:{emulator}:F");
    let script = "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc && \
                  printf %s \"$1\" >/proc/sys/fs/binfmt_misc/register && shift && exec \"$@\"";
    let mut within = std::process::Command::new("unshare");
    within.args(["--mount", "sh", "-c", script, "sh", &line]);
    within.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => within.env(name, value),
            None => within.env_remove(name),
        };
    }
    within
}

#[test]
fn privileged_programs_of_another_processor_run_emulated() {
    // Debian's package qemu-user-static; without it there is nothing to test.
    let emulator = "/usr/bin/qemu-riscv64-static";
    if !std::path::Path::new(emulator).exists() {
        return;
    }
    crate::privileged::helper();
    let world = World::new();
    world.write("hello", riscv_program());
    world.chmod("hello", 0o755);
    let file = "FROM scratch\nCOPY hello /hello\nRUN [\"/hello\"]\n";
    let command = world.build_command(file, &["--platform", "linux/riscv64"]);
    let built = Built::of(emulated(&command, emulator).output().unwrap());
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert!(built.stderr.contains("hello from riscv64"), "{}", built.stderr);
}

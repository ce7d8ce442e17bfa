//! Processes that join a sandbox that runs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;

use crate::support::{Busybox, start};
use rustix::pipe::{PipeFlags, pipe_with};
use sandbox::{
    CgroupSpec, Error, Exit, Limits, Network, Process, Running, Sandboxed, Stdio, Stream,
};

fn process(line: &str) -> Process {
    Process {
        args: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin".into()],
        ..Process::default()
    }
}

fn joined(sandbox: &Sandboxed, process: &Process) -> sandbox::Result<(Exit, String)> {
    let target = Running { pid: sandbox.pid(), start_time: sandbox.start_time() };
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let errors = write.try_clone().unwrap();
    let stdio =
        Stdio { stdin: Stream::Null, stdout: Stream::Fd(write), stderr: Stream::Fd(errors) };
    let process = sandbox::exec(&target, process, stdio)?;
    let mut output = String::new();
    fs::File::from(read).read_to_string(&mut output).unwrap();
    Ok((process.wait()?, output))
}

#[test]
fn privileged_a_joined_process_is_in_everything() {
    let busybox = Busybox::new();
    let mut spec = busybox.spec(&["sleep", "1000"]);
    spec.hostname = Some("joined".into());
    spec.network = Network::None;
    spec.cgroup = Some(CgroupSpec {
        name: format!("sandbox-test-{}-exec", std::process::id()),
        limits: Limits { pids: Some(20), ..Limits::default() },
        ..CgroupSpec::default()
    });
    let name = spec.cgroup.as_ref().unwrap().name.clone();
    let (sandbox, _reader) = start(&spec).unwrap();
    let line = "hostname; for n in mnt pid net uts ipc cgroup; do test $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) || echo differs $n; done; \
                grep -E 'CapEff|CapInh|Seccomp:' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; exit 9";
    let (exit, output) = joined(&sandbox, &process(line)).unwrap();
    assert_eq!(exit, Exit::Code(9));
    assert_eq!(
        output,
        "joined\nCapInh:\t0000000000000000\nCapEff:\t00000000a80425fb\nSeccomp:\t2\n0 1 2 3 ",
        "{output}"
    );
    let target = Running { pid: sandbox.pid(), start_time: sandbox.start_time() };
    let sleeping = sandbox::exec(&target, &process("sleep 1000"), Stdio::null()).unwrap();
    assert!(
        sandbox::cgroup::pids(&name).unwrap().contains(&sleeping.pid()),
        "it is not in the control group"
    );
    let mut user = process("id -u; echo $HOME");
    user.user = "web".into();
    assert_eq!(joined(&sandbox, &user).unwrap().1, "33\n/var/www\n");
    // CVE-2026-30892: 1 is 1.
    user.user = "1".into();
    assert_eq!(joined(&sandbox, &user).unwrap().1, "1\n/\n");
    sandbox.kill_all();
    assert_eq!(sleeping.wait().unwrap(), Exit::Signal(9), "it ends with the sandbox");
    assert!(matches!(
        joined(&sandbox, &process("true")),
        Err(Error::NotRunning { .. } | Error::Setup { .. })
    ));
}

#[test]
fn privileged_joining_is_as_careful_as_starting() {
    let busybox = Busybox::new();
    symlink("/proc/self/fd/4", busybox.lower("link")).unwrap();
    let (sandbox, _reader) = start(&busybox.spec(&["sleep", "1000"])).unwrap();
    for cwd in [
        "/proc/self/fd/3",
        "/proc/self/fd/4",
        "/proc/self/fd/5",
        "/proc/self/fd/9",
        "/link",
        "/missing",
        "relative",
    ] {
        let mut process = process("pwd");
        process.cwd = cwd.into();
        assert!(joined(&sandbox, &process).is_err(), "entered {cwd}");
    }
    let mut command = process("");
    command.args = vec!["nosuch".into()];
    assert_eq!(joined(&sandbox, &command).unwrap_err().exit_code(), 127);
    let other = Running { pid: sandbox.pid(), start_time: sandbox.start_time() + 1 };
    assert!(matches!(
        sandbox::exec(&other, &process("true"), Stdio::null()),
        Err(Error::NotRunning { .. })
    ));
}

/// CVE-2019-5736: processes inside try to open the program of whoever joins.
#[test]
fn privileged_the_helper_cannot_be_written_from_inside() {
    let busybox = Busybox::new();
    let helper = env!("CARGO_BIN_EXE_rrun-init");
    let before = fs::read(helper).unwrap();
    let racer = "while true; do for p in /proc/[0-9]*; do n=${p#/proc/}; test $n -gt 2 && \
                 case $(readlink $p/exe) in *rrun-init*|*memfd*) echo pwned > $p/exe; esac; done; done";
    let (sandbox, _reader) =
        start(&busybox.shell(&format!("({racer}) 2>/dev/null & wait"))).unwrap();
    for _ in 0..60 {
        assert_eq!(joined(&sandbox, &process("true")).unwrap().0, Exit::Code(0));
    }
    assert_eq!(fs::read(helper).unwrap(), before);
    // A program that is its own interpreter runs the helper, and cannot change it.
    let script = busybox.lower("bin/loop");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (exit, _) = crate::support::run(&busybox.spec(&["/bin/loop"]))
        .unwrap_or((Exit::Code(125), String::new()));
    assert_ne!(exit, Exit::Code(0));
    assert_eq!(fs::read(helper).unwrap(), before);
}

#[test]
fn privileged_terminals_are_made_inside_and_held_outside() {
    let busybox = Busybox::new();
    let mut spec = busybox.shell(
        "tty; stat -c %t:%T /dev/console; stty size; read line; echo got $line; readlink /dev/ptmx",
    );
    spec.process.terminal = true;
    spec.process.terminal_size = Some((31, 97));
    let sandbox = sandbox::spawn(&spec, Stdio::null()).unwrap();
    let mut terminal = fs::File::from(sandbox.take_terminal().unwrap());
    terminal.write_all(b"hello\n").unwrap();
    let output = read_terminal(&mut terminal);
    assert_eq!(sandbox.wait().unwrap(), Exit::Code(0), "{output}");
    for line in ["/dev/pts/0", "88:0", "31 97", "got hello", "pts/ptmx"] {
        assert!(output.contains(&format!("{line}\r\n")), "no {line} in {output}");
    }

    let (sandbox, _reader) = start(&busybox.spec(&["sleep", "1000"])).unwrap();
    let mut shell = process("tty; exit 4");
    shell.terminal = true;
    let target = Running { pid: sandbox.pid(), start_time: sandbox.start_time() };
    let shell = sandbox::exec(&target, &shell, Stdio::null()).unwrap();
    let mut terminal = fs::File::from(shell.take_terminal().unwrap());
    assert_eq!(read_terminal(&mut terminal), "/dev/pts/0\r\n");
    assert_eq!(shell.wait().unwrap(), Exit::Code(4));
}

/// Reads to the end, which a terminal shows as EIO.
fn read_terminal(terminal: &mut fs::File) -> String {
    let mut output = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = terminal.read(&mut buffer) {
        output.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(output).unwrap()
}

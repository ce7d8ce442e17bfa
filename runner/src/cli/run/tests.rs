use super::*;
use clap::Parser as _;

impl RunArgs {
    fn request(self) -> anyhow::Result<Request> {
        self.container.request(self.detach)
    }
}

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    run: RunArgs,
}

fn parse(line: &str) -> Result<RunArgs, String> {
    let words = std::iter::once("run").chain(line.split(' '));
    Line::try_parse_from(words).map(|line| line.run).map_err(|error| error.to_string())
}

#[test]
fn flags_end_at_the_image() {
    let args = parse("--rm -it -e A=1 busybox sh -c -it --rm").unwrap();
    let container = args.container;
    assert!(container.rm && container.interactive && container.tty && !args.detach);
    assert_eq!(container.image, ["busybox", "sh", "-c", "-it", "--rm"]);
    let args = parse("busybox -u x --rm").unwrap();
    assert!(args.container.user.is_none() && !args.container.rm);
    let request = args.request().unwrap();
    assert_eq!(
        (request.image.as_str(), request.args),
        ("busybox", ["-u", "x", "--rm"].map(str::to_owned).to_vec())
    );
}

#[test]
fn dockers_spellings_are_understood() {
    let request = parse(
        "-dit -h box -m 64m --memory-swap -1 --cpus .5 --pids-limit -1 --net none -v /a:/b:ro \
         --mount type=tmpfs,target=/t --tmpfs /u:size=1m -w /w -u 1:2 --name n1 --cap-add ALL \
         --cap-drop=net_raw --security-opt no-new-privileges --ulimit nofile=1:2 --init \
         --read-only -l a=b --entrypoint sh --stop-signal INT --label c img -x",
    )
    .unwrap()
    .request()
    .unwrap();
    assert!(request.detach && request.interactive && request.terminal && request.init);
    assert!(request.read_only && request.security.no_new_privileges);
    assert_eq!(request.hostname.as_deref(), Some("box"));
    assert_eq!(request.limits.memory, Some(Bytes(64 << 20)));
    assert_eq!(request.limits.memory_swap, Some(SwapLimit::Unlimited));
    assert_eq!(request.limits.cpus, Some(Cpus { milli: 500 }));
    assert_eq!(request.limits.pids, PidsLimit(None));
    assert_eq!(request.network, NetworkMode::None);
    let targets: Vec<_> = request.mounts.iter().map(MountRequest::target).collect();
    assert_eq!(targets, ["/b", "/t", "/u"].map(Path::new));
    assert_eq!(
        request.labels.into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())]
    );
    assert_eq!(request.entrypoint.as_deref(), Some("sh"));
    assert_eq!(request.args, ["-x"]);
}

#[test]
fn mistakes_are_explained() {
    for (line, words) in [
        ("--memory 1m img", "the least memory a container can be given is 6 MiB"),
        ("--network a/b img", "\"a/b\" is no network; there are bridge, host"),
        ("-p 80:80:80:80 img", "it is not [ip:][host:]container"),
        ("-p 70000 img", "\"70000\" is not a port from 1 to 65535"),
        ("--ip 10.0.0 img", "invalid IPv4 address"),
        ("-v da/ta:/data img", "\"da/ta\" is no name of a volume"),
        ("--nam x img", "--name"),
        ("--rm", "IMAGE"),
    ] {
        let error = parse(line).unwrap_err();
        assert!(error.contains(words), "{line}: {error}");
    }
    for (line, words) in [
        ("--memory-swap 1g img", "--memory-swap needs --memory"),
        ("--memory 2g --memory-swap 1g img", "cannot be less than --memory (2 GiB)"),
        ("--env-file /does/not/exist img", "cannot read /does/not/exist"),
    ] {
        let error = parse(line).unwrap().request().unwrap_err().to_string();
        assert!(error.contains(words), "{line}: {error}");
    }
}

#[test]
fn an_id_file_is_never_overwritten_and_not_left_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cid");
    drop(CidFile::create(&path).unwrap());
    assert!(!path.exists());
    CidFile::create(&path).unwrap().keep("abc").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "abc");
    assert!(CidFile::create(&path).unwrap_err().to_string().contains("cannot create"));
}

#[test]
fn an_environment_file_comes_before_single_variables() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("env");
    fs::write(&path, "A=file\nB=file\n").unwrap();
    let args = parse(&format!("-e A=flag --env-file {} img", path.display())).unwrap();
    let env: Vec<_> = args.request().unwrap().env.into_iter().map(|e| e.value).collect();
    assert_eq!(env, [Some("file"), Some("file"), Some("flag")].map(|v| v.map(str::to_owned)));
}

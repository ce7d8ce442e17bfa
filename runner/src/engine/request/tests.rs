use std::path::Path;

use super::*;

use crate::engine::options::Bytes;

fn image() -> ImageConfig {
    ImageConfig::new(oci::Platform::host())
}

fn with(entrypoint: Option<&[&str]>, cmd: Option<&[&str]>) -> ImageConfig {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
    let mut image = image();
    image.config.entrypoint = entrypoint.map(words);
    image.config.cmd = cmd.map(words);
    image
}

fn request(args: &[&str]) -> Request {
    Request {
        image: "app".to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        ..Request::default()
    }
}

fn identity() -> Identity {
    Identity {
        id: "0123456789abcdef".repeat(4).parse().unwrap(),
        name: "web".parse().unwrap(),
        image: Digest::sha256(b"config"),
        now: Timestamp::default(),
    }
}

fn settle(request: Request, image: &ImageConfig) -> Result<Config> {
    let caller = |key: &str| (key == "CALLER").then(|| "from outside".to_owned());
    request.settle(image, identity(), caller)
}

#[test]
fn entrypoint_and_command_follow_dockers_rules() {
    for (entrypoint, cmd, asked_entrypoint, args, expected) in [
        (None, Some(&["sh"][..]), None, &[][..], Some(&["sh"][..])),
        (None, Some(&["sh"]), None, &["ls", "-l"], Some(&["ls", "-l"])),
        (Some(&["/app"][..]), None, None, &[], Some(&["/app"])),
        (Some(&["/app"]), Some(&["--help"]), None, &[], Some(&["/app", "--help"])),
        (Some(&["/app"]), Some(&["--help"]), None, &["-v"], Some(&["/app", "-v"])),
        (Some(&["/app"]), Some(&["--help"]), Some("sh"), &[], Some(&["sh"])),
        (Some(&["/app"]), Some(&["--help"]), Some("sh"), &["-c", "x"], Some(&["sh", "-c", "x"])),
        (Some(&["/app"]), Some(&["--help"]), Some(""), &["ls"], Some(&["ls"])),
        (Some(&["/app"]), Some(&["--help"]), Some(""), &[], None),
        (None, None, None, &[], None),
        (None, Some(&[""]), None, &[], None),
    ] {
        let request = Request { entrypoint: asked_entrypoint.map(str::to_owned), ..request(args) };
        let what = format!("{entrypoint:?} {cmd:?} {asked_entrypoint:?} {args:?}");
        match (settle(request, &with(entrypoint, cmd)), expected) {
            (Ok(config), Some(expected)) => assert_eq!(config.process.args, expected, "{what}"),
            (Err(Error::NoCommand { .. }), None) => {}
            (other, _) => panic!("{what} gave {other:?}"),
        }
    }
}

#[test]
fn the_environment_is_default_then_image_then_user() {
    let mut image = image();
    image.config.env = vec!["PATH=/bin".to_owned(), "A=image".to_owned(), "B=image".to_owned()];
    let mut request = Request { terminal: true, ..request(&["true"]) };
    request.env =
        ["A=user", "CALLER", "UNSET", "C="].iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(
        settle(request, &image).unwrap().process.env,
        [
            "PATH=/bin",
            "HOSTNAME=0123456789ab",
            "TERM=xterm",
            "A=user",
            "B=image",
            "CALLER=from outside",
            "C=",
        ]
    );
}

#[test]
fn the_image_fills_in_what_is_not_asked_for() {
    let mut image = image();
    image.config.user = Some("app".to_owned());
    image.config.working_dir = Some("srv".to_owned());
    image.config.stop_signal = Some("SIGQUIT".to_owned());
    image.config.labels = [("a", "image"), ("b", "image")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let config = settle(request(&["true"]), &image).unwrap();
    assert_eq!(config.process.user, "app");
    assert_eq!(config.process.cwd, "/srv");
    assert_eq!(config.stop_signal, "QUIT".parse().unwrap());
    let asked = Request {
        user: Some("0".to_owned()),
        workdir: Some("/tmp".to_owned()),
        stop_signal: Some(Signal::KILL),
        labels: [("b".to_owned(), "user".to_owned())].into(),
        hostname: Some("box".to_owned()),
        ..request(&["true"])
    };
    let config = settle(asked, &image).unwrap();
    assert_eq!((config.process.user.as_str(), config.process.cwd.as_str()), ("0", "/tmp"));
    assert_eq!(config.stop_signal, Signal::KILL);
    assert_eq!(config.labels["a"], "image");
    assert_eq!(config.labels["b"], "user");
    assert_eq!(config.hostname, "box");
}

#[test]
fn what_cannot_be_used_is_refused() {
    for (request, word) in [
        (Request { workdir: Some("tmp".to_owned()), ..request(&["x"]) }, "working directory"),
        (Request { hostname: Some("a b".to_owned()), ..request(&["x"]) }, "host name"),
        (Request { hostname: Some("a\n::1 evil".to_owned()), ..request(&["x"]) }, "host name"),
        (
            Request {
                mounts: vec![
                    MountRequest::from_volume("/a:/x").unwrap(),
                    MountRequest::from_tmpfs("/y/../x/").unwrap(),
                ],
                ..request(&["x"])
            },
            "two mounts",
        ),
    ] {
        let error = settle(request, &image()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let mut image = image();
    image.config.stop_signal = Some("SIGNOPE".to_owned());
    assert!(settle(request(&["x"]), &image).unwrap_err().to_string().contains("SIGNOPE"));
}

#[test]
fn the_users_mount_replaces_the_images_volume_and_parents_come_first() {
    let mut image = image();
    image.config.volumes = ["/data", "/data/deep", "/other/"].map(str::to_owned).into();
    let asked = Request {
        mounts: vec![
            MountRequest::from_volume("/host:/data/deep").unwrap(),
            MountRequest::from_tmpfs("/data-1").unwrap(),
        ],
        ..request(&["x"])
    };
    let mounts = settle(asked, &image).unwrap().mounts;
    let targets: Vec<_> = mounts.iter().map(|mount| mount.target().to_str().unwrap()).collect();
    assert_eq!(targets, ["/data", "/data/deep", "/data-1", "/other"]);
    assert!(
        matches!(&mounts[1], MountRequest::Bind(bind) if bind.source.as_path() == Path::new("/host"))
    );
    assert!(matches!(&mounts[3], MountRequest::Volume(_)));
}

#[test]
fn a_config_survives_its_file() {
    let mut asked = request(&["sh", "-c", "true"]);
    asked.limits.memory = Some(Bytes(64 << 20));
    asked.limits.memory_swap = Some("-1".parse().unwrap());
    asked.limits.cpus = Some("0.5".parse().unwrap());
    asked.limits.ulimits = vec!["nofile=10:-1".parse().unwrap()];
    asked.security.cap_add = vec!["net_admin".parse().unwrap()];
    asked.mounts = vec![MountRequest::from_volume("/a:/b:ro").unwrap()];
    let config = settle(asked, &image()).unwrap();
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    assert!(text.starts_with("{\"version\":1,"), "{text}");
}

//! ADD from web servers and git repositories.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::server::Server;
use crate::world::World;

/// Runs git as somebody without a configuration, at a time of our choice.
pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_DATE", "@1000000000 +0000")
        .env("GIT_COMMITTER_DATE", "@1000000000 +0000")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository `name` with a branch `main`, a tag and a directory; returns its work tree.
pub(crate) fn repository(root: &Path, name: &str) -> PathBuf {
    let work = root.join(name);
    fs::create_dir_all(work.join("sub/deep")).unwrap();
    git(&work, &["init", "-q", "-b", "main"]);
    for (key, value) in [("user.name", "n"), ("user.email", "e@example")] {
        git(&work, &["config", key, value]);
    }
    fs::write(work.join("a"), "one").unwrap();
    fs::write(work.join("sub/deep/b"), "two").unwrap();
    fs::write(work.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(work.join("run"), PermissionsExt::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink("sub/deep", work.join("link")).unwrap();
    git(&work, &["add", "."]);
    git(&work, &["commit", "-q", "-m", "first"]);
    git(&work, &["tag", "-a", "v1", "-m", "first version"]);
    work
}

/// Makes what a plain file server has of a repository.
pub(crate) fn publish(work: &Path) {
    let bare = work.with_extension("git");
    if !bare.exists() {
        git(work, &["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    }
    git(work, &["push", "-q", "--mirror", bare.to_str().unwrap()]);
    git(&bare, &["update-server-info"]);
}

/// `git daemon`, until it is dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) port: u16,
}

impl Daemon {
    pub(crate) fn start(root: &Path) -> Self {
        // Free a moment ago; a test that loses the race fails to connect, and says so.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("/usr/lib/git-core/git-daemon")
            .args(["--listen=127.0.0.1", "--export-all", "--reuseaddr"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", root.display()))
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..500 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Self { child, port }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_file_is_added_once_and_asked_for_again() {
    let (world, server) = (World::new(), Server::start());
    server.put("/dir/a%20b.txt", "content", Some("\"1\""));
    let url = server.url("/dir/a%20b.txt");
    let dockerfile = format!("FROM scratch\nADD {url} /d/\nADD {url} /x\n");
    world.build(&dockerfile);
    assert_eq!(world.listing(), "d/ 755 dir\nd/a b.txt 600 \"content\"\nx 600 \"content\"\n");
    let layers = world.layers();
    let mut archive = tar::Archive::new(&layers[1][..]);
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.header().mtime().unwrap(), 784_111_777, "Last-Modified");
    server.log();

    let again = world.build(&dockerfile);
    assert_eq!(again.counts(), (2, 0));
    assert_eq!(server.log(), ["304 /dir/a%20b.txt", "304 /dir/a%20b.txt"]);

    server.put("/dir/a%20b.txt", "new", Some("\"2\""));
    let changed = world.build(&dockerfile);
    assert_eq!(changed.counts(), (0, 2));
    assert!(changed.stderr.contains(&format!("{url} changed")), "{}", changed.stderr);
    assert_eq!(world.files()["x"], "600 \"new\"");
}

#[test]
fn a_checksum_is_checked_and_makes_the_server_dispensable() {
    let (world, server) = (World::new(), Server::start());
    server.put("/f", "content", None);
    let url = server.url("/f");
    let right = oci::Digest::sha256(b"content");
    let wrong = oci::Digest::sha256(b"other");
    let long = oci::Digest::sha512(b"content");
    let said = world.fail(&format!("FROM scratch\nADD --checksum={wrong} {url} /\n"));
    assert!(
        said.contains(&format!("error: digest mismatch for {url}: {right} (expected: {wrong})")),
        "{said}"
    );
    world.build(&format!("ARG C={long}\nFROM scratch\nARG C\nADD --checksum=$C {url} /\n"));
    let dockerfile = format!("FROM scratch\nADD --chmod=644 --checksum={right} {url} /\n");
    world.build(&dockerfile);
    assert_eq!(world.listing(), "f 644 \"content\"\n");
    drop(server);
    world.build(&dockerfile);
    // Another step with the same file: its content is in the store.
    world.build(&format!("FROM scratch\nADD --checksum={right} {url} /elsewhere\n"));
    assert_eq!(world.listing(), "elsewhere 600 \"content\"\n");
    let table = [
        ("ADD --checksum=sha256:0 a /", "checksum requires HTTP(S) or Git sources"),
        (
            "ADD --checksum=sha256:0 http://h/a http://h/b /",
            "checksum can't be specified for multiple sources",
        ),
        ("ADD --checksum=sha256:0 http://h/a /", "invalid checksum"),
        ("COPY http://h/a /", "source can't be a URL for COPY"),
        ("COPY git@h:a /", "source can't be a git ref for COPY"),
        ("ADD https://h/x.git#--upload-pack=x /", "invalid git ref \"--upload-pack=x\""),
        (
            "ADD --keep-git-dir=false https://h/x.git?keep-git-dir /",
            "inconsistent keep-git-dir configuration",
        ),
    ];
    for (line, expected) in table {
        let said = world.fail(&format!("FROM scratch\n{line}\n"));
        assert!(said.contains(expected), "{line}\n{said}");
    }
}

#[test]
fn archives_from_servers_are_unpacked_only_when_asked_for() {
    let (world, server) = (World::new(), Server::start());
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o640);
    header.set_uid(7);
    header.set_gid(8);
    header.set_size(2);
    builder.append_data(&mut header, "in/f", &b"hi"[..]).unwrap();
    let tar = builder.into_inner().unwrap();
    server.put("/t.tar", tar.clone(), None);
    let url = server.url("/t.tar");
    world.write("local.tar", &tar);
    world.build(&format!("FROM scratch\nADD {url} /plain/\nADD --unpack=true {url} /out/\n"));
    let files = world.files();
    assert!(files["plain/t.tar"].starts_with("600 "), "{files:?}");
    assert_eq!(files["out/in/f"], "640 7:8 \"hi\"");
    world.build(
        "FROM scratch\nADD --unpack=false local.tar /plain/\nADD --unpack local.tar /out/\n",
    );
    let files = world.files();
    assert!(files["plain/local.tar"].starts_with("644 "), "{files:?}");
    assert_eq!(files["out/in/f"], "640 7:8 \"hi\"");
}

#[test]
fn failures_of_servers_are_told() {
    let (world, server) = (World::new(), Server::start());
    let url = server.url("/missing");
    let said = world.fail(&format!("FROM scratch\nADD {url} /\n"));
    assert!(said.contains(&format!("error: cannot fetch {url}: ")), "{said}");
    assert!(said.contains(&format!("has no {url}")), "{said}");
    let user = url.replace("http://", "http://me:secret@");
    let said = world.fail(&format!("FROM scratch\nADD {user} /\n"));
    assert!(!said.replace(&format!("ADD {user} /"), "").contains("secret"), "{said}");
}

#[test]
fn a_repository_is_added_by_its_commit() {
    let (world, server) = (World::new(), Server::start());
    let root = tempfile::tempdir().unwrap();
    let work = repository(root.path(), "r");
    publish(&work);
    server.serve_directory(root.path().to_owned());
    let url = server.url("/r.git");
    let all = "d/ 755 dir\nd/a 644 \"one\"\nd/link 777 -> sub/deep\nd/run 755 \"#!/bin/sh\\n\"\nd/sub/ 755 dir\nd/sub/deep/ 755 dir\nd/sub/deep/b 644 \"two\"\n";
    world.build(&format!("FROM scratch\nADD {url} /d\n"));
    assert_eq!(world.listing(), all);
    let layers = world.layers();
    let times: Vec<u64> = tar::Archive::new(&layers[0][..])
        .entries()
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.unwrap();
            let is_file = entry.header().entry_type().is_file();
            is_file.then(|| entry.header().mtime().unwrap())
        })
        .collect();
    assert_eq!(times, [1_000_000_000; 3], "the commit's time");

    server.log();
    let again = world.build(&format!("FROM scratch\nADD {url} /d\n"));
    assert_eq!(again.counts(), (1, 0));
    assert!(server.log().iter().all(|line| line.contains("/info/refs") || line.ends_with("/HEAD")));

    let commit = git(&work, &["rev-parse", "HEAD"]);
    let deep = "d/ 755 dir\nd/b 644 \"two\"\n";
    for (word, expected) in [
        (format!("{url}#v1"), all),
        (format!("{url}#main:sub/../sub/deep"), deep),
        (format!("{url}?ref=refs/heads/main&subdir=sub/deep"), deep),
        (format!("{url}?tag=v1&subdir=sub/deep&checksum={}", &commit[..12]), deep),
        (format!("{url}#{commit}"), all),
    ] {
        world.build(&format!("FROM scratch\nADD {word} /d\n"));
        assert_eq!(world.listing(), expected, "{word}");
    }
    fs::write(work.join("a"), "changed").unwrap();
    git(&work, &["commit", "-q", "-am", "second"]);
    publish(&work);
    let changed = world.build(&format!("FROM scratch\nADD {url} /d\n"));
    assert_eq!(changed.counts(), (0, 1));
    assert_eq!(world.files()["d/a"], "644 \"changed\"");

    for (word, expected) in [
        (format!("{url}#nope"), "repository does not contain ref nope".to_owned()),
        (format!("{url}#:nope"), "invalid subdir nope: no such directory".to_owned()),
        (format!("{url}#:link"), "invalid subdir link: no such directory".to_owned()),
        (
            format!("{url}?ref=v1&checksum=abcdef"),
            format!("digest mismatch for {url}: {commit} (expected: abcdef)"),
        ),
        (server.url("/none.git"), "git ls-remote: ".to_owned()),
    ] {
        let said = world.fail(&format!("FROM scratch\nADD {word} /d\n"));
        assert!(said.contains(&expected), "{word}\n{said}");
    }
}

#[test]
fn submodules_come_along_and_local_ones_do_not() {
    let (world, root) = (World::new(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(root.path());
    let remote = |name: &str| format!("git://127.0.0.1:{}/{name}.git", daemon.port);
    publish(&repository(root.path(), "inner"));
    let outer = repository(root.path(), "outer");
    git(&outer, &["submodule", "--quiet", "add", &remote("inner"), "mod"]);
    git(&outer, &["commit", "-q", "-m", "with a submodule"]);
    publish(&outer);
    world.build(&format!("FROM scratch\nADD {} /d\n", remote("outer")));
    let files = world.files();
    assert_eq!(files["d/mod/sub/deep/b"], "644 \"two\"");
    assert!(
        files.keys().all(|path| !path.contains(".git/") && !path.ends_with("/.git")),
        "{files:?}"
    );
    world.build(&format!("FROM scratch\nADD {}?submodules=false /d\n", remote("outer")));
    assert!(!world.files().contains_key("d/mod/a"));

    // A repository must not make the builder read other repositories of its machine.
    let evil = repository(root.path(), "evil");
    let local = root.path().join("inner.git");
    git(
        &evil,
        &[
            "-c",
            "protocol.file.allow=always",
            "submodule",
            "--quiet",
            "add",
            local.to_str().unwrap(),
            "mod",
        ],
    );
    git(&evil, &["commit", "-q", "-m", "with a local submodule"]);
    publish(&evil);
    let said = world.fail(&format!("FROM scratch\nADD {} /d\n", remote("evil")));
    assert!(said.contains("transport 'file' not allowed"), "{said}");
}

#[test]
fn the_git_directory_is_kept_on_request() {
    let (world, root) = (World::new(), tempfile::tempdir().unwrap());
    publish(&repository(root.path(), "r"));
    let daemon = Daemon::start(root.path());
    let url = format!("git://127.0.0.1:{}/r.git", daemon.port);
    world.build(&format!("FROM scratch\nADD --keep-git-dir {url}#main /d\n"));
    let files = world.files();
    assert_eq!(files["d/.git/HEAD"], "644 \"ref: refs/heads/main\\n\"");
    assert!(files["d/.git/config"].contains(&url), "{}", files["d/.git/config"]);
    assert!(!files.keys().any(|path| path.contains("hooks")), "{files:?}");
    world.build(&format!("FROM scratch\nADD {url}?keep-git-dir=true#main /d\n"));
    assert!(world.files().contains_key("d/.git/HEAD"));
}

#[test]
fn nothing_of_this_machines_configuration_reaches_git() {
    let (world, root) = (World::new(), tempfile::tempdir().unwrap());
    publish(&repository(root.path(), "r"));
    let daemon = Daemon::start(root.path());
    let marker = root.path().join("executed");
    // Each of these would run a program, or send us elsewhere.
    let config = format!(
        "[core]\n\thooksPath = {0}\n\tfsmonitor = touch {1}\n[url \"git://127.0.0.1:1/\"]\n\tinsteadOf = git://\n[filter \"x\"]\n\tsmudge = touch {1}\n[core]\n\tattributesFile = {0}/attributes\n\tgitProxy = touch {1}\n",
        root.path().join("hooks").display(),
        marker.display()
    );
    fs::create_dir(root.path().join("hooks")).unwrap();
    fs::write(root.path().join("hooks/attributes"), "* filter=x\n").unwrap();
    let hook = root.path().join("hooks/post-checkout");
    fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", marker.display())).unwrap();
    fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(root.path().join("config"), config).unwrap();
    let dockerfile = format!("FROM scratch\nADD git://127.0.0.1:{}/r.git /d\n", daemon.port);
    let output = world
        .build_command(&dockerfile, &[])
        .env("GIT_CONFIG_GLOBAL", root.path().join("config"))
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "core.gitProxy")
        .env("GIT_CONFIG_VALUE_0", format!("touch {}", marker.display()))
        .env("GIT_PROXY_COMMAND", format!("touch {}", marker.display()))
        .env("GIT_TEMPLATE_DIR", root.path())
        .env("GIT_TRACE", root.path().join("trace"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!marker.exists() && !root.path().join("trace").exists());
    assert_eq!(world.files()["d/a"], "644 \"one\"");
}

//! Images that travel: between registries, ours and docker's, and to other people's programs.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use e2e::{Registry, World, free_port, run, wait_until};
use oci::{Descriptor, Digest, Index, Manifest, MediaType};
use serde_json::Value;

/// docker's registry, which has no list of referrers; it ends with the value.
struct Distribution {
    child: Child,
    port: u16,
}

impl Distribution {
    fn start(directory: &Path) -> Self {
        let port = free_port();
        let config = directory.with_extension("yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n",
            directory.display()
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let address = ("127.0.0.1", port);
        wait_until("docker's registry", || std::net::TcpStream::connect(address).ok());
        Self { child, port }
    }

    fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn skopeo(args: &[&str]) -> String {
    run(Command::new("skopeo").arg("--insecure-policy").args(args)).stdout
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Builds an image of one small file; nothing has to run for that.
fn image(world: &World, name: &str) -> Digest {
    world.build(name, "FROM scratch\nCOPY a /a\nLABEL x=y\n", &[("a", name)]);
    digest(world, name)
}

fn digest(world: &World, name: &str) -> Digest {
    world.rbuild(&["inspect", "-f", "{{.Digest}}", name]).text().trim().parse().unwrap()
}

/// Writes a layout with a signature of a manifest, as a tool that signs would.
fn signature(world: &World, subject: &Digest, size: u64) -> (String, Digest) {
    let directory = world.path("signature");
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: MediaType, bytes: &[u8]| {
        let digest = Digest::sha256(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        Descriptor::new(media_type, digest, bytes.len() as u64)
    };
    let text = "application/vnd.example.text".parse().unwrap();
    let layer = put(text, b"signed by nobody");
    let mut manifest = Manifest::new(put(MediaType::OCI_EMPTY, b"{}"), vec![layer]);
    manifest.artifact_type = Some("application/vnd.example.signature".parse().unwrap());
    manifest.subject = Some(Descriptor::new(MediaType::OCI_MANIFEST, *subject, size));
    let mut entry = put(MediaType::OCI_MANIFEST, &manifest.to_bytes());
    entry.annotations =
        BTreeMap::from([("org.opencontainers.image.ref.name".to_owned(), "sig".to_owned())]);
    fs::write(directory.join("index.json"), Index::new(vec![entry.clone()]).to_bytes()).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    (format!("oci:{}:sig", directory.display()), entry.digest)
}

#[test]
fn remote_images_are_looked_at_without_a_pull() {
    let world = World::new();
    let registry = Registry::start(&world.path("registry"));
    let name = format!("{}/team/app:1", registry.host());
    image(&world, &name);
    let pushed = world.rbuild(&["push", &name]).text().trim().to_owned();
    let pushed = pushed.split_once('@').unwrap().1.to_owned();
    let local = world.rbuild(&["inspect", "--config", &name]).stdout;
    world.rbuild(&["rmi", &name]);
    assert!(world.try_rbuild(&["inspect", &name]).code() == 1);

    let remote = json(&world.rbuild(&["inspect", "--remote", &name]).stdout)[0].clone();
    assert_eq!(remote["Digest"], pushed);
    assert_eq!(remote["Config"]["Labels"]["x"], "y");
    assert_eq!(remote["RepoDigests"][0], format!("{}/team/app@{pushed}", registry.host()));
    let raw = world.rbuild(&["inspect", "--remote", "--raw", &name]).stdout;
    assert_eq!(Digest::sha256(raw.as_bytes()).to_string(), pushed);
    assert_eq!(world.rbuild(&["inspect", "--remote", "--config", &name]).stdout, local);
    let history = world.rbuild(&["history", "--remote", "--format", "{{.CreatedBy}}", &name]);
    assert_eq!(history.text(), "LABEL x=y\nCOPY a /a # buildkit");
    assert!(world.try_rbuild(&["inspect", &name]).code() == 1, "it is still not here");
    let missing = world.try_rbuild(&["inspect", "--remote", &format!("{name}-other")]);
    assert_eq!(missing.code(), 1);
    assert!(missing.stderr.contains("has no manifest 1-other of team/app"), "{}", missing.stderr);
}

#[test]
fn images_are_copied_between_our_registry_and_dockers() {
    let world = World::new();
    let ours = Registry::start(&world.path("registry"));
    let theirs = Distribution::start(&world.path("distribution"));
    let name = |host: String, rest: &str| format!("{host}/{rest}");
    let source = name(ours.host(), "app:1");
    image(&world, &source);
    world.rbuild(&["push", &source]);
    let file = world.path("digest");
    let file = file.to_str().unwrap();
    world.rbuild(&["rmi", &source]);

    let there = name(theirs.host(), "mirror/app:1");
    let back = name(ours.host(), "back:2");
    world.rbuild(&["copy", "--digestfile", file, &source, &there]);
    world.rbuild(&["copy", &format!("docker://{there}"), &back]);
    let raw = |name: &str| world.rbuild(&["inspect", "--remote", "--raw", name]).stdout;
    assert_eq!(raw(&source), raw(&there));
    assert_eq!(raw(&source), raw(&back));
    assert_eq!(
        Digest::sha256(raw(&back).as_bytes()).to_string(),
        fs::read_to_string(file).unwrap()
    );
    let config = ["inspect", "--tls-verify=false", "--config"];
    let seen = json(&skopeo(&[&config[..], &[&format!("docker://{there}")]].concat()));
    assert_eq!(seen["config"]["Labels"]["x"], "y");
    assert_eq!(world.rbuild(&["images", "-q", "app"]).text(), "", "nothing came to stay");
    world.rbuild(&["pull", &back]);
}

#[test]
fn referrers_travel_between_a_registry_that_lists_them_and_one_that_does_not() {
    let world = World::new();
    let ours = Registry::start(&world.path("registry"));
    let theirs = Distribution::start(&world.path("distribution"));
    let source = format!("{}/app:1", ours.host());
    image(&world, &source);
    world.rbuild(&["push", &source]);
    let raw = world.rbuild(&["inspect", "--remote", "--raw", &source]).stdout;
    let subject = Digest::sha256(raw.as_bytes());
    let (layout, signature) = signature(&world, &subject, raw.len() as u64);
    world.rbuild(&["copy", &layout, &format!("{}/app:sig", ours.host())]);

    let listed = |name: &str, remote: &[&str]| -> Vec<String> {
        let args = [&["inspect", "--referrers"][..], remote, &[name]].concat();
        let value = json(&world.rbuild(&args).stdout);
        let list = value[0]["Referrers"].as_array().unwrap().clone();
        list.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
    };
    let expected = [signature.to_string()];
    assert_eq!(listed(&source, &["--remote"]), expected);

    // To docker's registry, where the list is a tag, and from there by way of the store.
    let there = format!("{}/app:1", theirs.host());
    world.rbuild(&["copy", "--referrers", &source, &there]);
    assert_eq!(listed(&there, &["--remote"]), expected);
    let tags =
        skopeo(&["list-tags", "--tls-verify=false", &format!("docker://{}/app", theirs.host())]);
    assert!(tags.contains(&format!("\"sha256-{}\"", subject.hex())), "{tags}");
    world.rbuild(&["pull", "--referrers", &there]);
    assert_eq!(listed(&there, &[]), expected);
    let plain = world.rbuild(&["images", "--format", "{{.Tag}}"]).stdout;
    assert!(!plain.contains("sha256-"), "{plain}");
    let all = world.rbuild(&["images", "-a", "--format", "{{.Tag}}"]).stdout;
    assert!(all.contains("sha256-"), "{all}");
    let again = format!("{}/again:1", ours.host());
    world.rbuild(&["push", "--referrers", &there, &again]);
    assert_eq!(listed(&again, &["--remote"]), expected);
    world.rbuild(&["rmi", &source, &there]);
    let all = world.rbuild(&["images", "-a", "--format", "{{.Tag}}"]).stdout;
    assert!(!all.contains("sha256-"), "referrers go with their image: {all}");
}

#[test]
fn an_index_of_several_platforms_goes_as_a_whole() {
    let world = World::new();
    let ours = Registry::start(&world.path("registry"));
    let theirs = Distribution::start(&world.path("distribution"));
    let tar = world.write("root.tar", root_tar());
    let tar = tar.to_str().unwrap();
    for platform in ["amd64", "arm64"] {
        let (platform, name) = (format!("linux/{platform}"), format!("part:{platform}"));
        world.rbuild(&["import", "--platform", &platform, "-m", &name, tar, &name]);
    }
    let name = format!("{}/multi:1", ours.host());
    world.rbuild(&["index", "create", &name, "part:amd64", "part:arm64"]);
    world.rbuild(&["push", &name]);
    let there = format!("{}/multi:1", theirs.host());
    world.rbuild(&["copy", "--all", &name, &there]);
    let raw = |name: &str| world.rbuild(&["inspect", "--remote", "--raw", name]).stdout;
    assert_eq!(raw(&name), raw(&there));
    for architecture in ["amd64", "arm64"] {
        let config = ["--override-arch", architecture, "inspect", "--tls-verify=false", "--config"];
        let seen = json(&skopeo(&[&config[..], &[&format!("docker://{there}")]].concat()));
        assert_eq!(seen["architecture"], architecture);
    }
    // All of it comes back, and one platform of it alone is one image.
    world.rbuild(&["rmi", &name]);
    world.rbuild(&["pull", "--all-platforms", &there]);
    for platform in ["linux/amd64", "linux/arm64"] {
        world.rbuild(&["inspect", "--platform", platform, &there]);
    }
    let single = format!("{}/multi:arm", ours.host());
    world.rbuild(&["copy", "--platform", "linux/arm64", &there, &single]);
    let manifest = json(&raw(&single));
    assert!(manifest["layers"].is_array(), "{manifest}");
}

#[test]
fn all_tags_of_a_repository_are_pushed_and_by_digest_none() {
    let world = World::new();
    let registry = Registry::start(&world.path("registry"));
    let repository = format!("{}/team/app", registry.host());
    for tag in ["1", "2"] {
        image(&world, &format!("{repository}:{tag}"));
    }
    let pushed = world.rbuild(&["push", "--all-tags", &repository]).stdout;
    assert_eq!(pushed.lines().count(), 2);
    let list = ["list-tags", "--tls-verify=false"];
    let tags = json(&skopeo(&[&list[..], &[&format!("docker://{repository}")]].concat()));
    assert_eq!(tags["Tags"], serde_json::json!(["1", "2"]));

    let other = format!("{}/other", registry.host());
    let name = world.rbuild(&["push", "--by-digest", &format!("{repository}:1"), &other]);
    let name = name.text().trim().to_owned();
    assert!(name.starts_with(&format!("{other}@sha256:")), "{name}");
    world.rbuild(&["pull", &name]);
    assert_eq!(world.try_rbuild(&["pull", &other]).code(), 1, "no tag was set");
}

#[test]
fn skopeo_reads_what_copy_writes_and_the_other_way_round() {
    let world = World::new();
    let expected = image(&world, "app:1");
    let at = |name: &str| world.path(name).display().to_string();
    for (place, name) in [
        (format!("oci:{}:app", at("layout")), "layout"),
        (format!("oci-archive:{}:app:1", at("oci.tar")), "oci"),
        (format!("docker-archive:{}:app:1", at("docker.tar")), "docker"),
    ] {
        world.rbuild(&["copy", "store:app:1", &place]);
        let config = json(&skopeo(&["inspect", "--config", &place]));
        assert_eq!(config["config"]["Labels"]["x"], "y", "{place}");
        let to = format!("oci:{}:again", at(&format!("{name}-back")));
        skopeo(&["copy", &place, &to]);
        world.rbuild(&["copy", &to, &format!("store:back:{name}")]);
        let id = |name: &str| world.rbuild(&["inspect", "-f", "{{.Id}}", name]).stdout;
        assert_eq!(id("app:1"), id(&format!("back:{name}")));
    }
    assert_eq!(digest(&world, "app:1"), expected);
}

/// Makes a tar of a root file system with one file.
fn root_tar() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "content").unwrap();
    let mut command = Command::new("tar");
    let output = command.args(["-C", directory.path().to_str().unwrap(), "-c", "."]).output();
    output.unwrap().stdout
}

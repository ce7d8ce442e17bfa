//! Imports of folders that others have made, and of some that nobody should have.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::Digest;
use registry::content::Options;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Ran, root, rregistry};
use crate::support::{OCI_INDEX, OCI_MANIFEST, Server, descriptor, index, manifest, noise};

pub(crate) fn migrate(from: &Path, to: &TempDir, words: &[&str]) -> Ran {
    let to = root(to);
    let required = ["migrate", from.to_str().unwrap(), "--root", to.to_str().unwrap()];
    rregistry(&[&required, words].concat())
}

pub(crate) async fn serve(dir: TempDir) -> Server {
    Server::on(Arc::new(dir), Options::default()).await
}

/// The storage of a distribution registry.
struct Distribution(TempDir);

impl Distribution {
    fn new() -> Self {
        let new = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(new.v2().join("repositories")).unwrap();
        new
    }

    fn v2(&self) -> PathBuf {
        self.0.path().join("docker/registry/v2")
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.v2().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let hex = digest.hex();
        self.write(&format!("blobs/sha256/{}/{hex}/data", &hex[..2]), bytes);
        digest
    }

    fn layer(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = self.blob(bytes);
        let path = format!("repositories/{repository}/_layers/sha256/{}/link", digest.hex());
        self.write(&path, digest.to_string());
        digest
    }

    fn manifest(&self, repository: &str, tag: Option<&str>, manifest: &Value) -> Digest {
        let digest = self.blob(manifest.to_string().as_bytes());
        let base = format!("repositories/{repository}/_manifests");
        let path = format!("{base}/revisions/sha256/{}/link", digest.hex());
        self.write(&path, digest.to_string());
        if let Some(tag) = tag {
            self.write(&format!("{base}/tags/{tag}/current/link"), digest.to_string());
        }
        digest
    }

    fn image(&self, repository: &str, tag: Option<&str>, seed: &str) -> (Digest, Value) {
        let (config, layer) = (format!(r#"{{"seed":"{seed}"}}"#), format!("layer {seed}"));
        self.layer(repository, config.as_bytes());
        self.layer(repository, layer.as_bytes());
        let manifest = manifest(config.as_bytes(), layer.as_bytes());
        (self.manifest(repository, tag, &manifest), manifest)
    }
}

#[tokio::test]
async fn the_storage_of_distribution_comes_whole_and_once() {
    let from = Distribution::new();
    let (one, image) = from.image("team/app", Some("v1"), "one");
    let (other, _) = from.image("team/app/sub", Some("v1"), "one");
    let multi = from.manifest("team/app", Some("multi"), &index(&[&image]));
    let (untagged, _) = from.image("team/app", None, "two");
    let to = tempfile::tempdir().unwrap();
    let ran = migrate(from.0.path(), &to, &[]);
    let expected = "imported 4 manifests, 3 tags and 4 blobs (46 B) from 2 repositories; \
        2 blobs shared, 0 there already, 0 tags left alone: all is well\n";
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), expected), "{}", ran.err);
    // Again, and from further in: nothing is left to do.
    let ran = migrate(&from.v2(), &to, &[]);
    let expected = "imported 0 manifests, 0 tags and 0 blobs (0 B) from 2 repositories; \
        0 blobs shared, 13 there already, 0 tags left alone: all is well\n";
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), expected), "{}", ran.err);
    let server = serve(to).await;
    assert_eq!(server.tags("team/app").await, ["multi", "v1"]);
    for (repository, digest) in
        [("team/app", one), ("team/app/sub", other), ("team/app", multi), ("team/app", untagged)]
    {
        let path = format!("/v2/{repository}/manifests/{digest}");
        assert_eq!(server.status(&path).await, 200, "{path}");
    }
    let layer = Digest::sha256(b"layer two");
    assert_eq!(server.status(&format!("/v2/team/app/blobs/{layer}")).await, 200);
    assert_eq!(server.status(&format!("/v2/team/app/sub/blobs/{layer}")).await, 404);
    // A tag that moved since is left alone.
    let moved = server.push_image("team/app", "v1", "newer").await;
    let to = Arc::into_inner(server.stop().await).unwrap();
    let ran = migrate(from.0.path(), &to, &[]);
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.out.starts_with(&format!("team/app:v1 names {moved} by now, and keeps it\n")),
        "{}",
        ran.out
    );
}

/// What is damaged is left behind and said, and all else comes.
#[tokio::test]
async fn damaged_content_is_named_and_left_behind() {
    let from = Distribution::new();
    let (sound, _) = from.image("a", Some("sound"), "one");
    let (_, image) = from.image("a", Some("damaged"), "two");
    let layer = Digest::sha256(b"layer two");
    let path = format!("blobs/sha256/{}/{}/data", &layer.hex()[..2], layer.hex());
    from.write(&path, "layer twO");
    let old = json!({ "schemaVersion": 1, "fsLayers": [] });
    from.manifest("a", Some("old"), &old);
    let torn = from.manifest("a", None, &manifest(b"x", b"y"));
    from.write(&format!("blobs/sha256/{}/{}/data", &torn.hex()[..2], torn.hex()), "{}");
    from.write(
        "repositories/a/_manifests/tags/gone/current/link",
        Digest::sha256(b"?").to_string(),
    );
    from.write("repositories/a/_manifests/tags/odd/current/link", "../../../etc/passwd");
    let to = tempfile::tempdir().unwrap();
    let ran = migrate(from.0.path(), &to, &[]);
    assert_eq!(ran.code, Some(1));
    for expected in [
        format!("a: blob {layer} is damaged: its content is {}", Digest::sha256(b"layer twO")),
        format!(
            "a@{}: the manifest names {layer} that a does not have",
            Digest::sha256(image.to_string().as_bytes())
        ),
        format!("a@{torn} is damaged: its content is {}", Digest::sha256(b"{}")),
        format!("a:gone names {}, which is not there", Digest::sha256(b"?")),
        "a:odd does not hold a digest".to_owned(),
        format!("a@{}: ", Digest::sha256(old.to_string().as_bytes())),
    ] {
        assert!(ran.out.contains(&expected), "{expected} is not in {}", ran.out);
    }
    assert!(ran.out.ends_with("6 problems\n"), "{}", ran.out);
    let server = serve(to).await;
    assert_eq!(server.tags("a").await, ["sound"]);
    assert_eq!(server.status(&format!("/v2/a/manifests/{sound}")).await, 200);
}

/// A folder may list what is not its own: a link to a file of the host, the
/// content of another repository, or of another registry.
#[tokio::test]
async fn a_folder_gets_only_what_it_has() {
    let to = Arc::new(tempfile::tempdir().unwrap());
    let server = Server::on(Arc::clone(&to), Options::default()).await;
    server.push_image("private", "v1", "secret").await;
    server.stop().await;
    let to = Arc::into_inner(to).unwrap();
    let from = Distribution::new();
    from.image("theirs", Some("v1"), "theirs");
    let stolen = |layer: &[u8]| manifest(b"{}", layer);
    from.layer("hostile", b"{}");
    // Listed, but the bytes are only in the target.
    let layer = Digest::sha256(b"layer secret");
    from.write(
        &format!("repositories/hostile/_layers/sha256/{}/link", layer.hex()),
        layer.to_string(),
    );
    from.manifest("hostile", Some("target"), &stolen(b"layer secret"));
    // In the folder, but not of this repository.
    from.manifest("hostile", Some("other"), &stolen(b"layer theirs"));
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("passwd"), "root:x").unwrap();
    // A file of the host, by its true digest.
    let passwd = Digest::sha256(b"root:x");
    from.layer("hostile", b"root:x");
    let data = from.v2().join(format!("blobs/sha256/{}/{}/data", &passwd.hex()[..2], passwd.hex()));
    std::fs::remove_file(&data).unwrap();
    symlink(host.path().join("passwd"), &data).unwrap();
    from.manifest("hostile", Some("host"), &stolen(b"root:x"));
    // Repositories that are not there.
    symlink(host.path(), from.v2().join("repositories/link")).unwrap();
    from.write("repositories/Upper/_manifests/x", "");
    from.write("repositories/..%2f/_manifests/x", "");
    let ran = migrate(from.0.path(), &to, &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(
        ran.out.contains(&format!("hostile: blob {layer} is not in the folder")),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("repository \"Upper\": "), "{}", ran.out);
    let server = serve(to).await;
    for digest in [layer, Digest::sha256(b"layer theirs"), passwd] {
        assert_eq!(server.status(&format!("/v2/hostile/blobs/{digest}")).await, 404);
    }
    assert_eq!(server.status("/v2/hostile/tags/list").await, 404);
    assert_eq!(server.tags("theirs").await, ["v1"]);
}

#[tokio::test]
async fn a_layout_comes_with_its_tags() {
    let from = tempfile::tempdir().unwrap();
    let blobs = from.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8]| {
        std::fs::write(blobs.join(Digest::sha256(bytes).hex()), bytes).unwrap();
    };
    let image = manifest(b"{}", b"layer");
    // Children of an index are in the layout and not in its list.
    let multi = index(&[&image]);
    let nested = index(&[&multi]);
    for bytes in [&b"{}"[..], b"layer"] {
        blob(bytes);
    }
    for document in [&image, &multi, &nested] {
        blob(document.to_string().as_bytes());
    }
    let named = |media_type: &str, document: &Value, name: &str| {
        let mut entry = descriptor(media_type, document.to_string().as_bytes());
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        entry
    };
    let list = json!({ "schemaVersion": 2, "manifests": [
        named(OCI_INDEX, &nested, "nested"),
        named(OCI_INDEX, &nested, "localhost/x:latest"),
        named(OCI_MANIFEST, &image, "image"),
        named(OCI_MANIFEST, &image, "no tag"),
    ]});
    std::fs::write(from.path().join("index.json"), list.to_string()).unwrap();
    std::fs::write(from.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let to = tempfile::tempdir().unwrap();
    let ran = migrate(from.path(), &to, &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("hint: say where its images go with --repository"), "{}", ran.err);
    let ran = migrate(from.path(), &to, &["--repository", "team/app"]);
    assert_eq!(ran.code, Some(1), "one name has no tag");
    assert!(
        ran.out.contains(
            "imported 3 manifests, 3 tags and 2 blobs (7 B) from 1 repository; \
         0 blobs shared, 0 there already, 0 tags left alone: 1 problem"
        ),
        "{}",
        ran.out
    );
    let server = serve(to).await;
    assert_eq!(server.tags("team/app").await, ["image", "latest", "nested"]);
}

#[test]
fn other_folders_are_refused() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ran = migrate(from.path(), &to, &[]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.contains("is neither the storage of a distribution registry nor an OCI layout")
    );
    let ran = migrate(&from.path().join("none"), &to, &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("No such file or directory"), "{}", ran.err);
}

/// Documents that are too large, too deep or not there cost little and are named.
#[tokio::test]
async fn absurd_documents_are_named_and_left_behind() {
    let from = Distribution::new();
    from.image("a", Some("v1"), "one");
    let huge = json!({ "schemaVersion": 2, "x": "y".repeat(9 << 20) });
    from.manifest("a", Some("huge"), &huge);
    from.blob(&noise(100, 1));
    let mut nested = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] });
    for _ in 0..40 {
        from.manifest("a", None, &nested);
        nested = index(&[&nested]);
    }
    from.manifest("a", Some("deep"), &nested);
    let to = tempfile::tempdir().unwrap();
    let ran = migrate(from.0.path(), &to, &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("it has more than 8388608 bytes"), "{}", ran.out);
    let server = serve(to).await;
    assert!(server.tags("a").await.contains(&"v1".to_owned()));
}

//! What is saved can be loaded, what docker and others write too, and hostile archives cannot hurt.

use std::fs;
use std::io::{self, Read, Write as _};

use oci::{
    Algorithm, Compression, Descriptor, DiffId, Digest, ImageConfig, Index, Manifest, MediaType,
    Platform,
};

use super::Loaded;
use crate::error::{Error, Result};
use crate::images::ImageEntry;
use crate::layers::tar::Writer;
use crate::layers::{Entry, Kind, Metadata};
use crate::lease::Lease;
use crate::store::Store;
use crate::testing::{blob, image, image_for, name, store};

/// Writes a tar from paths and what is there.
fn tar(entries: &[(&str, Kind, &[u8])]) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for (path, kind, data) in entries {
        let entry = Entry {
            path: (*path).into(),
            kind: kind.clone(),
            metadata: Metadata { mode: 0o644, ..Metadata::implied_directory() },
        };
        tar.entry(&entry).unwrap();
        tar.data(data).unwrap();
    }
    tar.finish().unwrap()
}

fn files(files: &[(&str, &[u8])]) -> Vec<u8> {
    let file = |(path, data): &(&'_ str, &'_ [u8])| -> (String, Kind, Vec<u8>) {
        ((*path).to_owned(), Kind::File { size: data.len() as u64 }, data.to_vec())
    };
    let files: Vec<_> = files.iter().map(file).collect();
    let entries: Vec<_> = files.iter().map(|(p, k, d)| (p.as_str(), k.clone(), &d[..])).collect();
    tar(&entries)
}

/// Loads an archive into a store of its own.
fn load(archive: &[u8]) -> (tempfile::TempDir, Store, Result<Vec<Loaded>>) {
    let (dir, store) = store();
    let loaded = store.lease().unwrap().load(archive);
    (dir, store, loaded)
}

fn entry(text: Option<&str>, descriptor: &Descriptor) -> ImageEntry {
    ImageEntry { reference: text.map(name), descriptor: descriptor.clone() }
}

fn saved(lease: &Lease, images: &[ImageEntry]) -> Vec<u8> {
    let mut archive = Vec::new();
    lease.save(images, &mut archive).unwrap();
    archive
}

fn names(loaded: &Loaded) -> Vec<String> {
    loaded.references.iter().map(ToString::to_string).collect()
}

#[test]
fn loading_gives_back_what_was_saved() {
    let (_from, store) = store();
    let lease = store.lease().unwrap();
    let large = vec![9; 600_000];
    let one = image(&lease, &[b"base", &large]).unwrap();
    let two = image(&lease, &[b"base", b"two"]).unwrap();
    let images = [
        entry(Some("app:1"), &one),
        entry(Some("localhost:5000/team/app:stable"), &one),
        entry(None, &two),
    ];
    let archive = saved(&lease, &images);
    assert!(archive == saved(&lease, &images), "the same images give the same bytes");

    let (_to, target, loaded) = load(&archive);
    let loaded = loaded.unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(names(&loaded[0]), ["docker.io/library/app:1", "localhost:5000/team/app:stable"]);
    assert_eq!(names(&loaded[1]), [] as [&str; 0]);
    for (loaded, original) in loaded.iter().zip([&one, &two]) {
        assert_eq!(loaded.descriptor, *original);
        assert_eq!(loaded.image_id, store.image_id(original).unwrap());
    }
    assert_eq!(target.images().get(&name("app:1")).unwrap(), Some(one.clone()));
    target.gc().unwrap();
    let found = target.images().find("app:1").unwrap();
    let image = target.image(&found.descriptor, &Platform::host()).unwrap();
    let bytes = target.blobs().read(&image.manifest.layers[1].digest, u64::MAX).unwrap();
    assert!(bytes == large);
    assert_eq!(target.images().list().unwrap().len(), 3, "an image without a name is kept too");
}

#[test]
fn docker_finds_its_list() {
    let (_dir, store) = store();
    let lease = store.lease().unwrap();
    let image = image(&lease, &[b"layer"]).unwrap();
    let images = [entry(Some("app:1"), &image), entry(Some("example.com/a/b:2"), &image)];
    let archive = saved(&lease, &images);
    let config = store.image_id(&image).unwrap().unwrap();
    let layer = Digest::sha256(b"layer");
    let expected = format!(
        r#"[{{"Config":"blobs/sha256/{}","RepoTags":["app:1","example.com/a/b:2"],"Layers":["blobs/sha256/{}"]}}]"#,
        config.hex(),
        layer.hex()
    );
    let text = String::from_utf8_lossy(&archive);
    assert!(text.contains(&expected), "{expected}");
    assert!(text.contains(r#"{"imageLayoutVersion":"1.0.0"}"#));
}

/// An archive as docker wrote them from 1.10 to 24: nothing is named by its digest, and a layer
/// that occurs again is a link.
fn old_docker_archive(config: &ImageConfig) -> Vec<u8> {
    let manifest = r#"[{"Config":"c.json","RepoTags":["app:old","team/app:2"],
        "Layers":["one/layer.tar","two/layer.tar","one-again/layer.tar"]}]"#;
    let config = config.to_bytes();
    let file = |bytes: &[u8]| Kind::File { size: bytes.len() as u64 };
    tar(&[
        ("./one/", Kind::Directory, b""),
        ("./one/VERSION", file(b"1.0"), b"1.0"),
        ("./one/layer.tar", file(b"first"), b"first"),
        ("two/layer.tar", file(b"second"), b"second"),
        ("one-again/layer.tar", Kind::Symlink { target: b"../one/layer.tar".to_vec() }, b""),
        ("c.json", file(&config), &config),
        ("manifest.json", file(manifest.as_bytes()), manifest.as_bytes()),
        ("repositories", file(b"{}"), b"{}"),
    ])
}

fn old_config() -> ImageConfig {
    let mut config = ImageConfig::new(Platform::host());
    for layer in [&b"first"[..], b"second", b"first"] {
        config.rootfs_diff_ids.push(DiffId(Digest::sha256(layer)));
    }
    config
}

#[test]
fn docker_archive_without_an_index_is_loaded() {
    let config = old_config();
    let (_dir, store, loaded) = load(&old_docker_archive(&config));
    let loaded = loaded.unwrap();
    assert_eq!(names(&loaded[0]), ["docker.io/library/app:old", "docker.io/team/app:2"]);
    assert_eq!(loaded[0].image_id, Some(Digest::sha256(&config.to_bytes())));
    store.gc().unwrap();
    let image = store.image(&loaded[0].descriptor, &Platform::host()).unwrap();
    let layers: Vec<_> = image
        .manifest
        .layers
        .iter()
        .map(|layer| store.blobs().read(&layer.digest, 100).unwrap())
        .collect();
    assert_eq!(layers, [&b"first"[..], b"second", b"first"]);
    let blobs = fs::read_dir(store.root().blobs(Algorithm::Sha256)).unwrap().count();
    assert_eq!(blobs, 4, "two layers, the config and the manifest");
}

#[test]
fn compressed_archives_are_loaded() {
    let plain = old_docker_archive(&old_config());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    for archive in [gzip.finish().unwrap(), zstd::bulk::compress(&plain, 1).unwrap()] {
        assert_eq!(load(&archive).2.unwrap().len(), 1);
    }
    for (start, name) in [(&b"\xfd7zXZ\0rest"[..], "xz"), (b"BZh91AY", "bzip2")] {
        let error = load(start).2.unwrap_err().to_string();
        assert_eq!(error, format!("not a usable image archive: it is compressed with {name}"));
    }
}

#[test]
fn index_of_which_one_platform_is_stored_is_saved_for_that_platform() {
    let (_dir, store) = store();
    let lease = store.lease().unwrap();
    let here = image(&lease, &[b"here"]).unwrap();
    let there = image_for(&lease, Platform::new("plan9", "mips", None), &[b"there"]).unwrap();
    let mut listed = [here.clone(), there.clone()];
    listed[0].platform = Some(Platform::host());
    listed[1].platform = Some(Platform::new("plan9", "mips", None));
    let bytes = Index::new(listed.to_vec()).to_bytes();
    let digest = blob(&lease, &bytes).unwrap();
    let index = Descriptor::new(MediaType::OCI_INDEX, digest, bytes.len() as u64);

    let (_whole_dir, _, whole) = load(&saved(&lease, &[entry(Some("app"), &index)]));
    assert_eq!(whole.unwrap()[0].descriptor, index);

    fs::remove_file(store.root().blob(&Digest::sha256(b"there"))).unwrap();
    let (_part_dir, _, part) = load(&saved(&lease, &[entry(Some("app"), &index)]));
    let part = part.unwrap().remove(0);
    assert_eq!(
        (part.descriptor.digest, names(&part)[0].as_str()),
        (here.digest, "docker.io/library/app:latest")
    );
}

#[test]
fn image_that_is_not_whole_is_not_saved() {
    let (_dir, store) = store();
    let lease = store.lease().unwrap();
    let image = image(&lease, &[b"layer"]).unwrap();
    let layer = Digest::sha256(b"layer");
    fs::remove_file(store.root().blob(&layer)).unwrap();
    let mut archive = Vec::new();
    let error = lease.save(&[entry(Some("app"), &image)], &mut archive).unwrap_err();
    assert!(matches!(error, Error::BlobUnknown { digest } if digest == layer), "{error}");
    assert_eq!(archive.len(), 0);
}

/// Checks that loading fails with a message, and that no image came into being.
#[track_caller]
fn check_refused(archive: &[u8], message: &str) {
    let (_dir, store, loaded) = load(archive);
    let error = loaded.unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    assert!(text.contains(message), "{text:?} should say {message:?}");
    assert_eq!(store.images().list().unwrap().len(), 0);
    store.gc().unwrap();
    let blobs = fs::read_dir(store.root().blobs(Algorithm::Sha256)).unwrap().count();
    assert_eq!((blobs, fs::read_dir(store.root().ingest()).unwrap().count()), (0, 0));
}

#[test]
fn archives_that_are_none_are_refused() {
    let wrong = format!("blobs/sha256/{}", Digest::sha256(b"other").hex());
    let unknown = Descriptor::new(MediaType::OCI_MANIFEST, Digest::sha256(b"?"), 1);
    let dangling = Index::new(vec![unknown]).to_bytes();
    let many = vec![Descriptor::new(MediaType::OCI_MANIFEST, Digest::sha256(b"?"), 1); 10_001];
    let many = Index::new(many).to_bytes();
    let docker = |text: &'static str| files(&[("manifest.json", text.as_bytes())]);
    let cases: [(Vec<u8>, &str); 13] = [
        (b"".to_vec(), "neither index.json nor manifest.json"),
        (vec![0; 10_240], "neither index.json nor manifest.json"),
        (b"this is no tar at all".repeat(100), "not a usable image archive: tar header"),
        (files(&[("repositories", b"{}")]), "neither index.json nor manifest.json"),
        (files(&[("index.json", b"{")]), "index.json is not an index"),
        (files(&[("index.json", &dangling)]), "is missing from it"),
        (files(&[("index.json", &many)]), "more than 10000 images"),
        (files(&[(&wrong, b"content")]), "expected sha256:"),
        (docker("{}"), "manifest.json is not docker's"),
        (docker(r#"[{"Config":"c","RepoTags":null,"Layers":null}]"#), "\"c\" is missing"),
        (docker(r#"[{"Config":"manifest.json"}]"#), "is not a valid image config"),
        (tar(&[("x", Kind::Fifo, b"")]), "x is neither a file nor a directory"),
        (
            tar(&[
                ("manifest.json", Kind::Symlink { target: b"a".to_vec() }, b""),
                ("a", Kind::Symlink { target: b"manifest.json".to_vec() }, b""),
            ]),
            "neither index.json nor manifest.json",
        ),
    ];
    for (archive, message) in &cases {
        check_refused(archive, message);
    }
}

#[test]
fn links_lead_to_files_of_the_archive_only() {
    let list = br#"[{"Config":"c","Layers":[]}]"#;
    let archive = tar(&[
        ("c", Kind::Symlink { target: b"/etc/hostname".to_vec() }, b""),
        ("manifest.json", Kind::File { size: list.len() as u64 }, list),
    ]);
    check_refused(&archive, "\"c\" is missing from it");
}

#[test]
fn layers_that_are_not_what_the_config_says_are_refused() {
    let mut config = old_config();
    config.rootfs_diff_ids[1] = DiffId(Digest::sha256(b"something else"));
    check_refused(&old_docker_archive(&config), "expected sha256:");
    config.rootfs_diff_ids.pop();
    check_refused(&old_docker_archive(&config), "c.json has 3 layers of 2");
}

#[test]
fn truncated_archive_is_refused_wherever_it_ends() {
    let (_dir, store) = store();
    let lease = store.lease().unwrap();
    let image = image(&lease, &[b"layer"]).unwrap();
    let archive = saved(&lease, &[entry(Some("app"), &image)]);
    // The end marker and the padding of the last file are not missed.
    let needed = archive.len() - 1024 - 512;
    for length in (0..needed).step_by(173) {
        let (_dir, store, loaded) = load(&archive[..length]);
        assert!(loaded.is_err(), "{length} of {}", archive.len());
        assert_eq!(store.images().list().unwrap().len(), 0);
    }
}

/// A stream without end: loading it must stop at a limit.
#[test]
fn endless_names_meet_a_limit() {
    struct Endless {
        header: Vec<u8>,
        position: usize,
    }
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.position == self.header.len() {
                let number =
                    String::from_utf8_lossy(&self.header[..100]).trim_matches('\0').parse::<u64>();
                self.header = tar(&[(
                    &format!("{:099}", number.unwrap_or(0) + 1),
                    Kind::HardLink { target: b"x".to_vec() },
                    b"",
                )]);
                self.header.truncate(512);
                self.position = 0;
            }
            let count = buffer.len().min(self.header.len() - self.position);
            buffer[..count].copy_from_slice(&self.header[self.position..self.position + count]);
            self.position += count;
            Ok(count)
        }
    }
    let (_dir, store) = store();
    let endless = Endless { header: vec![0; 512], position: 512 };
    let error = store.lease().unwrap().load(endless).unwrap_err();
    assert!(matches!(error, Error::Archive { .. }), "{error}");
}

#[test]
fn compressed_layers_in_a_docker_archive_keep_their_bytes() {
    let (_from, store) = store();
    let lease = store.lease().unwrap();
    let digest = blob(&lease, b"layer").unwrap();
    let plain = Descriptor::new(MediaType::OCI_LAYER_TAR, digest, 5);
    let packed = lease.compressed(&DiffId(digest), &plain, Compression::Gzip, None).unwrap();
    let packed_bytes = store.blobs().read(&packed.digest, 1000).unwrap();
    let mut config = ImageConfig::new(Platform::host());
    config.rootfs_diff_ids.push(DiffId(digest));
    let config = config.to_bytes();
    let list = br#"[{"Config":"c","RepoTags":["app:1"],"Layers":["l"]}]"#;
    let archive = files(&[("c", &config), ("l", &packed_bytes), ("manifest.json", list)]);
    let (_to, target, loaded) = load(&archive);
    let manifest = loaded.unwrap().remove(0).descriptor;
    let Manifest { layers, .. } = target.image(&manifest, &Platform::host()).unwrap().manifest;
    assert_eq!(layers, [Descriptor::new(MediaType::OCI_LAYER_GZIP, packed.digest, packed.size)]);
}

mod layouts {
    use super::*;
    use crate::archive::Layout;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    /// Saves images into a new layout.
    fn layout(images: &[(Option<&str>, &[&[u8]])]) -> (tempfile::TempDir, Vec<Descriptor>) {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut made = Vec::new();
        for (text, layers) in images {
            let image = image(&lease, layers).unwrap();
            let layout = Layout::create(directory.path()).unwrap();
            layout.save(&lease, &[entry(*text, &image)]).unwrap();
            made.push(image);
        }
        (directory, made)
    }

    /// Loads the only image of a layout into a store of its own.
    fn loaded(path: &Path) -> Result<(tempfile::TempDir, Store, Descriptor)> {
        let layout = Layout::open(path)?;
        let image = layout.find(None)?.descriptor;
        let (dir, store) = store();
        let lease = store.lease().unwrap();
        layout.load(&lease, &image)?;
        Ok((dir, store, image))
    }

    fn refused(path: &Path) -> String {
        let Err(error) = loaded(path) else { panic!("it was taken") };
        error.to_string()
    }

    fn blob_file(directory: &Path, digest: &Digest) -> std::path::PathBuf {
        directory.join("blobs/sha256").join(digest.hex())
    }

    #[test]
    fn what_is_saved_is_found_and_loaded() {
        let (directory, made) =
            layout(&[(Some("app:1"), &[b"one"]), (Some("app:2"), &[b"two"]), (None, &[b"x"])]);
        let layout = Layout::open(directory.path()).unwrap();
        assert_eq!(layout.images().unwrap().len(), 3);
        for (name, expected) in [
            ("1", 0),
            ("docker.io/library/app:1", 0),
            ("app:2", 1),
            (made[2].digest.to_string().as_str(), 2),
        ] {
            let found = layout.find(Some(name)).unwrap();
            assert_eq!(found.descriptor, made[expected], "{name}");
        }
        let error = layout.find(None).unwrap_err().to_string();
        assert!(error.contains("it has several images, say which: 1, 2, sha256:"), "{error}");
        let error = layout.find(Some("3")).unwrap_err().to_string();
        assert!(error.contains("it has no image 3, only 1, 2, sha256:"), "{error}");
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        layout.load(&lease, &made[1]).unwrap();
        let image = store.image(&made[1], &Platform::host()).unwrap();
        assert_eq!(image.diff_ids(), [DiffId(Digest::sha256(b"two"))]);
        assert!(!store.blobs().contains(&Digest::sha256(b"one")).unwrap(), "only what was asked");
        assert!(store.images().list().unwrap().is_empty());
    }

    /// Names that differ only in the repository once took each other's place, for one has the tag
    /// of the other.
    #[test]
    fn two_repositories_have_a_tag_each() {
        let (directory, made) = layout(&[
            (Some("app:1"), &[b"one"]),
            (Some("other/app:1"), &[b"two"]),
            (Some("app:1"), &[b"three"]),
        ]);
        let layout = Layout::open(directory.path()).unwrap();
        assert_eq!(layout.images().unwrap().len(), 2);
        assert_eq!(layout.find(Some("app:1")).unwrap().descriptor, made[2]);
        assert_eq!(layout.find(Some("other/app:1")).unwrap().descriptor, made[1]);
    }

    #[test]
    fn a_tag_moves_and_the_files_are_as_others_expect_them() {
        let (directory, made) = layout(&[(Some("app:1"), &[b"old"]), (Some("app:1"), &[b"new"])]);
        let layout = Layout::open(directory.path()).unwrap();
        assert_eq!(layout.images().unwrap().len(), 1);
        assert_eq!(layout.find(Some("1")).unwrap().descriptor, made[1]);
        let text = fs::read_to_string(directory.path().join("oci-layout")).unwrap();
        assert_eq!(text, r#"{"imageLayoutVersion":"1.0.0"}"#);
        let left = |path: &Path| fs::read_dir(path).unwrap().count();
        assert_eq!(left(directory.path()), 3);
        assert_eq!(left(&directory.path().join("blobs/sha256")), 6);
    }

    #[test]
    fn a_directory_with_something_else_is_no_layout() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("precious"), "x").unwrap();
        for result in [Layout::create(directory.path()), Layout::open(directory.path())] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("it has no oci-layout"), "{error}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"2"}"#).unwrap();
        let error = Layout::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("has no version that is known"), "{error}");
    }

    #[test]
    fn hostile_layouts_give_nothing_away() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        fs::write(&secret, "secret").unwrap();
        type Harm = fn(&Path, &Digest, &Path);
        let harms: [(Harm, &str); 7] = [
            (
                |at, layer, _| fs::write(blob_file(at, layer), "evil!").unwrap(),
                "content is sha256:",
            ),
            (|at, layer, _| fs::write(blob_file(at, layer), "longer").unwrap(), "content"),
            (|at, layer, _| fs::remove_file(blob_file(at, layer)).unwrap(), "is missing from it"),
            (
                |at, layer, secret| {
                    fs::remove_file(blob_file(at, layer)).unwrap();
                    symlink(secret, blob_file(at, layer)).unwrap();
                },
                "leads out of it",
            ),
            (
                |at, layer, _| {
                    fs::remove_file(blob_file(at, layer)).unwrap();
                    let mode = rustix::fs::Mode::RUSR;
                    let kind = rustix::fs::FileType::Fifo;
                    rustix::fs::mknodat(rustix::fs::CWD, blob_file(at, layer), kind, mode, 0)
                        .unwrap();
                },
                "is not a file",
            ),
            (|at, _, _| fs::write(at.join("index.json"), "[").unwrap(), "is not an index"),
            (|at, _, _| fs::write(at.join("index.json"), vec![b' '; 9 << 20]).unwrap(), "bytes"),
        ];
        for (harm, expected) in harms {
            let (directory, _) = layout(&[(Some("app:1"), &[b"layer"])]);
            loaded(directory.path()).unwrap();
            harm(directory.path(), &Digest::sha256(b"layer"), secret.path());
            let error = refused(directory.path());
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn an_index_may_lack_some_of_its_images() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let mut entries = Vec::new();
        for name in ["linux/amd64", "linux/arm64"] {
            let platform: Platform = name.parse().unwrap();
            let mut entry = image_for(&lease, platform.clone(), &[name.as_bytes()]).unwrap();
            entry.platform = Some(platform);
            entries.push(entry);
        }
        let index = lease.put(&Index::new(entries.clone()).to_bytes()).unwrap();
        let index = Descriptor::new(MediaType::OCI_INDEX, index.digest, index.size);
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        layout.save(&lease, &[entry(Some("app:1"), &index)]).unwrap();
        fs::remove_file(blob_file(directory.path(), &entries[1].digest)).unwrap();
        let (_to, store, image) = loaded(directory.path()).unwrap();
        assert_eq!(image, index);
        assert!(store.image(&image, &"linux/amd64".parse().unwrap()).is_ok());
        fs::remove_file(blob_file(directory.path(), &entries[0].digest)).unwrap();
        assert!(refused(directory.path()).contains("is missing from it"));
    }
}

#[test]
fn a_root_file_system_becomes_a_layer() {
    let tar = files(&[("etc/os-release", b"NAME=test\n")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let zstd = zstd::encode_all(&tar[..], 1).unwrap();
    for input in [tar.clone(), gzip.finish().unwrap(), zstd] {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let (layer, diff_id) = lease.import(&input[..]).unwrap();
        assert_eq!(diff_id, DiffId(Digest::sha256(&tar)));
        assert_eq!(layer.media_type, MediaType::OCI_LAYER_TAR);
        assert!(lease.is_unpacked(diff_id).unwrap());
        let snapshot = lease.snapshot(&[diff_id]).unwrap();
        assert_eq!(
            snapshot.read_file(std::path::Path::new("etc/os-release"), 99).unwrap(),
            Some(b"NAME=test\n".to_vec())
        );
    }
    let escape = Kind::Symlink { target: b"/".to_vec() };
    let hostile = self::tar(&[("a", escape, b""), ("a/../../x", Kind::File { size: 1 }, b"x")]);
    for (input, expected) in [
        (&b"not a tar at all, but long enough to look like something"[..], "Truncated"),
        (&tar[..600], "Truncated"),
        (&hostile[..], "a/../../x"),
        (&b"BZh91AY"[..], "bzip2"),
    ] {
        let (_dir, store) = store();
        let error = format!("{:?}", store.lease().unwrap().import(input).unwrap_err());
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

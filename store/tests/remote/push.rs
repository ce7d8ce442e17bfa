//! Pushes: what arrives, what is tried again, and what is not sent at all.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use oci::{Descriptor, Digest, Index, Manifest, MediaType, Platform};
use proptest::prelude::*;
use store::Lease;
use store::remote::{Client, Error, Event, PullOptions, PushOptions};

use crate::registry::Registry;
use crate::server::Reply;
use crate::{Events, Local, amd64, client, config, ignore, noise, packed, put_image};

const MIB: usize = 1 << 20;

fn options() -> PushOptions {
    PushOptions { platform: amd64(), ..PushOptions::default() }
}

/// Makes an image whose layers are these bytes, said to be of a media type.
pub(crate) fn make_image(lease: &Lease, media_type: &MediaType, layers: &[&[u8]]) -> Descriptor {
    let descriptors = layers.iter().map(|layer| {
        let stored = lease.put(layer).unwrap();
        Descriptor::new(media_type.clone(), stored.digest, stored.size)
    });
    let config = config(&amd64(), layers);
    let placeholder = Descriptor::new(MediaType::OCI_CONFIG, Digest::sha256(b""), 0);
    lease.put_image(&Manifest::new(placeholder, descriptors.collect()), &config).unwrap()
}

/// Pushes an image with one layer of this size to a registry that misbehaves.
fn push_one(registry: &Registry, size: usize) -> Result<(Events, Descriptor), Error> {
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let image = make_image(&lease, &MediaType::OCI_LAYER_GZIP, &[&noise(size, 1)]);
    let events = Events::default();
    let name = registry.name("app:1");
    let pushed = client().push(&lease, &image, &name, &options(), &events.sink())?;
    assert_eq!(pushed, image);
    assert!(registry.has_blob("app", &Digest::sha256(&noise(size, 1))));
    Ok((events, pushed))
}

#[test]
fn blobs_come_first_and_the_name_last() {
    let registry = Registry::start();
    push_one(&registry, 3 * MIB).unwrap();
    let log = registry.server.log();
    let position = |start: &str| log.iter().rposition(|line| line.starts_with(start)).unwrap();
    assert_eq!(position("PUT /v2/app/manifests/1"), log.len() - 1);
    assert!(position("PATCH ") < log.len() - 1);
}

#[test]
fn what_the_registry_has_is_not_sent() {
    let registry = Registry::start();
    push_one(&registry, MIB).unwrap();
    let before = registry.server.count("POST ");
    let (events, _) = push_one(&registry, MIB).unwrap();
    assert_eq!(registry.server.count("POST "), before);
    assert_eq!(events.count(|event| matches!(event, Event::Exists { .. })), 2);
}

#[test]
fn dropped_uploads_go_on_where_they_stopped() {
    let drops = AtomicUsize::new(0);
    let registry = Registry::interfered(move |request, state| {
        let is_dropped = request.method == "PATCH" && drops.fetch_add(1, Ordering::SeqCst) < 3;
        is_dropped.then(|| {
            state.receive_part(request, MIB + 5);
            Reply::silence()
        })
    });
    let (events, _) = push_one(&registry, 5 * MIB).unwrap();
    assert_eq!(events.count(|event| matches!(event, Event::Retrying { .. })), 3);
    assert_eq!(registry.server.count("PATCH "), 4);
    assert_eq!(registry.server.count("POST "), 2, "one session for the layer, one for the config");
}

#[test]
fn lost_sessions_are_begun_again() {
    let drops = AtomicUsize::new(0);
    let registry = Registry::interfered(move |request, state| {
        let is_dropped = request.method == "PATCH" && drops.fetch_add(1, Ordering::SeqCst) < 1;
        is_dropped.then(|| {
            state.receive_part(request, MIB);
            state.lose_uploads();
            Reply::silence()
        })
    });
    push_one(&registry, 3 * MIB).unwrap();
    assert_eq!(registry.server.count("PATCH "), 2);
}

#[test]
fn a_lost_answer_is_no_lost_blob() {
    let drops = AtomicUsize::new(0);
    let registry = Registry::interfered(move |request, state| {
        let is_last = request.method == "PUT" && request.path.contains("/uploads/");
        (is_last && drops.fetch_add(1, Ordering::SeqCst) < 2).then(|| {
            state.answer(request);
            Reply::silence()
        })
    });
    push_one(&registry, MIB).unwrap();
    assert_eq!(registry.server.count("PATCH "), 1);
}

/// A client whose patience ended 60 seconds after the beginning of an upload would never finish a
/// large one.
#[test]
fn slow_uploads_may_take_longer_than_silence() {
    let slow = |pause: Duration| {
        Registry::interfered(move |request, state| {
            if request.method != "PATCH" {
                return None;
            }
            for _ in 0..20 {
                std::thread::sleep(pause);
                state.receive_part(request, 2 * MIB);
            }
            Some(state.answer(request))
        })
    };
    let mut options = crate::options();
    (options.timeout, options.retry.attempts) = (Duration::from_millis(300), 1);
    // The registry's lock is held during the slow upload, so nothing else must be asked then.
    options.parallel = 1;
    let client = Client::new(options);
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let image = make_image(&lease, &MediaType::OCI_LAYER_GZIP, &[&noise(40 * MIB, 1)]);
    // Two seconds altogether; one and a half of silence are allowed.
    let (registry, start) = (slow(Duration::from_millis(100)), Instant::now());
    client.push(&lease, &image, &registry.name("app:1"), &self::options(), &ignore).unwrap();
    assert!(start.elapsed() > Duration::from_secs(2));

    let registry = slow(Duration::from_secs(4));
    let name = registry.name("app:1");
    let error = client.push(&lease, &image, &name, &self::options(), &ignore).unwrap_err();
    assert!(error.to_string().ends_with("timed out"), "{error}");
}

#[test]
fn registries_that_refuse_are_quoted() {
    let registry = Registry::interfered(|request, _| {
        (request.method == "POST").then(|| {
            Reply::new(403).body(r#"{"errors":[{"code":"DENIED","message":"quota exceeded"}]}"#)
        })
    });
    let Err(error) = push_one(&registry, MIB) else { panic!("it was pushed") };
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    assert!(error.to_string().ends_with(": quota exceeded"), "{error}");
    assert_eq!(registry.server.count("PUT "), 0);
}

#[test]
fn uploads_that_always_break_are_given_up() {
    let registry =
        Registry::interfered(|request, _| (request.method == "PATCH").then(Reply::silence));
    let Err(error) = push_one(&registry, MIB) else { panic!("it was pushed") };
    assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
    assert_eq!(registry.server.count("PATCH "), 4);
    assert_eq!(registry.server.count("PUT /v2/app/manifests/"), 0);
}

/// Pulls an image from a registry and pushes it to another repository there.
fn copy_within(registry: &Registry) -> Events {
    put_image(registry, &amd64(), &[&noise(MIB, 1)]);
    let (local, client) = (Local::new(), client());
    let lease = local.store.lease().unwrap();
    let pulled = client.pull(&lease, &registry.name("app:1"), &packed(), &ignore).unwrap();
    let events = Events::default();
    let name = registry.name("team/copy:2");
    let pushed =
        client.push(&lease, &pulled.descriptor, &name, &options(), &events.sink()).unwrap();
    assert_eq!(pushed, pulled.descriptor);
    assert!(registry.has_blob("team/copy", &Digest::sha256(&noise(MIB, 1))));
    assert_eq!(registry.manifest("team/copy", "2"), registry.manifest("app", "1"));
    events
}

#[test]
fn blobs_are_mounted_from_where_they_came() {
    let registry = Registry::start();
    let events = copy_within(&registry);
    assert_eq!(events.count(|event| matches!(event, Event::Mounted { .. })), 1);
    assert_eq!(registry.server.count("PATCH "), 0);
}

#[test]
fn a_mount_that_is_not_wanted_goes_on_as_an_upload() {
    let registry = Registry::interfered(|request, state| {
        request.query("mount")?;
        request.query.clear();
        Some(state.answer(request))
    });
    let events = copy_within(&registry);
    assert_eq!(events.count(|event| matches!(event, Event::Mounted { .. })), 0);
    assert_eq!(registry.server.count("POST "), 2, "the layer's session came with the mount");
    assert_eq!(registry.server.count("PATCH "), 1);
}

#[test]
fn a_mount_that_is_an_error_is_an_upload() {
    let registry = Registry::interfered(|request, _| {
        request.query("mount").is_some().then(|| Reply::new(400))
    });
    copy_within(&registry);
    assert_eq!(registry.server.count("PATCH "), 1);
}

#[test]
fn plain_layers_are_compressed_first() {
    let registry = Registry::start();
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let layer = vec![7; 3 * MIB];
    let image = make_image(&lease, &MediaType::OCI_LAYER_TAR, &[&layer, b"tiny", &layer]);
    let name = registry.name("app:1");
    let pushed = client().push(&lease, &image, &name, &options(), &ignore).unwrap();
    assert_ne!(pushed.digest, image.digest);
    assert!(local.store.blobs().contains(&pushed.digest).unwrap());
    let manifest = Manifest::parse(&registry.manifest("app", "1")).unwrap();
    assert_eq!(manifest.layers.len(), 3);
    assert_eq!(manifest.layers[0], manifest.layers[2]);
    for layer in &manifest.layers {
        assert_eq!(layer.media_type, MediaType::OCI_LAYER_GZIP);
        assert!(layer.size < 100_000);
        assert!(registry.has_blob("app", &layer.digest));
    }
    // The same again: nothing is compressed, and the manifest is the same.
    let again = client().push(&lease, &image, &name, &options(), &ignore).unwrap();
    assert_eq!(again, pushed);

    // Another repository of this registry takes the compressed layers from there.
    local.store.images().set(&lease, &name, &image).unwrap();
    let events = Events::default();
    let other = registry.name("other:1");
    client().push(&lease, &image, &other, &options(), &events.sink()).unwrap();
    assert_eq!(events.count(|event| matches!(event, Event::Mounted { .. })), 2);
}

#[test]
fn indexes_are_pushed_whole_or_for_one_platform() {
    let from = Registry::start();
    let mut entries = Vec::new();
    for (architecture, layer) in [("arm64", b"arm"), ("amd64", b"amd")] {
        let platform = Platform::new("linux", architecture, None);
        let mut entry = put_image(&from, &platform, &[layer]);
        entry.platform = Some(platform);
        entries.push(entry);
    }
    let bytes = Index::new(entries.clone()).to_bytes();
    from.put_manifest("app", "1", &MediaType::OCI_INDEX, &bytes);
    let (local, client) = (Local::new(), client());
    let lease = local.store.lease().unwrap();
    let pull = |platform: &str| {
        let platform = Platform::new("linux", platform, None);
        let options = PullOptions { platform, unpack: false, ..PullOptions::default() };
        client.pull(&lease, &from.name("app:1"), &options, &ignore).unwrap().descriptor
    };

    let index = pull("amd64");
    let to = Registry::start();
    let one = client.push(&lease, &index, &to.name("app:1"), &options(), &ignore).unwrap();
    assert_eq!(one.digest, entries[1].digest);
    assert_eq!(to.manifest("app", "1"), from.manifest("app", &one.digest.to_string()));

    pull("arm64");
    let all = client.push(&lease, &index, &to.name("app:all"), &options(), &ignore).unwrap();
    assert_eq!(all.digest, index.digest);
    assert_eq!(to.manifest("app", "all"), bytes);
    for entry in &entries {
        let name = entry.digest.to_string();
        assert_eq!(to.manifest("app", &name), from.manifest("app", &name));
    }
}

#[test]
fn a_digest_is_pushed_only_if_it_is_the_images() {
    let registry = Registry::start();
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let image = make_image(&lease, &MediaType::OCI_LAYER_GZIP, &[b"x"]);
    let name = registry.name(&format!("app@{}", image.digest));
    client().push(&lease, &image, &name, &options(), &ignore).unwrap();
    let other = registry.name(&format!("app@{}", Digest::sha256(b"other")));
    let error = client().push(&lease, &image, &other, &options(), &ignore).unwrap_err();
    assert!(matches!(error, Error::NotPushable { .. }), "{error:?}");
}

#[test]
fn an_image_that_is_not_whole_is_not_pushed() {
    let registry = Registry::start();
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let missing = Descriptor::new(MediaType::OCI_LAYER_GZIP, Digest::sha256(b"gone"), 4);
    let config = config(&amd64(), &[b"gone"]);
    let image = lease
        .put_image(
            &Manifest::new(
                Descriptor::new(MediaType::OCI_CONFIG, Digest::sha256(b""), 0),
                vec![missing],
            ),
            &config,
        )
        .unwrap();
    let name = registry.name("app:1");
    let error = client().push(&lease, &image, &name, &options(), &ignore).unwrap_err();
    assert!(error.to_string().ends_with("is not in the store"), "{error}");
    assert_eq!(registry.server.count("PUT /v2/app/manifests/"), 0);
}

/// Copies an image from store to store through a registry, and compares every byte.
fn round_trip(client: &Client, registry: &Registry, layers: &[Vec<u8>], extra: &str) {
    let (from, to) = (Local::new(), Local::new());
    let lease = from.store.lease().unwrap();
    let slices: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let image = make_image(&lease, &MediaType::OCI_LAYER_ZSTD, &slices);
    // As another tool would write it: other spacing, fields that we do not know.
    let bytes = from.store.blobs().read(&image.digest, u64::MAX).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let text = format!("{{ \"zz\" : {extra},\n{}", text.strip_prefix('{').unwrap());
    let mut ingest = lease.ingest().unwrap();
    ingest.write_all(text.as_bytes()).unwrap();
    let stored = ingest.commit(None).unwrap();
    let image = Descriptor::new(MediaType::OCI_MANIFEST, stored.digest, stored.size);

    let name = registry.name("law:1");
    let pushed = client.push(&lease, &image, &name, &options(), &ignore).unwrap();
    let other = to.store.lease().unwrap();
    let pulled = client.pull(&other, &name, &packed(), &ignore).unwrap();
    assert_eq!((&pushed, &pulled.descriptor), (&image, &image));
    let found = to.store.image(&pulled.descriptor, &amd64()).unwrap();
    let digests = found.manifest.layers.iter().map(|layer| layer.digest);
    for digest in digests.chain([image.digest, found.config_digest]) {
        let (ours, theirs) = (from.store.blobs(), to.store.blobs());
        assert_eq!(ours.read(&digest, u64::MAX).unwrap(), theirs.read(&digest, u64::MAX).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn pull_after_push_is_byte_identical(
        sizes in prop::collection::vec((0..600_000_usize, any::<u8>()), 0..4),
        extra in "[0-9]{1,30}|1\\.50|\\[ \\]",
    ) {
        let extra = if extra.starts_with('0') { "0".to_owned() } else { extra };
        let layers: Vec<Vec<u8>> =
            sizes.into_iter().map(|(size, seed)| noise(size, seed)).collect();
        round_trip(&client(), &Registry::start(), &layers, &extra);
    }
}

//! Pushes that begin before their image is complete, and images whose layers are elsewhere.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oci::{Descriptor, DiffId, Digest, Manifest, MediaType};
use store::Lease;
use store::remote::{Client, Error, Event, PushOptions, PushSession, SharedSink};

use crate::push::make_image;
use crate::registry::Registry;
use crate::server::Reply;
use crate::{Events, Local, amd64, client, config, ignore, noise, options};

const MIB: usize = 1 << 20;

fn push_options() -> PushOptions {
    PushOptions { platform: amd64(), ..PushOptions::default() }
}

fn start(client: &Arc<Client>, lease: &Lease, registry: &Registry) -> PushSession {
    let sink: SharedSink = Arc::new(|_| {});
    let name = registry.name("app:1");
    PushSession::start(Arc::clone(client), lease, &name, push_options(), sink).unwrap()
}

/// Waits until something is so; it is a matter of milliseconds.
fn wait_until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(20), "it never happens");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn layers_of(local: &Local, image: &Descriptor) -> Vec<Descriptor> {
    local.store.image(image, &amd64()).unwrap().manifest.layers
}

#[test]
fn layers_leave_before_there_is_an_image() {
    let registry = Registry::start();
    let (local, client) = (Local::new(), Arc::new(client()));
    let lease = local.store.lease().unwrap();
    let session = start(&client, &lease, &registry);
    let plain = vec![7; 3 * MIB];
    let stored = lease.put(&plain).unwrap();
    let layer = Descriptor::new(MediaType::OCI_LAYER_TAR, stored.digest, stored.size);
    session.add_layer(&layer, DiffId(stored.digest));
    session.add_layer(&layer, DiffId(stored.digest));
    wait_until(|| registry.server.count("PUT /v2/app/blobs/uploads/") == 1);

    let image = make_image(&lease, &MediaType::OCI_LAYER_TAR, &[&plain, b"second"]);
    let pushed = session.publish(&image, &registry.name("app:1")).unwrap();
    assert!(!session.has_failed());
    let manifest = Manifest::parse(&registry.manifest("app", "1")).unwrap();
    assert_eq!(manifest.layers.len(), 2);
    assert!(manifest.layers.iter().all(|layer| registry.has_blob("app", &layer.digest)));
    let asked = format!("HEAD /v2/app/blobs/{}", manifest.layers[0].digest);
    assert_eq!(registry.server.count(&asked), 1, "the registry is asked once for each blob");

    // A second name costs a manifest and nothing else.
    let before = registry.server.log().len();
    assert_eq!(session.publish(&image, &registry.name("app:2")).unwrap(), pushed);
    assert_eq!(registry.server.log()[before..], ["PUT /v2/app/manifests/2"]);
    let error = session.publish(&image, &registry.name("other:1")).unwrap_err();
    assert!(matches!(error, Error::NotPushable { .. }), "{error:?}");
}

#[test]
fn what_fails_in_the_background_is_told_and_can_be_tried_again() {
    let refusals = AtomicUsize::new(0);
    let registry = Registry::interfered(move |request, _| {
        let is_refused = request.method == "POST" && refusals.fetch_add(1, Ordering::SeqCst) < 1;
        is_refused.then(|| Reply::new(403).body(r#"{"errors":[{"message":"quota exceeded"}]}"#))
    });
    let (local, client) = (Local::new(), Arc::new(client()));
    let lease = local.store.lease().unwrap();
    let image = make_image(&lease, &MediaType::OCI_LAYER_GZIP, &[&noise(MIB, 1)]);
    let session = start(&client, &lease, &registry);
    session.add_blob(&layers_of(&local, &image)[0]);
    wait_until(|| session.has_failed());
    let error = session.publish(&image, &registry.name("app:1")).unwrap_err();
    assert!(error.to_string().ends_with(": quota exceeded"), "{error}");
    assert_eq!(registry.server.count("PUT /v2/app/manifests/"), 0);
    session.publish(&image, &registry.name("app:1")).unwrap();
    assert!(registry.has_blob("app", &Digest::sha256(&noise(MIB, 1))));
}

#[test]
fn a_session_that_is_dropped_stops_and_publishes_nothing() {
    let registry = Registry::interfered(|request, _| {
        // Reads slower than anybody wants to wait.
        (request.method == "PATCH").then(|| {
            std::thread::sleep(Duration::from_secs(2));
            Reply::silence()
        })
    });
    let (local, client) = (Local::new(), Arc::new(client()));
    let lease = local.store.lease().unwrap();
    let image = make_image(&lease, &MediaType::OCI_LAYER_GZIP, &[&noise(8 * MIB, 1)]);
    let session = start(&client, &lease, &registry);
    session.add_blob(&layers_of(&local, &image)[0]);
    wait_until(|| registry.server.count("PATCH ") == 1);
    let begin = Instant::now();
    drop(session);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(registry.server.count("PUT /v2/app/manifests/"), 0);

    // The same when all that the client does is cancelled.
    let session = start(&client, &lease, &registry);
    client.cancel();
    let error = session.publish(&image, &registry.name("app:1")).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error:?}");
}

#[test]
fn a_registry_that_is_down_is_told_with_the_image() {
    let (local, client) = (Local::new(), Arc::new(client()));
    let lease = local.store.lease().unwrap();
    let image = make_image(&lease, &MediaType::OCI_LAYER_GZIP, &[b"x"]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let name = format!("{free}/app:1").parse().unwrap();
    let sink: SharedSink = Arc::new(|_| {});
    let session = PushSession::start(client, &lease, &name, push_options(), sink).unwrap();
    session.add_blob(&layers_of(&local, &image)[0]);
    wait_until(|| session.has_failed());
    for _ in 0..2 {
        let error = session.publish(&image, &name).unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    }
}

/// Makes an image of two layers, the first of which is only in a repository of `from`.
fn partial(lease: &Lease, from: &Registry, first: &[u8]) -> Descriptor {
    let away = from.put_blob("library/base", first);
    let here = lease.put(b"second").unwrap();
    let here = Descriptor::new(MediaType::OCI_LAYER_GZIP, here.digest, here.size);
    let config = config(&amd64(), &[first, b"second"]);
    let placeholder = Descriptor::new(MediaType::OCI_CONFIG, Digest::sha256(b""), 0);
    lease.note_origin(&[away.digest], &from.name("library/base:1")).unwrap();
    lease.put_image(&Manifest::new(placeholder, vec![away, here]), &config).unwrap()
}

#[test]
fn layers_that_are_elsewhere_go_from_registry_to_registry() {
    for size in [1000, 5 * MIB] {
        let first = noise(size, 3);
        let (from, to, local) = (Registry::start(), Registry::start(), Local::new());
        let lease = local.store.lease().unwrap();
        let image = partial(&lease, &from, &first);
        client().push(&lease, &image, &to.name("app:1"), &push_options(), &ignore).unwrap();
        assert!(to.has_blob("app", &Digest::sha256(&first)));
        assert!(!local.store.blobs().contains(&Digest::sha256(&first)).unwrap());
    }
}

#[test]
fn layers_that_are_in_the_same_registry_are_mounted() {
    let (registry, local) = (Registry::start(), Local::new());
    let lease = local.store.lease().unwrap();
    let image = partial(&lease, &registry, &noise(MIB, 3));
    let events = Events::default();
    let name = registry.name("app:1");
    client().push(&lease, &image, &name, &push_options(), &events.sink()).unwrap();
    assert_eq!(events.count(|event| matches!(event, Event::Mounted { .. })), 1);
    assert_eq!(registry.server.count("GET /v2/library/base/blobs/"), 0);
}

#[test]
fn a_relay_goes_on_where_either_side_broke() {
    for (has_ranges, breaks_at_source) in [(true, true), (true, false), (false, false)] {
        let first = noise(6 * MIB, 4);
        let cuts = AtomicUsize::new(0);
        let from = Registry::interfered(move |request, state| {
            if request.method != "GET" || !request.path.contains("/blobs/") {
                return None;
            }
            if !has_ranges {
                request.headers.remove("range");
            }
            let mut reply = state.answer(request);
            if breaks_at_source && cuts.fetch_add(1, Ordering::SeqCst) < 2 {
                reply.cut_after = Some(2 * MIB);
            }
            Some(reply)
        });
        let drops = AtomicUsize::new(0);
        let to = Registry::interfered(move |request, state| {
            let is_dropped = !breaks_at_source
                && request.method == "PATCH"
                && drops.fetch_add(1, Ordering::SeqCst) < 2;
            is_dropped.then(|| {
                state.receive_part(request, MIB + 7);
                Reply::silence()
            })
        });
        let local = Local::new();
        let lease = local.store.lease().unwrap();
        let image = partial(&lease, &from, &first);
        client().push(&lease, &image, &to.name("app:1"), &push_options(), &ignore).unwrap();
        assert!(to.has_blob("app", &Digest::sha256(&first)));
    }
}

#[test]
fn a_source_that_stalls_is_named() {
    let from = Registry::interfered(|request, _| {
        (request.method == "GET" && request.path.contains("/blobs/")).then(|| {
            std::thread::sleep(Duration::from_millis(700));
            Reply::silence()
        })
    });
    let mut options = options();
    (options.timeout, options.retry.attempts) = (Duration::from_millis(200), 2);
    let (to, local) = (Registry::start(), Local::new());
    let lease = local.store.lease().unwrap();
    let image = partial(&lease, &from, &noise(MIB, 3));
    let error = Client::new(options)
        .push(&lease, &image, &to.name("app:1"), &push_options(), &ignore)
        .unwrap_err()
        .to_string();
    assert!(error.contains(&from.server.host()) && error.ends_with("timed out"), "{error}");
    assert_eq!(to.server.count("PUT /v2/app/manifests/"), 0);
}

#[test]
fn missing_layers_are_fetched_when_they_are_needed() {
    let (from, local) = (Registry::start(), Local::new());
    let lease = local.store.lease().unwrap();
    let image = partial(&lease, &from, &noise(MIB, 3));
    let layer = &layers_of(&local, &image)[0];
    assert!(client().fetch_blob(&lease, layer, &ignore).unwrap());
    assert!(!client().fetch_blob(&lease, layer, &ignore).unwrap());
    assert_eq!(local.store.blobs().read(&layer.digest, u64::MAX).unwrap(), noise(MIB, 3));
    let unknown = Descriptor::new(MediaType::OCI_LAYER_GZIP, Digest::sha256(b"nowhere"), 7);
    let error = client().fetch_blob(&lease, &unknown, &ignore).unwrap_err();
    assert!(matches!(error, Error::Store(store::Error::BlobUnknown { .. })), "{error:?}");
}

#[test]
fn compression_is_forced_and_tags_are_left_alone_where_that_is_asked_for() {
    use oci::Compression;
    let (registry, local) = (Registry::start(), Local::new());
    let lease = local.store.lease().unwrap();
    let plain = vec![9; MIB];
    let image = make_image(&lease, &MediaType::OCI_LAYER_TAR, &[&plain]);
    let name = registry.name("app:1");
    let gzip = client().push(&lease, &image, &name, &push_options(), &ignore).unwrap();
    let zstd = PushOptions { compression: Compression::Zstd, ..push_options() };
    // What is compressed already stays as it is …
    assert_eq!(client().push(&lease, &gzip, &name, &zstd, &ignore).unwrap(), gzip);
    // … unless it is forced; and the tag can be left alone.
    let forced = PushOptions { force_compression: true, by_digest: true, ..zstd };
    let pushed = client().push(&lease, &gzip, &name, &forced, &ignore).unwrap();
    assert_ne!(pushed.digest, gzip.digest);
    let manifest = Manifest::parse(&registry.manifest("app", &pushed.digest.to_string())).unwrap();
    assert_eq!(manifest.layers[0].media_type, MediaType::OCI_LAYER_ZSTD);
    let tagged = registry.manifest("app", "1");
    assert_eq!(Digest::sha256(&tagged), gzip.digest);
}

/// What a session sends is seen as it is seen with a push.
#[test]
fn events_of_a_session_reach_its_sink() {
    let registry = Registry::start();
    let (local, client) = (Local::new(), Arc::new(client()));
    let lease = local.store.lease().unwrap();
    let image = make_image(&lease, &MediaType::OCI_LAYER_GZIP, &[&noise(MIB, 1)]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&seen);
    let sink: SharedSink = Arc::new(move |event| shared.lock().unwrap().push(event));
    let name = registry.name("app:1");
    let session = PushSession::start(client, &lease, &name, push_options(), sink).unwrap();
    session.publish(&image, &name).unwrap();
    drop(session);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().filter(|event| matches!(event, Event::Finished { .. })).count(), 2);
}

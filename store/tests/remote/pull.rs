//! Pulls: what arrives, what is tried again, and what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use oci::{Digest, Index, Manifest, MediaType, Platform};
use store::remote::{Client, Error, Event, PullOptions, Task};

use crate::registry::Registry;
use crate::server::{Reply, Server};
use crate::{Events, Local, amd64, client, ignore, noise, options, packed, put_image};

const MIB: usize = 1 << 20;

/// Whether this is the first time that it is asked.
fn once() -> impl Fn() -> bool + Send + Sync {
    let times = AtomicUsize::new(0);
    move || times.fetch_add(1, Ordering::SeqCst) == 0
}

fn is_layer(path: &str, layer: &[u8]) -> bool {
    path.ends_with(&Digest::sha256(layer).to_string())
}

#[test]
fn an_image_arrives_byte_for_byte_and_once() {
    let registry = Registry::start();
    let layers = [noise(3 * MIB, 1), noise(10, 2), noise(MIB, 3), Vec::new(), noise(10, 2)];
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let descriptor = put_image(&registry, &amd64(), &layers);
    let (local, client, name) = (Local::new(), client(), registry.name("app:1"));
    let lease = local.store.lease().unwrap();
    let events = Events::default();
    let pulled = client.pull(&lease, &name, &packed(), &events.sink()).unwrap();
    assert_eq!(pulled.descriptor, descriptor);
    assert!(!pulled.is_up_to_date);
    assert_eq!(local.store.images().get(&name).unwrap(), Some(descriptor.clone()));
    for layer in &layers {
        let digest = Digest::sha256(layer);
        assert_eq!(local.store.blobs().read(&digest, u64::MAX).unwrap(), *layer);
    }
    let manifest = local.store.blobs().read(&descriptor.digest, u64::MAX).unwrap();
    assert_eq!(manifest, registry.manifest("app", "1"));
    assert!(local.store.image(&descriptor, &amd64()).is_ok());
    assert!(local.has_nothing_unfinished());
    // Config and four different layers.
    let is_download = |event: &Event| matches!(event, Event::Finished { task: Task::Download, .. });
    assert_eq!(events.count(is_download), 5);

    let before = registry.server.count("GET /v2/app/blobs/");
    let again = client.pull(&lease, &name, &packed(), &ignore).unwrap();
    assert!(again.is_up_to_date);
    assert_eq!(registry.server.count("GET /v2/app/blobs/"), before);
}

#[test]
fn layers_are_unpacked_when_they_are_here() {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(5);
    header.set_mode(0o644);
    header.set_uid(rustix::process::getuid().as_raw().into());
    header.set_gid(rustix::process::getgid().as_raw().into());
    tar.append_data(&mut header, "hello", &b"world"[..]).unwrap();
    let tar = tar.into_inner().unwrap();

    let registry = Registry::start();
    let config = crate::config(&amd64(), &[&tar]).to_bytes();
    let mut layer = registry.put_blob("app", &tar);
    layer.media_type = MediaType::OCI_LAYER_TAR;
    let mut config = registry.put_blob("app", &config);
    config.media_type = MediaType::OCI_CONFIG;
    let manifest = Manifest::new(config, vec![layer]).to_bytes();
    registry.put_manifest("app", "1", &MediaType::OCI_MANIFEST, &manifest);

    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let options = PullOptions { platform: amd64(), unpack: true, ..PullOptions::default() };
    let pulled = client().pull(&lease, &registry.name("app:1"), &options, &ignore).unwrap();
    let image = local.store.image(&pulled.descriptor, &amd64()).unwrap();
    assert!(lease.snapshot(image.diff_ids()).is_ok());
}

#[test]
fn dropped_downloads_go_on_where_they_stopped() {
    let layer = noise(4 * MIB, 1);
    let (cuts, resumed) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let (seen, whole) = (Arc::clone(&resumed), layer.clone());
    let registry = Registry::interfered(move |request, state| {
        if !is_layer(&request.path, &whole) {
            return None;
        }
        seen.fetch_add(usize::from(request.header("range").is_some()), Ordering::SeqCst);
        // Six drops are more than the attempts, but each time there was progress.
        (cuts.fetch_add(1, Ordering::SeqCst) < 6)
            .then(|| Reply { cut_after: Some(MIB / 2 + 7), ..state.answer(request) })
    });
    put_image(&registry, &amd64(), &[&layer]);
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let events = Events::default();
    client().pull(&lease, &registry.name("app:1"), &packed(), &events.sink()).unwrap();
    assert_eq!(local.store.blobs().read(&Digest::sha256(&layer), u64::MAX).unwrap(), layer);
    assert_eq!(resumed.load(Ordering::SeqCst), 6);
    assert_eq!(events.count(|event| matches!(event, Event::Retrying { .. })), 6);
}

#[test]
fn a_registry_without_ranges_sends_everything_again() {
    let layer = noise(MIB, 1);
    let (first, whole) = (once(), layer.clone());
    let registry = Registry::interfered(move |request, _| {
        is_layer(&request.path, &whole).then(|| Reply {
            cut_after: first().then_some(MIB / 2),
            ..Reply::new(200).body(&whole[..])
        })
    });
    put_image(&registry, &amd64(), &[&layer]);
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    client().pull(&lease, &registry.name("app:1"), &packed(), &ignore).unwrap();
    assert_eq!(local.store.blobs().read(&Digest::sha256(&layer), u64::MAX).unwrap(), layer);
    assert!(local.has_nothing_unfinished());
}

#[test]
fn halves_that_do_not_fit_are_fetched_again_in_one_piece() {
    let layer = noise(MIB, 1);
    let (first, whole) = (once(), layer.clone());
    let registry = Registry::interfered(move |request, state| {
        if !is_layer(&request.path, &whole) {
            return None;
        }
        if first() {
            // A broken proxy: the first half is not this blob's.
            let wrong = noise(MIB, 99);
            return Some(Reply { cut_after: Some(MIB / 2), ..Reply::new(200).body(wrong) });
        }
        Some(state.answer(request))
    });
    put_image(&registry, &amd64(), &[&layer]);
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    client().pull(&lease, &registry.name("app:1"), &packed(), &ignore).unwrap();
    assert_eq!(local.store.blobs().read(&Digest::sha256(&layer), u64::MAX).unwrap(), layer);
}

/// Pulls an image whose layer is answered like this, which must fail and leave nothing.
fn refused(answer: impl Fn(&[u8]) -> Reply + Send + Sync + 'static) -> (Error, usize) {
    let layer = noise(MIB, 1);
    let whole = layer.clone();
    let registry = Registry::interfered(move |request, _| {
        is_layer(&request.path, &whole).then(|| answer(&whole))
    });
    put_image(&registry, &amd64(), &[&layer]);
    let (local, name) = (Local::new(), registry.name("app:1"));
    let lease = local.store.lease().unwrap();
    let error = client().pull(&lease, &name, &packed(), &ignore).unwrap_err();
    let digest = Digest::sha256(&layer);
    assert!(!local.store.blobs().contains(&digest).unwrap());
    assert_eq!(local.store.images().get(&name).unwrap(), None);
    drop(lease);
    assert!(local.has_nothing_unfinished());
    (error, registry.server.count(&format!("GET /v2/app/blobs/{digest}")))
}

#[test]
fn corrupt_blobs_are_refused() {
    let (error, requests) = refused(|layer| {
        let mut corrupt = layer.to_vec();
        corrupt[MIB / 3] ^= 1;
        Reply::new(200).body(corrupt)
    });
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("is corrupt: its content is sha256:"), "{error}");
    assert_eq!(requests, 1);
}

#[test]
fn truncated_blobs_are_refused() {
    let (error, requests) = refused(|layer| Reply::new(200).body(&layer[..MIB / 2]));
    assert!(matches!(error, Error::Truncated { received: 524_288, .. }), "{error:?}");
    assert!(error.to_string().ends_with("ends after 524288 of 1048576 bytes"), "{error}");
    assert_eq!(requests, 1, "its length was announced, so there is no use in asking again");
}

#[test]
fn connections_that_always_break_are_given_up() {
    let (error, requests) =
        refused(|layer| Reply { cut_after: Some(0), ..Reply::new(200).body(layer) });
    assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
    assert_eq!(requests, 4, "as many as there are attempts");
}

#[test]
fn blobs_that_do_not_end_are_refused() {
    let (error, _) = refused(|layer| Reply::new(200).body([layer, b"more"].concat()));
    assert!(matches!(error, Error::TooLong { .. }), "{error:?}");
}

#[test]
fn missing_blobs_are_named() {
    let (error, requests) = refused(|_| Reply::new(404));
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    assert_eq!(requests, 1);
}

#[test]
fn a_registry_that_is_busy_is_asked_again_when_it_says() {
    for (status, wait) in [(429, Some("1")), (503, Some("1")), (500, None), (502, None)] {
        let first = once();
        let registry = Registry::interfered(move |request, _| {
            (request.path.ends_with("/manifests/1") && first()).then(|| match wait {
                Some(wait) => Reply::new(status).header("retry-after", wait),
                None => Reply::new(status),
            })
        });
        put_image(&registry, &amd64(), &[b"x"]);
        let local = Local::new();
        let lease = local.store.lease().unwrap();
        let start = Instant::now();
        client().pull(&lease, &registry.name("app:1"), &packed(), &ignore).unwrap();
        let waited = start.elapsed();
        assert_eq!(waited >= Duration::from_secs(1), wait.is_some(), "{status}: {waited:?}");
    }
}

#[test]
fn a_registry_that_is_busy_for_long_is_not_waited_for() {
    let registry = Registry::interfered(|request, _| {
        request.path.ends_with("/manifests/1").then(|| {
            Reply::new(429)
                .header("date", "Sun, 06 Nov 1994 08:00:00 GMT")
                .header("retry-after", "Sun, 06 Nov 1994 09:00:00 GMT")
        })
    });
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let error = client().pull(&lease, &registry.name("app:1"), &packed(), &ignore).unwrap_err();
    assert!(matches!(error, Error::RateLimited { retry_after: Some(_), .. }), "{error:?}");
    assert!(error.to_string().ends_with("try again in 3600 s"), "{error}");
}

#[test]
fn a_registry_that_is_down_is_said_to_be_at_once() {
    let host = Server::start(|_| Reply::new(200)).host();
    let name = format!("{host}/app:1").parse().unwrap();
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let options = store::remote::ClientOptions::default();
    let start = Instant::now();
    let error = Client::new(options).pull(&lease, &name, &packed(), &ignore).unwrap_err();
    assert_eq!(error.to_string(), format!("{host} cannot be reached: connection refused"));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn unknown_names_are_said_to_be() {
    let registry = Registry::start();
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let error = client().pull(&lease, &registry.name("app:9"), &packed(), &ignore).unwrap_err();
    let host = registry.server.host();
    assert_eq!(error.to_string(), format!("{host} has no manifest 9 of app: manifest unknown"));
}

#[test]
fn the_image_for_the_platform_is_chosen() {
    let registry = Registry::start();
    let arm = Platform::new("linux", "arm64", None);
    let mut entries = Vec::new();
    for (platform, layer) in [(&arm, b"arm"), (&amd64(), b"amd")] {
        let mut entry = put_image(&registry, platform, &[layer]);
        entry.platform = Some(platform.clone());
        entries.push(entry);
    }
    let amd = entries[1].clone();
    let bytes = Index::new(entries).to_bytes();
    let index = registry.put_manifest("app", "2", &MediaType::OCI_INDEX, &bytes);
    let (local, name) = (Local::new(), registry.name("app:2"));
    let lease = local.store.lease().unwrap();
    let pulled = client().pull(&lease, &name, &packed(), &ignore).unwrap();
    assert_eq!((&pulled.descriptor, &pulled.manifest), (&index, &amd));
    assert_eq!(local.store.blobs().read(&index.digest, u64::MAX).unwrap(), bytes);
    assert!(!local.store.blobs().contains(&Digest::sha256(b"arm")).unwrap());
    assert!(local.store.image(&index, &amd64()).is_ok());

    let other = PullOptions { platform: Platform::new("linux", "s390x", None), ..packed() };
    let error = client().pull(&lease, &name, &other, &ignore).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no image for linux/s390x, only for linux/arm64, linux/amd64"
    );
}

#[test]
fn a_manifest_for_another_platform_is_refused_before_its_layers() {
    let registry = Registry::start();
    put_image(&registry, &Platform::new("linux", "arm64", None), &[b"layer"]);
    let (local, name) = (Local::new(), registry.name("app:1"));
    let lease = local.store.lease().unwrap();
    let error = client().pull(&lease, &name, &packed(), &ignore).unwrap_err();
    assert_eq!(error.to_string(), "there is no image for linux/amd64, only for linux/arm64");
    assert_eq!(local.store.images().get(&name).unwrap(), None);
    assert!(!local.store.blobs().contains(&Digest::sha256(b"layer")).unwrap());
}

/// Pulls a manifest that is answered like this.
fn manifest_refused(reply: impl Fn() -> Reply + Send + Sync + 'static, name: &str) -> Error {
    let registry =
        Registry::interfered(move |request, _| request.path.contains("/manifests/").then(&reply));
    let (local, name) = (Local::new(), registry.name(name));
    let lease = local.store.lease().unwrap();
    let error = client().pull(&lease, &name, &packed(), &ignore).unwrap_err();
    assert_eq!(local.store.images().get(&name).unwrap(), None);
    error
}

/// It was downloaded as a whole before its length was looked at.
#[test]
fn a_config_longer_than_any_is_refused_before_it_is_downloaded() {
    let long = 1_u64 << 40;
    let digest = Digest::sha256(b"no config");
    let config = format!(
        r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":{long}}}"#
    );
    let body = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
    let error = manifest_refused(move || Reply::new(200).body(body.clone()), "app:1");
    assert!(
        error.to_string().contains(&format!("image config {digest} has {long} bytes")),
        "{error}"
    );
}

#[test]
fn manifests_that_cannot_be_trusted_are_refused() {
    let huge = || Reply::new(200).body(vec![b' '; 9 * MIB]);
    let error = manifest_refused(huge, "app:1");
    assert!(matches!(error, Error::Document { source: oci::Error::TooLarge { .. }, .. }));

    let ambiguous = || {
        let body = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        Reply::new(200).body(&body[..])
    };
    let error = manifest_refused(ambiguous, "app:1");
    assert!(matches!(error, Error::Document { source: oci::Error::Ambiguous { .. }, .. }));

    let other = || Reply::new(200).body(Index::new(Vec::new()).to_bytes());
    let error = manifest_refused(other, &format!("app@{}", Digest::sha256(b"what was asked for")));
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");

    let lying = move || {
        let promised = Digest::sha256(b"something else");
        other().header("docker-content-digest", promised)
    };
    let error = manifest_refused(lying, "app:1");
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    let html = || Reply::new(200).header("content-type", "text/html").body("<html>");
    let error = manifest_refused(html, "app:1");
    assert!(matches!(error, Error::Document { .. }), "{error:?}");
}

#[test]
fn what_has_arrived_is_not_fetched_again_after_a_failure() {
    let layers = [noise(MIB, 1), noise(MIB, 2)];
    let (is_broken, second) = (Arc::new(AtomicUsize::new(1)), layers[1].clone());
    let broken = Arc::clone(&is_broken);
    let registry = Registry::interfered(move |request, _| {
        let is_refused = is_layer(&request.path, &second) && broken.load(Ordering::SeqCst) == 1;
        is_refused.then(|| Reply::new(403))
    });
    put_image(&registry, &amd64(), &[&layers[0], &layers[1]]);
    let (local, name) = (Local::new(), registry.name("app:1"));
    // One after the other.
    let client = Client::new(store::remote::ClientOptions { parallel: 1, ..options() });
    let lease = local.store.lease().unwrap();
    let error = client.pull(&lease, &name, &packed(), &ignore).unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    is_broken.store(0, Ordering::SeqCst);
    client.pull(&lease, &name, &packed(), &ignore).unwrap();
    let first = format!("GET /v2/app/blobs/{}", Digest::sha256(&layers[0]));
    assert_eq!(registry.server.count(&first), 1);
}

#[test]
fn cancelling_stops_at_once() {
    let registry = Registry::interfered(|request, _| {
        if request.path.contains("/manifests/") {
            std::thread::sleep(Duration::from_secs(5));
        }
        None
    });
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let (client, name) = (client(), registry.name("app:1"));
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            client.cancel();
        });
        let error = client.pull(&lease, &name, &packed(), &ignore).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error:?}");
    });
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn silent_registries_time_out() {
    let registry = Registry::interfered(|request, _| {
        if request.path.contains("/manifests/") {
            std::thread::sleep(Duration::from_secs(2));
        }
        None
    });
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let mut options = options();
    options.timeout = Duration::from_millis(200);
    options.retry.attempts = 1;
    let name = registry.name("app:1");
    let error = Client::new(options).pull(&lease, &name, &packed(), &ignore).unwrap_err();
    assert!(error.to_string().ends_with("timed out"), "{error}");
}

#[test]
fn many_pulls_at_once_share_a_client() {
    let registry = Registry::start();
    let layer = noise(2 * MIB, 1);
    put_image(&registry, &amd64(), &[&layer, b"small"]);
    let (local, client) = (Local::new(), client());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let lease = local.store.lease().unwrap();
                client.pull(&lease, &registry.name("app:1"), &packed(), &ignore).unwrap();
            });
        }
    });
    assert_eq!(local.store.blobs().read(&Digest::sha256(&layer), u64::MAX).unwrap(), layer);
    assert!(local.has_nothing_unfinished());
}

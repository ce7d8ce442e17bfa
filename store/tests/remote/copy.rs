//! From registry to registry, and what travels along.

use std::sync::atomic::{AtomicUsize, Ordering};

use oci::{Descriptor, Digest, Document, Index, Manifest, MediaType, Platform};
use store::remote::{CopyOptions, Error, Event, PullOptions, PushOptions};

use crate::registry::{Registry, State};
use crate::server::{Reply, Request};
use crate::{Events, Local, amd64, client, ignore, noise, packed, put_image};

const MIB: usize = 1 << 20;

fn all() -> CopyOptions {
    CopyOptions { platform: None, referrers: false }
}

/// Puts an index of two platforms under `app:1`; returns it and its entries.
fn put_index(registry: &Registry) -> (Descriptor, Vec<Descriptor>) {
    let mut entries = Vec::new();
    for (architecture, seed) in [("arm64", 1), ("amd64", 2)] {
        let platform = Platform::new("linux", architecture, None);
        let mut entry = put_image(registry, &platform, &[&noise(MIB, seed), b"tiny"]);
        entry.platform = Some(platform);
        entries.push(entry);
    }
    let bytes = Index::new(entries.clone()).to_bytes();
    (registry.put_manifest("app", "1", &MediaType::OCI_INDEX, &bytes), entries)
}

/// Puts a signature of a manifest, in the way of a client that knows subjects.
fn sign(registry: &Registry, subject: &Descriptor, text: &[u8]) -> Descriptor {
    let layer = registry.put_blob("app", text);
    let mut config = registry.put_blob("app", b"{}");
    config.media_type = MediaType::OCI_EMPTY;
    let mut manifest = Manifest::new(config, vec![layer]);
    manifest.artifact_type = Some("application/vnd.example.signature".parse().unwrap());
    manifest.subject = Some(subject.clone());
    let bytes = manifest.to_bytes();
    let name = Digest::sha256(&bytes).to_string();
    registry.put_manifest("app", &name, &MediaType::OCI_MANIFEST, &bytes)
}

/// Lists referrers under the tag for them, as clients do for a registry that does not.
fn list_by_tag(registry: &Registry, subject: &Descriptor, referrers: &[Descriptor]) {
    let bytes = Index::new(referrers.to_vec()).to_bytes();
    registry.put_manifest("app", &tag(subject), &MediaType::OCI_INDEX, &bytes);
}

fn tag(subject: &Descriptor) -> String {
    subject.digest.to_string().replace(':', "-")
}

/// Answers as a registry that lists referrers itself, two on a page.
fn referrers(request: &mut Request, state: &mut State) -> Option<Reply> {
    if request.method == "PUT" && request.path.contains("/manifests/") {
        let reply = state.answer(request);
        return Some(reply.header("OCI-Subject", "sha256:whatever"));
    }
    let (repository, subject) = request.path.strip_prefix("/v2/")?.split_once("/referrers/")?;
    let mut found = Vec::new();
    for ((_, name), (media_type, bytes)) in state
        .manifests
        .iter()
        .filter(|((known, name), _)| known == repository && name.contains(':'))
    {
        let document = Document::parse(bytes, None).unwrap();
        if document.subject().is_some_and(|about| about.digest.to_string() == subject) {
            let media_type = media_type.parse().unwrap();
            found.push(Descriptor::new(media_type, name.parse().unwrap(), bytes.len() as u64));
        }
    }
    let from: usize = request.query("from").map_or(0, |from| from.parse().unwrap());
    let page = found.iter().skip(from).take(2).cloned().collect();
    let mut reply = Reply::new(200).body(Index::new(page).to_bytes());
    if found.len() > from + 2 {
        let next = format!("<{}?from={}>; rel=\"next\"", request.path, from + 2);
        reply = reply.header("link", next);
    }
    Some(reply)
}

#[test]
fn all_platforms_are_copied_byte_for_byte_past_the_store() {
    let (from, to, local) = (Registry::start(), Registry::start(), Local::new());
    let (index, entries) = put_index(&from);
    let lease = local.store.lease().unwrap();
    let names = (from.name("app:1"), to.name("team/app:2"));
    let copied = client().copy(&lease, &names.0, &names.1, &all(), &ignore).unwrap();
    assert_eq!(copied, index);
    assert_eq!(to.manifest("team/app", "2"), from.manifest("app", "1"));
    for entry in &entries {
        let name = entry.digest.to_string();
        let bytes = to.manifest("team/app", &name);
        assert_eq!(bytes, from.manifest("app", &name));
        for blob in Manifest::parse(&bytes).unwrap().blobs() {
            assert!(to.has_blob("team/app", &blob.digest));
            assert!(!local.store.blobs().contains(&blob.digest).unwrap());
        }
    }
    let log = to.server.log();
    assert_eq!(log.last().unwrap(), "PUT /v2/team/app/manifests/2");
    assert!(local.store.images().list().unwrap().is_empty());
    assert!(local.has_nothing_unfinished());
}

#[test]
fn one_platform_is_copied_as_an_image_of_its_own() {
    let (from, to, local) = (Registry::start(), Registry::start(), Local::new());
    let (_, entries) = put_index(&from);
    let lease = local.store.lease().unwrap();
    let options = CopyOptions { platform: Some(amd64()), referrers: false };
    let names = (from.name("app:1"), to.name("app:amd64"));
    let copied = client().copy(&lease, &names.0, &names.1, &options, &ignore).unwrap();
    assert_eq!(copied.digest, entries[1].digest);
    assert!(to.has_blob("app", &Digest::sha256(&noise(MIB, 2))));
    assert!(!to.has_blob("app", &Digest::sha256(&noise(MIB, 1))));
    let missing = Some(Platform::new("linux", "s390x", None));
    let options = CopyOptions { platform: missing, referrers: false };
    let error = client().copy(&lease, &names.0, &names.1, &options, &ignore).unwrap_err();
    assert!(error.to_string().contains("there is no image for linux/s390x"), "{error}");
}

#[test]
fn within_a_registry_blobs_are_mounted() {
    let (registry, local) = (Registry::start(), Local::new());
    put_index(&registry);
    let lease = local.store.lease().unwrap();
    let events = Events::default();
    let names = (registry.name("app:1"), registry.name("other:1"));
    client().copy(&lease, &names.0, &names.1, &all(), &events.sink()).unwrap();
    assert_eq!(registry.server.count("GET /v2/app/blobs/"), 0);
    // Two layers, of which the tiny one is shared, and two configs.
    assert_eq!(events.count(|event| matches!(event, Event::Mounted { .. })), 5);
}

#[test]
fn a_copy_under_a_digest_must_be_what_the_digest_says() {
    let (from, to, local) = (Registry::start(), Registry::start(), Local::new());
    put_index(&from);
    let lease = local.store.lease().unwrap();
    let wrong = to.name(&format!("app@{}", Digest::sha256(b"other")));
    let error = client().copy(&lease, &from.name("app:1"), &wrong, &all(), &ignore).unwrap_err();
    assert!(matches!(error, Error::NotPushable { .. }), "{error:?}");
    assert!(to.server.log().iter().all(|line| !line.starts_with("P")), "{:?}", to.server.log());
}

#[test]
fn referrers_travel_with_a_copy_and_reach_either_kind_of_registry() {
    for (from_lists, to_lists) in [(true, false), (false, true), (false, false)] {
        let start = |lists| match lists {
            true => Registry::interfered(referrers),
            false => Registry::start(),
        };
        let (from, to, local) = (start(from_lists), start(to_lists), Local::new());
        let (index, entries) = put_index(&from);
        let signatures: Vec<Descriptor> =
            [b"one", b"two", b"six"].iter().map(|text| sign(&from, &index, *text)).collect();
        let nested = sign(&from, &signatures[0], b"countersigned");
        let of_image = sign(&from, &entries[0], b"of one platform");
        if !from_lists {
            list_by_tag(&from, &index, &signatures);
            list_by_tag(&from, &signatures[0], std::slice::from_ref(&nested));
            list_by_tag(&from, &entries[0], std::slice::from_ref(&of_image));
        }
        let lease = local.store.lease().unwrap();
        let options = CopyOptions { platform: None, referrers: true };
        let (name, copy) = (from.name("app:1"), to.name("app:1"));
        client().copy(&lease, &name, &copy, &options, &ignore).unwrap();
        for referrer in signatures.iter().chain([&nested, &of_image]) {
            let name = referrer.digest.to_string();
            assert_eq!(to.manifest("app", &name), from.manifest("app", &name));
        }
        assert!(to.has_blob("app", &Digest::sha256(b"countersigned")));
        let listed = client().referrers(&lease, &copy, &ignore).unwrap();
        let digests = |list: &[Descriptor]| -> std::collections::BTreeSet<Digest> {
            list.iter().map(|entry| entry.digest).collect()
        };
        assert_eq!(digests(&listed), digests(&signatures), "{from_lists} {to_lists}");
        if !to_lists {
            let kind = "application/vnd.example.signature".parse().unwrap();
            assert!(listed.iter().all(|entry| entry.artifact_type.as_ref() == Some(&kind)));
        }
        // Once more changes nothing.
        client().copy(&lease, &name, &copy, &options, &ignore).unwrap();
        assert_eq!(client().referrers(&lease, &copy, &ignore).unwrap().len(), 3);
    }
}

#[test]
fn referrers_are_pulled_kept_and_pushed() {
    let (from, to, local) = (Registry::interfered(referrers), Registry::start(), Local::new());
    let image = put_image(&from, &amd64(), &[b"layer"]);
    let signature = sign(&from, &image, b"signed");
    let nested = sign(&from, &signature, b"countersigned");
    let lease = local.store.lease().unwrap();
    let name = from.name("app:1");
    client().pull(&lease, &name, &packed(), &ignore).unwrap();
    assert!(local.store.referrers(&image.digest).unwrap().is_empty(), "only where asked for");
    let options = PullOptions { referrers: true, ..packed() };
    client().pull(&lease, &name, &options, &ignore).unwrap();
    drop(lease);
    local.store.gc().unwrap();
    let lease = local.store.lease().unwrap();
    let kept = local.store.referrers(&image.digest).unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].digest, signature.digest);
    assert!(local.store.blobs().contains(&Digest::sha256(b"countersigned")).unwrap());

    let options = PushOptions { platform: amd64(), ..PushOptions::default() };
    client().push(&lease, &image, &to.name("plain:1"), &options, &ignore).unwrap();
    assert!(!to.has_blob("plain", &Digest::sha256(b"signed")));
    let options = PushOptions { referrers: true, ..options };
    client().push(&lease, &image, &to.name("app:1"), &options, &ignore).unwrap();
    for (subject, referrer) in [(&image, &signature), (&signature, &nested)] {
        let digest = referrer.digest.to_string();
        assert_eq!(to.manifest("app", &digest), from.manifest("app", &digest));
        let list = Index::parse(&to.manifest("app", &tag(subject))).unwrap();
        assert_eq!(list.manifests[0].digest, referrer.digest);
    }
}

#[test]
fn hostile_lists_of_referrers_come_to_an_end() {
    let pages = AtomicUsize::new(0);
    let endless = Registry::interfered(move |request, _| {
        request.path.contains("/referrers/").then(|| {
            let page = pages.fetch_add(1, Ordering::SeqCst);
            Reply::new(200)
                .body(Index::new(Vec::new()).to_bytes())
                .header("link", format!("</v2/app/referrers/x?page={page}>; rel=\"next\""))
        })
    });
    let elsewhere = Registry::interfered(|request, _| {
        request.path.contains("/referrers/").then(|| {
            Reply::new(200)
                .body(Index::new(Vec::new()).to_bytes())
                .header("link", "<http://127.0.0.2:1/v2/app/referrers/x>; rel=\"next\"")
        })
    });
    let circle = Registry::start();
    for (registry, expected) in
        [(&endless, "have more than 100 pages"), (&elsewhere, "its list goes on at another host")]
    {
        put_image(registry, &amd64(), &[b"layer"]);
        let local = Local::new();
        let lease = local.store.lease().unwrap();
        let error = client().referrers(&lease, &registry.name("app:1"), &ignore).unwrap_err();
        assert!(error.to_string().ends_with(expected), "{error}");
    }
    // A list may say that an image refers to itself: it is followed once.
    let image = put_image(&circle, &amd64(), &[b"layer"]);
    list_by_tag(&circle, &image, std::slice::from_ref(&image));
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let options = PullOptions { referrers: true, ..packed() };
    client().pull(&lease, &circle.name("app:1"), &options, &ignore).unwrap();
}

#[test]
fn remote_images_are_looked_at_and_nothing_is_kept() {
    let (registry, local) = (Registry::start(), Local::new());
    let (index, entries) = put_index(&registry);
    let lease = local.store.lease().unwrap();
    let name = registry.name("app:1");
    let found = client().look_up(&lease, &name, &ignore).unwrap();
    assert_eq!((found.descriptor, found.bytes), (index, registry.manifest("app", "1")));
    let (image, config) = client().look_into(&lease, &name, &amd64(), &ignore).unwrap();
    assert_eq!(image.manifest_descriptor.digest, entries[1].digest);
    assert_eq!(Digest::sha256(&config), image.config_digest);
    assert_eq!(image.config.platform, amd64());
    assert!(!local.store.blobs().contains(&image.config_digest).unwrap());
    assert_eq!(registry.server.count("GET /v2/app/blobs/"), 1, "the config, no layer");
}

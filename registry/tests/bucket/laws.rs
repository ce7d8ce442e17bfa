//! What the storage promises, on a bucket.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use oci::{Digest, Repository};
use registry::storage::{
    Blob, Bucket, Content, Error, Key, Opened, Prefix, Redirect, Storage as _, UploadId,
    Writer as _,
};

use crate::support::servers::Store;
use crate::support::{client, noise};

on_each_store!(
    what_the_store_promises_is_found_out,
    records_are_replaced_whole_and_created_once,
    listings_are_sorted_and_start_after,
    an_upload_is_continued_elsewhere_and_becomes_a_blob,
    what_one_request_brings_is_one_object_that_clients_can_fetch,
    many_uploads_at_once_come_in_smaller_pieces,
    the_second_of_two_equal_blobs_gives_way_and_empty_ones_exist;
    with conditions: of_two_replicas_that_write_to_one_upload_one_is_refused
);

fn repository(text: &str) -> Repository {
    text.parse().unwrap()
}

fn tag_key(tag: &str) -> Key {
    Key::tag(&repository("a/b"), &tag.parse().unwrap())
}

async fn read(blob: &Blob, range: std::ops::Range<u64>) -> Vec<u8> {
    let Content::Segments(segments) = &blob.content else { panic!("not in a bucket") };
    let pieces: Vec<Bytes> = segments.read(&range).try_collect().await.unwrap();
    pieces.concat()
}

/// How long the parts of an object are.
const PART: usize = 5 << 20;

async fn begin(bucket: &Bucket, seed: u8) -> UploadId {
    let id = UploadId::from_random([seed; 16]);
    bucket.begin_upload(&id, Bytes::from_static(b"record")).await.unwrap();
    id
}

async fn what_the_store_promises_is_found_out(store: Store) {
    assert_eq!(store.bucket("", 1).await.promises(), store.promises());
}

async fn records_are_replaced_whole_and_created_once(store: Store) {
    let bucket = store.bucket("some/prefix", 1).await;
    let key = tag_key("v1");
    assert_eq!(bucket.get(&key).await.unwrap(), None);
    assert_eq!(bucket.stamp(&key).await.unwrap(), None);
    bucket.put(&key, Bytes::from_static(b"one")).await.unwrap();
    let first = bucket.stamp(&key).await.unwrap();
    assert!(!bucket.put_new(&key, Bytes::from_static(b"two")).await.unwrap());
    assert_eq!(bucket.get(&key).await.unwrap().unwrap(), "one");
    assert_eq!(bucket.stamp(&key).await.unwrap(), first);
    bucket.put(&key, Bytes::from(vec![b'x'; 5000])).await.unwrap();
    assert_eq!(bucket.get(&key).await.unwrap().unwrap().len(), 5000);
    assert_ne!(bucket.stamp(&key).await.unwrap(), first);
    assert!(!bucket.delete_if(&key, Bytes::from_static(b"one")).await.unwrap());
    assert!(bucket.delete_if(&key, Bytes::from(vec![b'x'; 5000])).await.unwrap());
    assert!(!bucket.delete(&key).await.unwrap());
    assert!(bucket.put_new(&key, Bytes::new()).await.unwrap());
    assert!(bucket.delete(&key).await.unwrap());
    // Another prefix is another storage.
    bucket.put(&key, Bytes::new()).await.unwrap();
    assert_eq!(store.bucket("some", 2).await.get(&key).await.unwrap(), None);
}

async fn listings_are_sorted_and_start_after(store: Store) {
    let bucket = store.bucket("p", 1).await;
    bucket.mark(["b", "a", "c", "B", "a.1", "a-1"].map(tag_key).to_vec()).await.unwrap();
    let tags = Prefix::tags(&repository("a/b"));
    let list = async |after, limit| bucket.list(&tags, after, limit).await.unwrap();
    assert_eq!(list(None, 100).await, ["B", "a", "a-1", "a.1", "b", "c"]);
    assert_eq!(list(Some("a-1"), 2).await, ["a.1", "b"]);
    assert_eq!(list(Some("a0"), 1).await, ["b"]);
    assert_eq!(list(Some("a~"), 1).await, ["b"]);
    assert_eq!(list(Some("c"), 5).await, [""; 0]);
    assert_eq!(list(None, 0).await, [""; 0]);
    let names = ["a", "a-b", "a/b", "a/b/c", "a.b", "b", "ab", "a/0"];
    bucket.mark(names.iter().map(|name| Key::catalog(&repository(name))).collect()).await.unwrap();
    let mut expected: Vec<String> = names.iter().map(|name| format!("{name}!")).collect();
    expected.sort_unstable();
    for (index, after) in expected.iter().enumerate() {
        let listed = bucket.list(&Prefix::catalog(), Some(after), 100).await.unwrap();
        assert_eq!(listed, expected[index + 1..], "after {after}");
    }
}

async fn an_upload_is_continued_elsewhere_and_becomes_a_blob(store: Store) {
    let (here, there) = (store.bucket("p", 1).await, store.bucket("p", 2).await);
    assert!(here.open_upload(&UploadId::from_random([9; 16])).await.unwrap().is_none());
    let id = begin(&here, 1).await;
    // More than one segment.
    let bytes = noise((9 << 20) + 123, 1);
    let digest = Digest::sha256(&bytes);
    let mut writer = here.open_upload(&id).await.unwrap().unwrap().writer;
    let (first, second) = bytes.split_at((8 << 20) + 7);
    writer.write(0, &[Bytes::copy_from_slice(first)]).await.unwrap();
    writer.save(Bytes::from_static(b"second")).await.unwrap();
    // What was never saved is cut off on resume.
    writer.write(first.len() as u64, &[Bytes::from_static(b"lost")]).await.unwrap();
    drop(writer);
    let opened = there.open_upload(&id).await.unwrap().unwrap();
    assert_eq!((&opened.record[..], opened.size), (&b"second"[..], first.len() as u64));
    let mut writer = opened.writer;
    writer.write(opened.size, &[Bytes::copy_from_slice(second)]).await.unwrap();
    writer.commit(&digest, bytes.len() as u64).await.unwrap();
    let blob = here.blob(&digest).await.unwrap().unwrap();
    assert_eq!(blob.size, bytes.len() as u64);
    assert!(read(&blob, 0..blob.size).await == bytes);
    let seam = (8 << 20) - 5..(8 << 20) + 20;
    assert!(read(&blob, seam.start as u64..seam.end as u64).await == bytes[seam]);
    assert!(here.peek_upload(&id).await.unwrap().is_none());
    assert!(here.uploads().await.unwrap().is_empty());
}

async fn what_one_request_brings_is_one_object_that_clients_can_fetch(store: Store) {
    let redirect = Redirect { endpoint: None, from_bytes: 1 << 20 };
    let bucket = store.redirecting("p", 1, Some(redirect)).await;
    let fetch = async |digest: &Digest| {
        let blob = bucket.blob(digest).await.unwrap().unwrap();
        let Content::Segments(segments) = &blob.content else { panic!("not in a bucket") };
        match segments.redirect().await.unwrap() {
            Some(url) => {
                let answer = client().get(url).send().await.unwrap();
                assert_eq!(answer.status(), 200);
                Some(answer.bytes().await.unwrap().to_vec())
            }
            None => None,
        }
    };
    // Of one part and several, at their borders and beside them.
    for (seed, size) in [(1, 1 << 20), (2, PART), (3, PART + 1), (4, 2 * PART), (5, 13_000_000)] {
        let id = begin(&bucket, seed).await;
        let bytes = noise(size, seed.into());
        let mut writer = bucket.open_upload(&id).await.unwrap().unwrap().writer;
        for (index, chunk) in bytes.chunks(700_001).enumerate() {
            let offset = index as u64 * 700_001;
            writer.write(offset, &[Bytes::copy_from_slice(chunk)]).await.unwrap();
        }
        let digest = Digest::sha256(&bytes);
        writer.commit(&digest, bytes.len() as u64).await.unwrap();
        assert!(fetch(&digest).await.unwrap() == bytes, "{size} bytes");
        let blob = bucket.blob(&digest).await.unwrap().unwrap();
        assert!(read(&blob, 0..blob.size).await == bytes, "{size} bytes");
    }
    // One of several pieces has no address of its own, and a small one needs none.
    let id = begin(&bucket, 6).await;
    let bytes = noise(2 << 20, 6);
    for half in bytes.chunks(1 << 20) {
        let Opened { size, mut writer, .. } = bucket.open_upload(&id).await.unwrap().unwrap();
        writer.write(size, &[Bytes::copy_from_slice(half)]).await.unwrap();
        writer.save(Bytes::new()).await.unwrap();
    }
    let writer = bucket.open_upload(&id).await.unwrap().unwrap().writer;
    writer.commit(&Digest::sha256(&bytes), 2 << 20).await.unwrap();
    assert!(fetch(&Digest::sha256(&bytes)).await.is_none());
    let id = begin(&bucket, 7).await;
    let mut writer = bucket.open_upload(&id).await.unwrap().unwrap().writer;
    writer.write(0, &[Bytes::from_static(b"small")]).await.unwrap();
    writer.commit(&Digest::sha256(b"small"), 5).await.unwrap();
    assert!(fetch(&Digest::sha256(b"small")).await.is_none());
}

async fn many_uploads_at_once_come_in_smaller_pieces(store: Store) {
    let bucket = store.bucket("p", 1).await;
    let mut writers = Vec::new();
    for seed in 1..=8 {
        let id = begin(&bucket, seed).await;
        let mut writer = bucket.open_upload(&id).await.unwrap().unwrap().writer;
        // The first ones begin with parts, which do not fit any more when all are there.
        let bytes = noise(PART + 100_000, seed.into());
        writer.write(0, &[Bytes::copy_from_slice(&bytes)]).await.unwrap();
        writers.push((writer, bytes));
    }
    for (writer, bytes) in &mut writers {
        let more = noise(PART, 99);
        writer.write(bytes.len() as u64, &[Bytes::copy_from_slice(&more)]).await.unwrap();
        bytes.extend(more);
    }
    for (writer, bytes) in writers {
        let digest = Digest::sha256(&bytes);
        writer.commit(&digest, bytes.len() as u64).await.unwrap();
        let blob = bucket.blob(&digest).await.unwrap().unwrap();
        assert!(read(&blob, 0..blob.size).await == bytes);
    }
}

async fn of_two_replicas_that_write_to_one_upload_one_is_refused(store: Store) {
    let (here, there) = (store.bucket("p", 1).await, store.bucket("p", 2).await);
    let id = begin(&here, 1).await;
    let mut first = here.open_upload(&id).await.unwrap().unwrap().writer;
    let mut second = there.open_upload(&id).await.unwrap().unwrap().writer;
    first.write(0, &[Bytes::from_static(b"one")]).await.unwrap();
    second.write(0, &[Bytes::from_static(b"two!")]).await.unwrap();
    first.save(Bytes::from_static(b"first")).await.unwrap();
    assert!(matches!(second.save(Bytes::new()).await, Err(Error::Busy { .. })));
    drop(second);
    // Nor may one drop what the other is making a blob of.
    let late = there.open_upload(&id).await.unwrap().unwrap().writer;
    first.commit(&Digest::sha256(b"one"), 3).await.unwrap();
    assert!(matches!(late.discard().await, Err(Error::Busy { .. })));
    let blob = there.blob(&Digest::sha256(b"one")).await.unwrap().unwrap();
    assert_eq!(read(&blob, 0..3).await, b"one");
}

async fn the_second_of_two_equal_blobs_gives_way_and_empty_ones_exist(store: Store) {
    let bucket = store.bucket("p", 1).await;
    for (seed, text) in [(1, "x"), (2, "x"), (3, ""), (4, "")] {
        let id = begin(&bucket, seed).await;
        let mut writer = bucket.open_upload(&id).await.unwrap().unwrap().writer;
        writer.write(0, &[Bytes::from_static(text.as_bytes())]).await.unwrap();
        let digest = Digest::sha256(text.as_bytes());
        writer.commit(&digest, text.len() as u64).await.unwrap();
        let blob = bucket.blob(&digest).await.unwrap().unwrap();
        assert_eq!(read(&blob, 0..blob.size).await, text.as_bytes());
    }
    assert!(bucket.uploads().await.unwrap().is_empty());
}

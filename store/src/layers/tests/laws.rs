//! What the sandbox sees of stacked layers is what applying their tars one by one gives.

use std::path::PathBuf;

use oci::{DiffId, Digest};
use proptest::prelude::*;

use super::{
    build::{Item, tar},
    model::{Tree, make_sense},
    mounted::{dump_directory, dump_view, with_overlay},
    stacks::layers,
};
use crate::{Lease, Store};

pub(super) fn store() -> (tempfile::TempDir, Store, Lease) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let lease = store.lease().unwrap();
    (directory, store, lease)
}

pub(super) fn unpack(lease: &Lease, items: &[Item]) -> DiffId {
    let tar = tar(items);
    let diff_id = DiffId(Digest::sha256(&tar));
    lease.unpack_stream(&tar[..], diff_id).unwrap();
    diff_id
}

/// Compares every snapshot of the stack with the reference: as a mount and as a view.
fn check(layers: &[Vec<Item>], trees: &[Tree]) {
    let (_directory, _store, lease) = store();
    let diff_ids: Vec<DiffId> = layers.iter().map(|items| unpack(&lease, items)).collect();
    // The whole first, so that fix-ups below are made on the way and then reused.
    for count in (1..=layers.len()).rev() {
        let snapshot = lease.snapshot(&diff_ids[..count]).unwrap();
        let again = lease.snapshot(&diff_ids[..count]).unwrap();
        assert_eq!(snapshot.lowers(), again.lowers(), "the record says the same");
        let want = trees[count - 1].dump();
        pretty(&want, &dump_view(snapshot.view().unwrap()), "the view");
        let mounted = with_overlay(snapshot.lowers(), None, dump_directory);
        pretty(&want, &mounted, "the read-only mount");
        let active = lease.active(&snapshot).unwrap();
        let writable: (PathBuf, PathBuf) = (active.upper(), active.work());
        let mounted =
            with_overlay(active.lowers(), Some((&writable.0, &writable.1)), dump_directory);
        pretty(&want, &mounted, "the writable mount");
    }
}

/// Says what differs, not everything.
pub(super) fn pretty(want: &super::model::Dump, got: &super::model::Dump, what: &str) {
    let only = |one: &super::model::Dump, other: &super::model::Dump| {
        one.iter()
            .filter(|(path, thing)| other.get(*path) != Some(thing))
            .map(|entry| format!("{entry:?}\n"))
            .collect::<String>()
    };
    assert!(want == got, "{what} differs\nwanted\n{}got\n{}", only(want, got), only(got, want));
}

pub(super) fn cases() -> ProptestConfig {
    // More where somebody asks for more: PROPTEST_CASES=5000.
    let asked = std::env::vars().find(|(name, _)| name == "PROPTEST_CASES");
    let cases = asked.and_then(|(_, value)| value.parse().ok()).unwrap_or(64);
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]
    #[test]
    fn privileged_a_mount_shows_what_applying_the_tars_gives(mut layers in layers()) {
        let trees = make_sense(&mut layers);
        check(&layers, &trees);
    }
}

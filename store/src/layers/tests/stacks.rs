//! Random stacks of layers for the laws.

use proptest::prelude::*;

use super::build::Item;
use crate::layers::entry::{Entry, Kind, Metadata, Timestamp, Xattrs};

/// Few names, so that layers meet.
fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("a"), 3 => Just("b"), 2 => Just("c"), 1 => Just("-z")]
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(name(), 1..4).prop_map(|names| names.join("/"))
}

pub(super) fn metadata() -> impl Strategy<Value = Metadata> {
    let mode = prop_oneof![
        Just(0o644),
        Just(0o755),
        Just(0o700),
        Just(0o4755),
        Just(0o1777),
        Just(0o2775),
        Just(0o000)
    ];
    let id = || prop_oneof![3 => Just(0_u32), 1 => 1_u32..70_000];
    let xattrs = prop_oneof![
        4 => Just(Xattrs::new()),
        1 => proptest::collection::btree_map(
            prop_oneof![Just(b"user.x".to_vec()), Just(b"user.longer-name".to_vec())],
            proptest::collection::vec(any::<u8>(), 0..20),
            1..3,
        ),
    ];
    (mode, id(), id(), 0_i64..2_000_000_000, xattrs).prop_map(
        |(mode, uid, gid, seconds, xattrs)| Metadata {
            mode,
            uid,
            gid,
            mtime: Timestamp::from_seconds(seconds),
            xattrs,
        },
    )
}

fn capability() -> Vec<u8> {
    // Version 2, effective: cap_net_bind_service permitted.
    let words = [0x0200_0001_u32, 1 << 10, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn item() -> impl Strategy<Value = Item> {
    let kind = prop_oneof![
        5 => Just(Kind::Directory),
        6 => Just(Kind::File { size: 0 }),
        2 => path().prop_map(|target| Kind::Symlink { target: target.into() }),
        3 => path().prop_map(|target| Kind::HardLink { target: target.into() }),
        1 => Just(Kind::Fifo),
        1 => (1_u32..9, 0_u32..9).prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        1 => (1_u32..9, 0_u32..9).prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
    ];
    let content = proptest::collection::vec(any::<u8>(), 0..40);
    let ordinary = (path(), kind, metadata(), content, any::<bool>()).prop_map(
        |(path, kind, mut metadata, content, has_capability)| {
            let mut path = path.into_bytes();
            let (kind, content) = match kind {
                Kind::File { .. } => {
                    if has_capability && metadata.mode == 0o755 {
                        metadata.xattrs.insert(b"security.capability".to_vec(), capability());
                    }
                    (Kind::File { size: content.len() as u64 }, content)
                }
                other => (other, Vec::new()),
            };
            match &kind {
                Kind::Directory => path.push(b'/'),
                Kind::File { .. } => {}
                // Only files and directories can have `user.` attributes, and links have no mode.
                _ => metadata.xattrs.clear(),
            }
            if let Kind::Symlink { .. } = &kind {
                metadata.mode = 0o777;
            }
            Item { entry: Entry { path, kind, metadata }, content }
        },
    );
    let marker = |path: String| Item {
        entry: Entry {
            path: path.into_bytes(),
            kind: Kind::File { size: 0 },
            metadata: Metadata::default(),
        },
        content: Vec::new(),
    };
    let whiteout = (path(), name()).prop_map(move |(parent, name)| {
        let parent = parent.rsplit_once('/').map(|(parent, _)| format!("{parent}/"));
        marker(format!("{}.wh.{name}", parent.unwrap_or_default()))
    });
    let opaque = path().prop_map(move |path| marker(format!("{path}/.wh..wh..opq")));
    let root = metadata().prop_map(|metadata| Item {
        entry: Entry { path: b"./".to_vec(), kind: Kind::Directory, metadata },
        content: Vec::new(),
    });
    let opaque_root = Just(marker(".wh..wh..opq".to_owned()));
    prop_oneof![
        60 => ordinary,
        12 => whiteout,
        6 => opaque,
        2 => root,
        1 => opaque_root,
    ]
}

/// A layer's entries, in any order and with repetitions.
pub(super) fn layer() -> impl Strategy<Value = Vec<Item>> {
    proptest::collection::vec(item(), 0..12)
}

/// Layers from the bottom; they may make no sense yet.
pub(super) fn layers() -> impl Strategy<Value = Vec<Vec<Item>>> {
    // Sometimes a layer occurs twice, as empty ones do in many images.
    let repeated = proptest::option::weighted(0.2, any::<proptest::sample::Index>());
    proptest::collection::vec((layer(), repeated), 1..5).prop_map(|layers| {
        let mut all: Vec<Vec<Item>> = Vec::new();
        for (layer, repeated) in layers {
            let earlier = repeated.filter(|_| !all.is_empty()).map(|index| index.get(&all).clone());
            all.push(earlier.unwrap_or(layer));
        }
        all
    })
}

use std::{io::BufReader, process};

use proptest::prelude::*;

use super::*;
use crate::layers::{entry::Timestamp, tar::Reader};

fn names() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 97_u8..=122, 1 => 1_u8..=255];
    proptest::collection::vec(byte, 1..160)
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Directory),
        (0_u64..2000).prop_map(|size| Kind::File { size }),
        names().prop_map(|target| Kind::Symlink { target }),
        names().prop_map(|target| Kind::HardLink { target }),
        (0..0xfff_u32, 0..0xfffff_u32).prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        (0..0xfff_u32, 0..0xfffff_u32)
            .prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
        Just(Kind::Fifo),
    ]
}

fn entries() -> impl Strategy<Value = Entry> {
    let seconds =
        prop_oneof![0_i64..2_000_000_000, any::<i32>().prop_map(i64::from), 1_i64 << 33..1 << 40];
    let id = || prop_oneof![0_u32..70_000, 0..u32::MAX];
    let xattrs = proptest::collection::btree_map(
        "user\\.[a-z]{1,9}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..30),
        0..3,
    );
    (names(), kinds(), 0_u32..0o10000, id(), id(), seconds, xattrs).prop_map(
        |(path, kind, mode, uid, gid, seconds, xattrs)| Entry {
            path,
            kind,
            metadata: Metadata { mode, uid, gid, mtime: Timestamp::from_seconds(seconds), xattrs },
        },
    )
}

fn write(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.entry(entry).unwrap();
        if let Kind::File { size } = entry.kind {
            writer.data(&vec![b'd'; usize::try_from(size).unwrap()]).unwrap();
        }
    }
    writer.finish().unwrap()
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(entries in proptest::collection::vec(entries(), 0..8)) {
        let tar = write(&entries);
        prop_assert_eq!(tar.len() % BLOCK_BYTES, 0);
        // A small buffer makes headers and data straddle its ends.
        let mut reader = Reader::new(BufReader::with_capacity(700, &tar[..]));
        for entry in &entries {
            let read = reader.next_entry().unwrap();
            prop_assert_eq!(read.as_ref(), Some(entry));
        }
        prop_assert_eq!(reader.next_entry().unwrap(), None);
    }
}

#[test]
fn an_empty_layer_is_the_well_known_one() {
    assert_eq!(write(&[]), vec![0; 1024]);
}

#[test]
fn data_must_have_the_length_that_was_announced() {
    let entry =
        Entry { path: b"f".to_vec(), kind: Kind::File { size: 3 }, metadata: Metadata::default() };
    let mut writer = Writer::new(Vec::new());
    writer.entry(&entry).unwrap();
    assert!(writer.data(b"four").is_err());
    let mut writer = Writer::new(Vec::new());
    writer.entry(&entry).unwrap();
    writer.data(b"ab").unwrap();
    assert!(writer.finish().is_err());
}

#[test]
fn gnu_tar_lists_what_is_written() {
    let file = |path: &str, uid| Entry {
        path: path.as_bytes().to_vec(),
        kind: Kind::File { size: 2 },
        metadata: Metadata { mode: 0o4755, uid, gid: 7, ..Metadata::default() },
    };
    let long = format!("dir/{}", "n".repeat(150));
    let tar = write(&[file("short", 3), file(&long, 3_000_000), file("ümlaut", 0)]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.tar");
    std::fs::write(&path, tar).unwrap();
    let listing = process::Command::new("tar")
        .args(["--list", "--verbose", "--numeric-owner", "--quoting-style=literal", "--file"])
        .arg(&path)
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .output()
        .unwrap();
    let text = String::from_utf8(listing.stdout).unwrap();
    let lines: Vec<_> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[0], ["-rwsr-xr-x", "3/7", "2", "1970-01-01", "00:00", "short"]);
    assert_eq!(lines[1][1..], ["3000000/7", "2", "1970-01-01", "00:00", &long]);
    assert_eq!(lines[2][5], "ümlaut");
}

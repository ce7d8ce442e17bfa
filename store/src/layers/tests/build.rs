//! Makes tars for tests, also ones that no decent writer makes.

use crate::layers::{
    entry::{Entry, Kind, Metadata},
    tar::Writer,
};

/// An entry together with a file's content.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) entry: Entry,
    pub(super) content: Vec<u8>,
}

/// An entry of whoever runs the tests, who may be an ordinary user.
pub(super) fn item(path: &str, kind: Kind) -> Item {
    let metadata = Metadata { mode: 0o644, ..Metadata::implied_directory() };
    Item { entry: Entry { path: path.into(), kind, metadata }, content: Vec::new() }
}

pub(super) fn file(path: &str, content: &str) -> Item {
    let kind = Kind::File { size: content.len() as u64 };
    Item { content: content.into(), ..item(path, kind) }
}

pub(super) fn dir(path: &str, mode: u32) -> Item {
    let mut item = item(path, Kind::Directory);
    item.entry.metadata.mode = mode;
    item
}

pub(super) fn symlink(path: &str, target: &str) -> Item {
    item(path, Kind::Symlink { target: target.into() })
}

pub(super) fn hard_link(path: &str, target: &str) -> Item {
    item(path, Kind::HardLink { target: target.into() })
}

/// Writes a well-formed tar, whatever its names say.
pub(super) fn tar(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for item in items {
        writer.entry(&item.entry).unwrap();
        if let Kind::File { .. } = item.entry.kind {
            writer.data(&item.content).unwrap();
        }
    }
    writer.finish().unwrap()
}

/// A header of which every byte can be chosen; the checksum is made right at the end.
#[derive(Clone)]
pub(super) struct Raw(pub(super) [u8; 512]);

impl Raw {
    pub(super) fn new(typeflag: u8, path: &str, size: u64) -> Self {
        let mut raw = Self([0; 512]);
        raw.put(0, path.as_bytes());
        raw.put(100, b"0000644\0");
        raw.put(108, b"0000000\0");
        raw.put(116, b"0000000\0");
        raw.put(124, format!("{size:011o}\0").as_bytes());
        raw.put(136, b"00000000000\0");
        raw.put(156, &[typeflag]);
        raw.put(257, b"ustar\x0000");
        raw
    }

    pub(super) fn gnu(typeflag: u8, path: &str, size: u64) -> Self {
        let mut raw = Self::new(typeflag, path, size);
        raw.put(257, b"ustar  \0");
        raw
    }

    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn link(mut self, target: &str) -> Self {
        self.put(157, target.as_bytes());
        self
    }

    /// The header and its data, padded to whole blocks.
    pub(super) fn with(mut self, data: &[u8]) -> Vec<u8> {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        let mut out = self.0.to_vec();
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

/// A PAX header with these records, which are made well-formed.
pub(super) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let length = (body + 1..).find(|length| body + length.to_string().len() == *length);
        data.extend_from_slice(format!("{} {key}=", length.unwrap()).as_bytes());
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    Raw::new(b'x', "PaxHeaders/x", data.len() as u64).with(&data)
}

/// Joins parts and ends the archive.
pub(super) fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = parts.concat();
    out.resize(out.len() + 1024, 0);
    out
}

//! The seeds of the fuzz targets `oci_document` and `reference`, and small damages to each.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use oci::{Document, ImageConfig, Index, Manifest, Reference};

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut seeds: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    seeds.sort_unstable();
    assert!(!seeds.is_empty());
    seeds
}

/// Returns the bytes as they are, cut anywhere, and with each byte replaced.
fn damaged(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![bytes.to_vec()];
    for at in 0..bytes.len() {
        all.push(bytes[..at].to_vec());
        all.push(bytes[at..].to_vec());
        for other in *b"\"{[:/@.-A0 \\" {
            let mut copy = bytes.to_vec();
            copy[at] = other;
            all.push(copy);
        }
    }
    all
}

#[test]
fn damaged_documents_are_refused_or_written_back_the_same() {
    let (mut read, mut refused) = (0, 0);
    for (name, seed) in seeds("oci_document") {
        for bytes in damaged(&seed) {
            match Document::parse(&bytes, None) {
                Ok(Document::Manifest(manifest)) => {
                    read += 1;
                    let again = Manifest::parse(&manifest.to_bytes());
                    assert_eq!(again.as_ref(), Ok(&manifest), "{name}");
                }
                Ok(Document::Index(index)) => {
                    read += 1;
                    assert_eq!(Index::parse(&index.to_bytes()).as_ref(), Ok(&index), "{name}");
                }
                Err(_) => refused += 1,
            }
            if let Ok(config) = ImageConfig::parse(&bytes) {
                assert_eq!(ImageConfig::parse(&config.to_bytes()).as_ref(), Ok(&config), "{name}");
            }
        }
    }
    assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
}

#[test]
fn damaged_names_are_refused_or_print_as_something_that_means_the_same() {
    let (mut read, mut refused) = (0, 0);
    for (name, seed) in seeds("reference") {
        for bytes in damaged(&seed) {
            let text = String::from_utf8_lossy(&bytes);
            match text.parse::<Reference>() {
                Ok(reference) => {
                    read += 1;
                    assert_eq!(reference.to_string().parse(), Ok(reference.clone()), "{name}");
                    assert_eq!(reference.familiar().parse(), Ok(reference), "{name}");
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
}

//! Manifests, indexes and configs. What is accepted must be written and read again the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::{Document, ImageConfig, Index, Manifest};

fuzz_target!(|bytes: &[u8]| {
    match Document::parse(bytes, None) {
        Ok(Document::Manifest(manifest)) => {
            assert_eq!(Manifest::parse(&manifest.to_bytes()).as_ref(), Ok(&manifest));
        }
        Ok(Document::Index(index)) => {
            assert_eq!(Index::parse(&index.to_bytes()).as_ref(), Ok(&index));
        }
        Err(_) => {}
    }
    if let Ok(config) = ImageConfig::parse(bytes) {
        assert_eq!(ImageConfig::parse(&config.to_bytes()).as_ref(), Ok(&config));
    }
});

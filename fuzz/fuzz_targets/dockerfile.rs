//! Dockerfiles: parsing never fails, it explains.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (_dockerfile, _diagnostics) = builder::dockerfile::parse(text);
});

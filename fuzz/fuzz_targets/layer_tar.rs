//! A layer's tar, read as the unpacker reads it but without a disk.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Refusing is fine; only a panic or running out of memory is not.
    let _refused = store::layers::tar::check(bytes);
});

//! What a request to the registry says: target, ranges, authorization. No text makes the parsers
//! break their word.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _understood = registry::border::request(text);
});

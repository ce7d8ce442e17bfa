//! The registry's configuration file: it is understood whole or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _can_be_used = registry::border::configuration(text);
});

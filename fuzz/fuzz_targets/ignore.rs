//! `.dockerignore`: the file before the first NUL, a path to match after it.
#![no_main]

use builder::ignore::{Ignore, Matched};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (file, path) = text.split_once('\0').unwrap_or((text, "a/b"));
    if let Ok(ignore) = Ignore::parse(file) {
        let _excluded = ignore.matches(path);
        let (_excluded, _matched) = ignore.check(path, &Matched::default());
    }
});

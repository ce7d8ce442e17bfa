//! `.dockerignore`: the file before the first NUL, a path to match after it. A walk that hands
//! down what directories match comes to the same answer.
#![no_main]

use builder::ignore::{Ignore, Matched, glob};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (file, path) = text.split_once('\0').unwrap_or((text, "a/b"));
    if let Ok(ignore) = Ignore::parse(file) {
        let path = path.trim_matches('/');
        let mut parent = Matched::default();
        for (at, _) in path.match_indices('/') {
            parent = ignore.check(&path[..at], &parent).1;
        }
        let walked = ignore.check(path, &parent).0;
        if !matches!(path, "" | ".") {
            assert_eq!(ignore.matches(path), walked);
        }
        if let Some((directory, _)) = path.rsplit_once('/') {
            // Where nothing below is taken back in, what an excluded directory holds is excluded.
            if ignore.matches(directory) && !ignore.may_reinclude_below(directory.as_ref()) {
                assert!(walked, "{directory}");
            }
        }
        let _source = ignore.excludes_source(path);
    }
    let _matched = glob::matches(file, path);
});

//! The seeds of the fuzz targets, and many small damages to each, as plain tests.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use builder::dockerfile::{self, Expander};
use builder::ignore::{Ignore, Matched};
use builder::plan::{Options, Planned, plan};
use oci::Platform;

fn seeds(target: &str) -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut seeds: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    seeds.sort_unstable();
    assert!(!seeds.is_empty());
    seeds
}

/// Returns the text cut at every character, with every line left out, and with characters
/// that mean something put anywhere.
fn damaged(text: &str) -> Vec<String> {
    let mut all = vec![text.to_owned()];
    for (at, c) in text.char_indices() {
        all.push(text[..at].to_owned());
        all.push(text[at..].to_owned());
        for other in ["\\", "\n", "$", "{", "\"", "<<", "#", "[", "\u{feff}"] {
            all.push(format!("{}{other}{}", &text[..at], &text[at + c.len_utf8()..]));
        }
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for left_out in 0..lines.len() {
        let kept = lines.iter().enumerate().filter(|(at, _)| *at != left_out);
        all.push(kept.map(|(_, line)| *line).collect());
    }
    all
}

#[test]
fn damaged_dockerfiles_are_planned_or_explained() {
    let options = Options { platform: Platform::new("linux", "amd64", None), ..Options::default() };
    let (mut planned, mut refused) = (0, 0);
    for (name, seed) in seeds("dockerfile") {
        for text in damaged(&seed) {
            let (file, problems) = dockerfile::parse(&text);
            for problem in &problems {
                assert!(problem.span.line <= text.lines().count().max(1), "{name}: {text}");
                assert!(!problem.render("Dockerfile", &text, false).is_empty());
            }
            if dockerfile::has_errors(&problems) {
                refused += 1;
                continue;
            }
            match plan(&file, &options, &BTreeMap::new()) {
                Ok(Planned::Ready(_) | Planned::NeedsImages(_)) => planned += 1,
                Err(problems) => {
                    assert!(!problems.0.is_empty(), "{name}: {text}");
                    refused += 1;
                }
            }
        }
    }
    assert!(planned > 100 && refused > 100, "{planned} planned, {refused} refused");
}

#[test]
fn damaged_words_expand_or_are_refused() {
    let (mut expanded, mut refused) = (0, 0);
    for (name, seed) in seeds("expand") {
        for text in damaged(&seed) {
            let (environment, word) = text.split_once('\0').unwrap_or(("FOO=x", &text));
            let lookup = |wanted: &str| {
                let mut pairs = environment.lines().filter_map(|line| line.split_once('='));
                pairs.find(|(set, _)| *set == wanted).map(|(_, value)| value.to_owned())
            };
            for expander in [Expander::new('\\'), Expander::new('`'), Expander::heredoc()] {
                let whole = expander.word(word, &lookup);
                let words = expander.words(word, &lookup);
                assert_eq!(whole.is_ok(), words.is_ok(), "{name}: {word:?}");
                match whole {
                    Ok(whole) => {
                        expanded += 1;
                        assert!(whole.used.iter().all(|name| lookup(name).is_some()), "{word:?}");
                        assert!(whole.unset.iter().all(|name| lookup(name).is_none()), "{word:?}");
                    }
                    Err(error) => {
                        refused += 1;
                        assert_eq!(error.text, word, "{name}");
                    }
                }
            }
        }
    }
    assert!(expanded > 1000 && refused > 1000, "{expanded} expanded, {refused} refused");
}

#[test]
fn damaged_ignore_files_are_read_or_refused_and_walks_agree_with_questions() {
    for (name, seed) in seeds("ignore") {
        for text in damaged(&seed) {
            let (file, path) = text.split_once('\0').unwrap_or((&text, "a/b"));
            let Ok(ignore) = Ignore::parse(file) else { continue };
            if !path.contains('/') && !path.is_empty() {
                let walked = ignore.check(path, &Matched::default()).0;
                assert_eq!(ignore.matches(path), walked, "{name}: {text:?}");
            }
        }
    }
}

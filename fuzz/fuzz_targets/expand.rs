//! Expansion: variables `NAME=value` a line, then a NUL, then the word.
#![no_main]

use builder::dockerfile::Expander;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (environment, word) = text.split_once('\0').unwrap_or(("FOO=x\nBAR=", text));
    let pairs: Vec<(&str, &str)> =
        environment.lines().filter_map(|line| line.split_once('=')).collect();
    let lookup = |name: &str| {
        pairs.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
    };
    for expander in [Expander::new('\\'), Expander::new('`'), Expander::heredoc()] {
        let Ok(expanded) = expander.word(word, &lookup) else {
            assert!(expander.words(word, &lookup).is_err());
            continue;
        };
        assert!(expanded.used.iter().all(|name| lookup(name).is_some()));
        assert!(expanded.unset.iter().all(|name| lookup(name).is_none()));
        if !word.contains(['$', '\\', '`', '\'', '"']) {
            assert_eq!(expanded.text, word, "nothing to expand");
        }
        let words = expander.words(word, &lookup).expect("a word that expands can be split");
        assert!(words.iter().all(|word| !word.is_empty()));
        assert!(words.iter().map(String::len).sum::<usize>() <= expanded.text.len());
    }
    let _shown = Expander::for_display('\\').word(word, &lookup);
});

//! The seeds of the fuzz targets `registry_request` and `registry_config`, and small damages to each.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use registry::border;

fn seeds(target: &str) -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let seeds: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert!(!seeds.is_empty());
    seeds
}

/// Returns the text as it is, cut anywhere, and with each character replaced.
fn damaged(text: &str) -> Vec<String> {
    let mut all = vec![text.to_owned()];
    for at in 0..text.len() {
        all.push(text[..at].to_owned());
        all.push(text[at..].to_owned());
        for other in "\"{[:/-.=%A9 \n".chars() {
            let mut copy: Vec<char> = text.chars().collect();
            copy[at] = other;
            all.push(copy.into_iter().collect());
        }
    }
    all
}

#[test]
fn damaged_requests_are_understood_or_not_and_never_more() {
    let (mut whole, mut damages) = (0, 0);
    for seed in seeds("registry_request") {
        for (index, text) in damaged(&seed).iter().enumerate() {
            match (index, border::request(text)) {
                (0, understood) => whole += understood,
                (_, understood) => damages += usize::from(understood < 4),
            }
        }
    }
    assert!(whole >= 9, "of the seeds' headers {whole} are understood");
    assert!(damages > 100, "{damages}");
}

#[test]
fn damaged_configurations_are_understood_whole_or_refused() {
    for seed in seeds("registry_config") {
        let texts = damaged(&seed);
        assert!(border::configuration(&texts[0]), "{seed}");
        let refused = texts.iter().filter(|text| !border::configuration(text)).count();
        assert!(refused > texts.len() / 4, "{refused} of {} are refused", texts.len());
    }
}

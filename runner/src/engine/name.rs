//! The names people give containers, or are given for them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::id::random_bytes;

/// The longest name. Docker has no limit; a file name of ours does, and this
/// leaves room for what is put around it.
const MAX_LENGTH: usize = 200;

/// A container's name: a letter or digit, then letters, digits, `_`, `.`, `-`.
///
/// It is safe as a file name: never empty, never `.` or `..`, no slash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Draws two words, such as `patient_heron`.
    ///
    /// `attempt` counts the tries so far: from the second on a number is
    /// added, so that a machine full of containers still finds a free name.
    ///
    /// # Errors
    ///
    /// When the system's random numbers cannot be read.
    pub fn random(attempt: u32) -> Result<Self> {
        let [a, b, c, d] = random_bytes::<4>()?;
        let first = pick(MANNERS, a, b);
        let second = pick(BIRDS, c, d);
        Ok(Self(match attempt {
            0 => format!("{first}_{second}"),
            _ => format!("{first}_{second}{}", u32::from(b ^ d) + 256 * (attempt - 1)),
        }))
    }

    /// Returns the name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // Docker prints names with a slash in front and takes them back so.
        let name = text.strip_prefix('/').unwrap_or(text);
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        // Two characters at least, as docker has it.
        if starts_well && name.chars().all(allowed) && (2..=MAX_LENGTH).contains(&name.len()) {
            return Ok(Self(name.to_owned()));
        }
        Err(Error::Invalid {
            what: format!(
                "invalid container name \"{text}\": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 2 to {MAX_LENGTH} of them"
            ),
        })
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

fn pick(words: &'static [&'static str], low: u8, high: u8) -> &'static str {
    words[usize::from(u16::from_le_bytes([low, high])) % words.len()]
}

/// How it behaves.
const MANNERS: &[&str] = &[
    "agile", "alert", "amiable", "amused", "ardent", "artful", "balmy", "bold", "brave", "breezy",
    "bright", "brisk", "calm", "candid", "cheerful", "chipper", "civil", "clever", "cosy",
    "courtly", "curious", "dapper", "daring", "deft", "diligent", "eager", "earnest", "easy",
    "elated", "fair", "fearless", "fleet", "fond", "frank", "gallant", "generous", "gentle",
    "gleeful", "graceful", "handy", "happy", "hardy", "honest", "humble", "jaunty", "jolly",
    "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry", "mild", "modest", "neat",
    "nimble", "noble", "patient", "peaceful", "plucky", "polite", "prompt", "proud", "quick",
    "quiet", "ready", "robust", "rosy", "serene", "sharp", "shy", "silent", "sincere", "snug",
    "sober", "spry", "stately", "steady", "sturdy", "subtle", "sunny", "swift", "tactful", "tidy",
    "tranquil", "trusty", "upbeat", "valiant", "vivid", "warm", "wary", "wise", "witty", "zesty",
];

/// What flies.
const BIRDS: &[&str] = &[
    "albatross",
    "avocet",
    "bittern",
    "blackbird",
    "bluetit",
    "brambling",
    "bullfinch",
    "bunting",
    "bustard",
    "buzzard",
    "capercaillie",
    "chaffinch",
    "chough",
    "coot",
    "cormorant",
    "crane",
    "crossbill",
    "cuckoo",
    "curlew",
    "dipper",
    "dotterel",
    "dunlin",
    "dunnock",
    "eagle",
    "egret",
    "eider",
    "falcon",
    "fieldfare",
    "finch",
    "firecrest",
    "flamingo",
    "flycatcher",
    "fulmar",
    "gannet",
    "godwit",
    "goldcrest",
    "goldfinch",
    "goosander",
    "goshawk",
    "grebe",
    "greenfinch",
    "guillemot",
    "harrier",
    "hawfinch",
    "heron",
    "hobby",
    "hoopoe",
    "ibis",
    "jackdaw",
    "jay",
    "kestrel",
    "kingfisher",
    "kite",
    "kittiwake",
    "lapwing",
    "lark",
    "linnet",
    "magpie",
    "mallard",
    "martin",
    "merlin",
    "moorhen",
    "nightingale",
    "nightjar",
    "nuthatch",
    "oriole",
    "osprey",
    "ouzel",
    "owl",
    "partridge",
    "petrel",
    "pheasant",
    "pintail",
    "pipit",
    "plover",
    "pochard",
    "ptarmigan",
    "puffin",
    "quail",
    "rail",
    "raven",
    "razorbill",
    "redshank",
    "redstart",
    "redwing",
    "robin",
    "rook",
    "sanderling",
    "sandpiper",
    "shearwater",
    "shelduck",
    "shoveler",
    "shrike",
    "siskin",
    "skua",
    "skylark",
    "smew",
    "snipe",
    "sparrow",
    "spoonbill",
    "starling",
    "stonechat",
    "stork",
    "swallow",
    "swan",
    "swift",
    "teal",
    "tern",
    "thrush",
    "treecreeper",
    "turnstone",
    "twite",
    "wagtail",
    "warbler",
    "waxwing",
    "wheatear",
    "whimbrel",
    "whinchat",
    "wigeon",
    "woodcock",
    "woodpecker",
    "wren",
    "wryneck",
    "yellowhammer",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_names_follow_the_grammar_and_vary() {
        let names: std::collections::BTreeSet<_> =
            (0..64).map(|_| Name::random(0).unwrap()).collect();
        assert!(names.len() > 32, "64 draws gave only {} names", names.len());
        for attempt in [0, 1, 2, 40] {
            let name = Name::random(attempt).unwrap();
            assert_eq!(name.as_str().parse::<Name>().unwrap(), name);
            assert_eq!(name.as_str().ends_with(|c: char| c.is_ascii_digit()), attempt > 0);
        }
    }

    #[test]
    fn every_word_is_usable_and_there_once() {
        for words in [MANNERS, BIRDS] {
            let unique: std::collections::BTreeSet<_> = words.iter().collect();
            assert_eq!(unique.len(), words.len());
            assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase())));
        }
    }

    #[test]
    fn only_names_that_are_safe_as_files_parse() {
        for good in ["web", "web-1", "a.b_c-D9", "/web"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good.trim_start_matches('/'));
        }
        let long = "a".repeat(201);
        for bad in ["", "a", ".", "..", "-a", "_a", "a/b", "//a", "a b", "ä1", "a\n", &long] {
            assert!(bad.parse::<Name>().is_err(), "accepted {bad:?}");
        }
    }
}

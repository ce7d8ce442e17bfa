//! `--ulimit`.

use std::str::FromStr;

use sandbox::Resource;
use serde::{Deserialize, Serialize};

/// A resource limit: `nofile=1024:2048`, `core=0`, `memlock=-1:-1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// The resource, by its name.
    pub resource: String,
    /// What applies; `None` is no limit.
    pub soft: Option<u64>,
    /// How far the process may raise it; `None` is no limit.
    pub hard: Option<u64>,
}

impl FromStr for Ulimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (resource, values) =
            text.split_once('=').ok_or_else(|| format!("\"{text}\" is not NAME=SOFT[:HARD]"))?;
        if !Resource::ALL.iter().any(|known| known.name() == resource) {
            let names: Vec<_> = Resource::ALL.iter().map(|known| known.name()).collect();
            return Err(format!("no resource \"{resource}\"; there are {}", names.join(", ")));
        }
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let limit = Self { resource: resource.to_owned(), soft: value(soft)?, hard: value(hard)? };
        let (soft, hard) = (limit.soft.unwrap_or(u64::MAX), limit.hard.unwrap_or(u64::MAX));
        if soft > hard {
            return Err(format!("the soft limit {soft} is above the hard limit {hard}"));
        }
        Ok(limit)
    }
}

fn value(text: &str) -> Result<Option<u64>, String> {
    match text {
        "-1" | "unlimited" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| format!("\"{text}\" is not a number, or -1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_is_both() {
        for (text, soft, hard) in [
            ("nofile=1024", Some(1024), Some(1024)),
            ("nofile=10:20", Some(10), Some(20)),
            ("memlock=-1:-1", None, None),
            ("core=0:unlimited", Some(0), None),
        ] {
            let limit: Ulimit = text.parse().unwrap();
            assert_eq!((limit.soft, limit.hard), (soft, hard), "for {text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "nofile", "nofile=", "files=1", "nofile=2:1", "nofile=-1:5", "nofile=1:2:3"]
        {
            assert!(text.parse::<Ulimit>().is_err(), "accepted {text:?}");
        }
    }
}

//! `--filter` of `rrun ps`, with docker's keys.

use std::mem::discriminant;
use std::path::Path;
use std::str::FromStr;

use crate::engine;
use crate::engine::containers::{Container, Containers};
use crate::engine::health::Health;
use crate::engine::options::MountRequest;
use crate::engine::state::Status;
use crate::engine::timestamp::Timestamp;

/// The states that a filter may name: docker's, also those no container of
/// ours is ever in.
const STATES: [&str; 7] =
    ["created", "restarting", "running", "removing", "paused", "exited", "dead"];

/// What a filter may ask of health checks; `none` is a container without.
const HEALTHS: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

/// One `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Id(String),
    Name(String),
    Label { key: String, value: Option<String> },
    Status(String),
    Exited(i32),
    Ancestor(String),
    Before(String),
    Since(String),
    Network(String),
    Volume(String),
    Health(String),
}

/// What is known of a container for filtering it.
pub(super) struct Candidate<'c> {
    pub(super) container: &'c Container,
    pub(super) status: &'c Status,
    /// Docker's word for its state.
    pub(super) state: &'static str,
}

/// A filter whose container, if it names one, has been looked up.
pub(super) struct Test {
    filter: Filter,
    moment: Option<Timestamp>,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) =
            text.split_once('=').ok_or_else(|| format!("\"{text}\" is not KEY=VALUE"))?;
        let value = value.to_owned();
        Ok(match key {
            "id" => Self::Id(value),
            "name" => Self::Name(value),
            "label" => match value.split_once('=') {
                Some((key, value)) => {
                    Self::Label { key: key.to_owned(), value: Some(value.to_owned()) }
                }
                None => Self::Label { key: value, value: None },
            },
            "status" if STATES.contains(&value.as_str()) => Self::Status(value),
            "status" => {
                return Err(format!("no status \"{value}\"; there are {}", STATES.join(", ")));
            }
            "exited" => {
                Self::Exited(value.parse().map_err(|_| format!("\"{value}\" is not an exit code"))?)
            }
            "ancestor" => Self::Ancestor(value),
            "before" => Self::Before(value),
            "since" => Self::Since(value),
            "network" => Self::Network(value),
            "volume" => Self::Volume(value),
            "health" if HEALTHS.contains(&value.as_str()) => Self::Health(value),
            "health" => {
                return Err(format!("no health \"{value}\"; there are {}", HEALTHS.join(", ")));
            }
            _ => {
                return Err(format!(
                    "no filter \"{key}\"; there are id, name, label, status, exited, ancestor, before, since, network, volume, health"
                ));
            }
        })
    }
}

impl Filter {
    /// Tells whether it asks for containers that do not run, too.
    pub(super) fn is_about_all(&self) -> bool {
        matches!(self, Self::Status(_))
    }

    /// Looks up the container it names.
    pub(super) fn prepare(&self, containers: &Containers) -> engine::Result<Test> {
        let moment = match self {
            Self::Before(other) | Self::Since(other) => {
                Some(containers.find(other)?.config.created)
            }
            _ => None,
        };
        Ok(Test { filter: self.clone(), moment })
    }
}

/// Tells whether a container passes: every label, and of each other key at
/// least one.
pub(super) fn passes(tests: &[Test], candidate: &Candidate<'_>) -> bool {
    tests.iter().all(|test| match test.filter {
        Filter::Label { .. } => test.accepts(candidate),
        _ => tests
            .iter()
            .filter(|other| discriminant(&other.filter) == discriminant(&test.filter))
            .any(|other| other.accepts(candidate)),
    })
}

impl Test {
    fn accepts(&self, candidate: &Candidate<'_>) -> bool {
        let config = &candidate.container.config;
        match &self.filter {
            Filter::Id(text) => config.id.as_str().starts_with(text),
            Filter::Name(pattern) => is_like(config.name.as_str(), pattern),
            Filter::Label { key, value } => config
                .labels
                .get(key)
                .is_some_and(|found| value.as_ref().is_none_or(|value| value == found)),
            Filter::Status(state) => candidate.state == state,
            Filter::Exited(code) => {
                matches!(candidate.status, Status::Exited(_, exit) if exit.code == *code)
            }
            Filter::Ancestor(image) => is_made_from(candidate.container, image),
            Filter::Before(_) => self.moment.is_some_and(|moment| config.created < moment),
            Filter::Since(_) => self.moment.is_some_and(|moment| config.created > moment),
            // The name of a volume, or a place inside.
            Filter::Volume(text) => config.mounts.iter().any(|mount| {
                let is_named =
                    matches!(mount, MountRequest::Named(volume) if volume.name.as_str() == text);
                is_named || mount.target() == Path::new(text)
            }),
            Filter::Health(word) => {
                // One that is just being removed has none.
                let health = Health::of(candidate.container, candidate.status).ok().flatten();
                health.map_or("none", |health| health.status.word()) == word
            }
            Filter::Network(network) => config.network.to_string() == *network,
        }
    }
}

/// Tells whether a name has `pattern` in it; `^` and `$` are its ends, as in
/// docker's regular expressions, of which this is what scripts use.
fn is_like(name: &str, pattern: &str) -> bool {
    let (from_start, pattern) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (to_end, pattern) = match pattern.strip_suffix('$') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    // Docker's names begin with a slash.
    let pattern = pattern.strip_prefix("/?").or(pattern.strip_prefix('/')).unwrap_or(pattern);
    match (from_start, to_end) {
        (true, true) => name == pattern,
        (true, false) => name.starts_with(pattern),
        (false, true) => name.ends_with(pattern),
        (false, false) => name.contains(pattern),
    }
}

fn is_made_from(container: &Container, image: &str) -> bool {
    let identity = &container.config.image;
    let id = identity.id.to_string();
    let hex = id.split_once(':').map_or(id.as_str(), |(_, hex)| hex);
    // Shorter beginnings of an id would be names.
    let is_id = image == id || image.len() >= 12 && hex.starts_with(image);
    let name = |text: &str| text.strip_suffix(":latest").unwrap_or(text).to_owned();
    is_id || name(&identity.reference) == name(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_keys_and_values() {
        for (text, expected) in [
            ("name=web", Ok(Filter::Name("web".to_owned()))),
            ("exited=3", Ok(Filter::Exited(3))),
            ("label=a", Ok(Filter::Label { key: "a".to_owned(), value: None })),
            (
                "label=a=b=c",
                Ok(Filter::Label { key: "a".to_owned(), value: Some("b=c".to_owned()) }),
            ),
            ("exited=x", Err("\"x\" is not an exit code".to_owned())),
            ("name", Err("\"name\" is not KEY=VALUE".to_owned())),
        ] {
            assert_eq!(text.parse::<Filter>(), expected);
        }
        for (text, words) in [
            ("colour=red", "no filter \"colour\""),
            ("status=up", "no status \"up\""),
            ("health=good", "no health \"good\""),
        ] {
            assert!(text.parse::<Filter>().unwrap_err().starts_with(words), "{text}");
        }
    }

    #[test]
    fn names_are_matched_in_part_or_at_their_ends() {
        for (pattern, expected) in [
            ("eb", true),
            ("", true),
            ("^web", true),
            ("^eb", false),
            ("-1$", true),
            ("web$", false),
            ("^/?web-1$", true),
            ("^/web-1$", true),
            ("^web$", false),
        ] {
            assert_eq!(is_like("web-1", pattern), expected, "{pattern}");
        }
    }
}

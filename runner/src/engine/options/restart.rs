//! `--restart`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// When a container that has ended is started again: `no`, `on-failure[:n]`,
/// `always` or `unless-stopped`.
///
/// The last two differ for docker when the machine starts. Here nothing is
/// started then, and they are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it has ended with another code than 0, at most so many times.
    OnFailure(Option<u32>),
    /// Whenever it has ended by itself.
    Always,
    /// The same.
    UnlessStopped,
}

impl RestartPolicy {
    /// Returns docker's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure(_) => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        }
    }

    /// Returns how often it starts a container again at most; 0 is no limit.
    pub fn limit(self) -> u32 {
        match self {
            Self::OnFailure(limit) => limit.unwrap_or(0),
            Self::No | Self::Always | Self::UnlessStopped => 0,
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = String;

    /// Understands what docker does, and objects in its words.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, limit) = match text.split_once(':') {
            Some((name, limit)) => (name, Some(limit)),
            None => (text, None),
        };
        let limit = match limit.map(|limit| (limit, limit.parse::<i64>())) {
            None => None,
            Some((_, Ok(limit))) if limit < 0 => {
                return Err(
                    "invalid restart policy: maximum retry count cannot be negative".to_owned()
                );
            }
            Some((_, Ok(limit))) => {
                Some(u32::try_from(limit).map_err(|_| format!("{limit} retries are too many"))?)
            }
            Some((limit, Err(_))) => {
                return Err(format!(
                    "invalid restart policy format: maximum retry count must be an integer, not \"{limit}\""
                ));
            }
        };
        match (name, limit.filter(|&limit| limit > 0)) {
            ("on-failure", limit) => Ok(Self::OnFailure(limit)),
            ("no" | "always" | "unless-stopped", Some(_)) => Err(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'"
                    .to_owned(),
            ),
            ("" | "no", None) => Ok(Self::No),
            ("always", None) => Ok(Self::Always),
            ("unless-stopped", None) => Ok(Self::UnlessStopped),
            _ => Err(format!(
                "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )),
        }
    }
}

impl TryFrom<String> for RestartPolicy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit() {
            0 => formatter.write_str(self.name()),
            limit => write!(formatter, "{}:{limit}", self.name()),
        }
    }
}

impl From<RestartPolicy> for String {
    fn from(policy: RestartPolicy) -> Self {
        policy.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_dockers() {
        for (text, expected, shown) in [
            ("", RestartPolicy::No, "no"),
            ("no", RestartPolicy::No, "no"),
            ("always", RestartPolicy::Always, "always"),
            ("always:0", RestartPolicy::Always, "always"),
            ("unless-stopped", RestartPolicy::UnlessStopped, "unless-stopped"),
            ("on-failure", RestartPolicy::OnFailure(None), "on-failure"),
            ("on-failure:0", RestartPolicy::OnFailure(None), "on-failure"),
            ("on-failure:3", RestartPolicy::OnFailure(Some(3)), "on-failure:3"),
        ] {
            let policy: RestartPolicy = text.parse().unwrap();
            assert_eq!((policy, policy.to_string().as_str()), (expected, shown), "{text}");
        }
        for (text, words) in [
            ("sometimes", "unknown policy 'sometimes'"),
            ("on-failure:x", "must be an integer, not \"x\""),
            ("on-failure:1:2", "must be an integer, not \"1:2\""),
            ("on-failure:-1", "cannot be negative"),
            ("on-failure:4294967296", "too many"),
            ("always:3", "only be used with 'on-failure'"),
        ] {
            let error = text.parse::<RestartPolicy>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}

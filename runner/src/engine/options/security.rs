//! Options that choose from a closed set: capabilities, `--security-opt`,
//! `--pull`.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A capability by its name without `CAP_`, or `ALL`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capability(String);

impl Capability {
    /// Returns the name in capitals, without `CAP_`; `ALL` for all of them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Capability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" || sandbox::CAPABILITIES.contains(&name) {
            Ok(Self(name.to_owned()))
        } else {
            Err(format!("\"{text}\" is not a capability such as NET_ADMIN, or ALL"))
        }
    }
}

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompChoice {
    /// The built-in profile, moby's.
    #[default]
    Default,
    /// All of them.
    Unconfined,
    /// Those of a profile in moby's JSON form.
    File(PathBuf),
}

/// One `--security-opt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecurityOption {
    /// Whether set-user-id programs and file capabilities stay without effect.
    NoNewPrivileges(bool),
    /// The system call filter.
    Seccomp(SeccompChoice),
    /// Asks for no confinement by a security module, which is what we do.
    NoModule,
}

impl FromStr for SecurityOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => Ok(Self::NoNewPrivileges(true)),
            ("no-new-privileges", "false") => Ok(Self::NoNewPrivileges(false)),
            ("seccomp", "unconfined") => Ok(Self::Seccomp(SeccompChoice::Unconfined)),
            ("seccomp", "builtin") => Ok(Self::Seccomp(SeccompChoice::Default)),
            ("seccomp", path) if !path.is_empty() => {
                Ok(Self::Seccomp(SeccompChoice::File(PathBuf::from(path))))
            }
            ("apparmor", "unconfined") | ("label", "disable") => Ok(Self::NoModule),
            _ => Err(format!(
                "\"{text}\" is not known; there are no-new-privileges, seccomp=unconfined and seccomp=FILE"
            )),
        }
    }
}

/// When to ask the registry for an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// When it is not in the local store.
    #[default]
    Missing,
    /// Each time, for what is new under the tag.
    Always,
    /// Not at all.
    Never,
}

impl FromStr for PullPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "missing" => Ok(Self::Missing),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(format!("\"{text}\" is not one of missing, always, never")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_optional_prefix_and_any_case() {
        for text in ["NET_ADMIN", "CAP_NET_ADMIN", "net_admin", "cap_net_admin"] {
            assert_eq!(text.parse::<Capability>().unwrap().as_str(), "NET_ADMIN");
        }
        assert_eq!("all".parse::<Capability>().unwrap().as_str(), "ALL");
        for text in ["", "CAP_", "CAP_CAP_CHOWN", "ROOT"] {
            assert!(text.parse::<Capability>().is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn security_options_take_both_separators() {
        for (text, expected) in [
            ("no-new-privileges", SecurityOption::NoNewPrivileges(true)),
            ("no-new-privileges:true", SecurityOption::NoNewPrivileges(true)),
            ("no-new-privileges=false", SecurityOption::NoNewPrivileges(false)),
            ("seccomp=unconfined", SecurityOption::Seccomp(SeccompChoice::Unconfined)),
            ("seccomp:unconfined", SecurityOption::Seccomp(SeccompChoice::Unconfined)),
            ("seccomp=/a=b", SecurityOption::Seccomp(SeccompChoice::File("/a=b".into()))),
            ("apparmor=unconfined", SecurityOption::NoModule),
        ] {
            assert_eq!(text.parse(), Ok(expected), "for {text}");
        }
        for text in ["", "seccomp", "seccomp=", "no-new-privileges=maybe", "apparmor=x", "x=y"] {
            assert!(text.parse::<SecurityOption>().is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn closed_sets_refuse_other_words() {
        assert_eq!("always".parse(), Ok(PullPolicy::Always));
        assert!("Always".parse::<PullPolicy>().is_err());
    }
}

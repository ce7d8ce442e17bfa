//! What metadata instructions do to the image config, in BuildKit's way.

use oci::{ImageConfig, Json, Platform, RuntimeConfig};

use crate::dockerfile::Healthcheck;

/// Where commands are looked for when an image does not say.
pub(crate) const DEFAULT_PATH: &str =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Fields of configs made by old versions of docker that describe the build of *that*
/// image, not this one.
const STALE_FIELDS: [&str; 5] = ["container", "container_config", "docker_version", "id", "parent"];

/// Returns the config that `FROM scratch` starts with.
pub(super) fn scratch(platform: &Platform) -> ImageConfig {
    let mut image = ImageConfig::new(platform.clone());
    image.config.working_dir = Some("/".to_owned());
    image.config.env.push(DEFAULT_PATH.to_owned());
    image
}

/// Returns the config that a stage starts with over a base image, and the base's triggers.
pub(super) fn inherited(base: &ImageConfig) -> (ImageConfig, Vec<String>) {
    let mut image = base.clone();
    for field in STALE_FIELDS {
        image.extra.remove(field);
    }
    image.created = None;
    let has_path = image.config.env.iter().any(|entry| entry.starts_with("PATH="));
    if !has_path {
        image.config.env.push(DEFAULT_PATH.to_owned());
    }
    let triggers = std::mem::take(&mut image.config.on_build);
    (image, triggers)
}

/// Sets a variable in the config.
pub(super) fn set_env(config: &mut RuntimeConfig, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    let position = config
        .env
        .iter()
        .position(|old| old.split_once('=').map_or(old.as_str(), |(name, _)| name) == name);
    match position {
        Some(position) => config.env[position] = entry,
        None => config.env.push(entry),
    }
}

/// Returns the command that runs shell forms.
pub(super) fn shell(config: &RuntimeConfig) -> Vec<String> {
    match &config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
    }
}

/// Returns a healthcheck as docker's extension of the config has it: zero means "inherit".
pub(super) fn healthcheck(check: &Healthcheck) -> Option<Json> {
    let mut fields = serde_json::Map::new();
    if !check.test.is_empty() {
        fields.insert("Test".to_owned(), check.test.clone().into());
    }
    let Healthcheck { test: _, interval, timeout, start_period, start_interval, retries } = check;
    for (name, duration) in [
        ("Interval", interval),
        ("Timeout", timeout),
        ("StartPeriod", start_period),
        ("StartInterval", start_interval),
    ] {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if nanoseconds > 0 {
            fields.insert(name.to_owned(), nanoseconds.into());
        }
    }
    if *retries > 0 {
        fields.insert("Retries".to_owned(), (*retries).into());
    }
    Json::encode(&serde_json::Value::Object(fields)).ok()
}

/// Joins an absolute or relative path to a directory of the image and cleans it.
pub(crate) fn join(directory: &str, path: &str) -> String {
    let full = std::path::Path::new(directory).join(path);
    let normal = crate::tree::normalize(&full);
    format!("/{}", normal.display())
}

/// Returns the number or name of a signal if it is one, as `kill -l` and docker know them.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u32>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = |prefix: &str, sign: char, most: u32| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix(sign)
                    .and_then(|number| number.parse::<u32>().ok())
                    .is_some_and(|number| number <= most)
        })
    };
    matches!(name, "IOT" | "CLD" | "POLL" | "UNUSED")
        || realtime("RTMIN", '+', 15)
        || realtime("RTMAX", '-', 14)
        || format!("SIG{name}").parse::<nix::sys::signal::Signal>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_names_or_numbers() {
        for good in ["SIGTERM", "term", "9", "SIGRTMIN+3", "RTMAX-1", "sigkill", "64"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["", "0", "65", "SIGFOO", "RTMIN+16", "a", "-1"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }

    #[test]
    fn a_variable_keeps_its_place_when_it_is_set_again() {
        let mut config = RuntimeConfig {
            env: vec!["A=1".into(), "AB=2".into(), "C".into()],
            ..RuntimeConfig::default()
        };
        set_env(&mut config, "AB", "x=y");
        set_env(&mut config, "C", "3");
        set_env(&mut config, "D", "");
        assert_eq!(config.env, ["A=1", "AB=x=y", "C=3", "D="]);
    }

    #[test]
    fn paths_join_as_in_a_shell_but_stay_below_the_root() {
        let table = [
            ("/", "a", "/a"),
            ("/a", "b/../c", "/a/c"),
            ("/a", "/b/", "/b"),
            ("/a", "../../..", "/"),
            ("/", ".", "/"),
        ];
        for (directory, path, expected) in table {
            assert_eq!(join(directory, path), expected, "{directory} {path}");
        }
    }
}

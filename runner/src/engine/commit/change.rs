//! `--change`: an instruction of Dockerfiles that changes an image's settings.

use std::str::FromStr;

use oci::RuntimeConfig;

use super::words::split;
use crate::engine::options::{ContainerPort, Signal, inside};

/// The instructions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instruction {
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Label,
    StopSignal,
    User,
    Volume,
    Workdir,
}

/// One change of an image's settings, such as `ENV DEBUG=1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    instruction: Instruction,
    text: String,
}

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let instruction = match word.to_ascii_uppercase().as_str() {
            "CMD" => Instruction::Cmd,
            "ENTRYPOINT" => Instruction::Entrypoint,
            "ENV" => Instruction::Env,
            "EXPOSE" => Instruction::Expose,
            "LABEL" => Instruction::Label,
            "STOPSIGNAL" => Instruction::StopSignal,
            "USER" => Instruction::User,
            "VOLUME" => Instruction::Volume,
            "WORKDIR" => Instruction::Workdir,
            _ => {
                return Err(format!(
                    "\"{word}\" is not a change of an image; there are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR"
                ));
            }
        };
        if rest.trim().is_empty() {
            return Err(format!("{word} needs a value"));
        }
        Ok(Self { instruction, text: rest.trim().to_owned() })
    }
}

/// Makes changes, in order.
///
/// # Errors
///
/// A sentence saying which change cannot be made, and why.
pub fn apply(changes: &[Change], config: &mut RuntimeConfig) -> Result<(), String> {
    let mut has_cmd = false;
    for change in changes {
        change
            .apply(config, has_cmd)
            .map_err(|reason| format!("cannot make the change \"{}\": {reason}", change.text))?;
        has_cmd |= change.instruction == Instruction::Cmd;
    }
    Ok(())
}

impl Change {
    fn apply(&self, config: &mut RuntimeConfig, has_cmd: bool) -> Result<(), String> {
        match self.instruction {
            Instruction::Cmd => config.cmd = Some(self.command(config)),
            Instruction::Entrypoint => {
                config.entrypoint = Some(self.command(config));
                // A command was meant for the entrypoint before.
                if !has_cmd {
                    config.cmd = None;
                }
            }
            Instruction::Env => {
                for (key, value) in self.pairs(config)? {
                    set_variable(&mut config.env, &key, &value);
                }
            }
            Instruction::Label => config.labels.extend(self.pairs(config)?),
            Instruction::Expose => {
                for word in self.words(config)? {
                    let port: ContainerPort = word.parse()?;
                    config.exposed_ports.insert(port.to_string());
                }
            }
            Instruction::StopSignal => {
                let signal = self.one(config)?;
                signal.parse::<Signal>()?;
                config.stop_signal = Some(signal);
            }
            Instruction::User => config.user = Some(self.one(config)?),
            Instruction::Volume => {
                let paths = match list(&self.text) {
                    Some(paths) => paths,
                    None => self.words(config)?,
                };
                for path in paths {
                    config.volumes.insert(inside(&path)?.to_string_lossy().into_owned());
                }
            }
            Instruction::Workdir => {
                let path = self.one(config)?;
                let current = config.working_dir.as_deref().unwrap_or("/");
                config.working_dir = Some(match path.starts_with('/') {
                    true => path,
                    false => format!("{}/{path}", current.trim_end_matches('/')),
                });
            }
        }
        Ok(())
    }

    /// Returns the words of a list, or a line for the shell.
    fn command(&self, config: &RuntimeConfig) -> Vec<String> {
        list(&self.text).unwrap_or_else(|| {
            let usual = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
            let mut words = config.shell.clone().unwrap_or_else(usual);
            words.push(self.text.clone());
            words
        })
    }

    fn words(&self, config: &RuntimeConfig) -> Result<Vec<String>, String> {
        let lookup = |name: &str| {
            let of =
                |entry: &String| entry.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
            config.env.iter().find_map(of)
        };
        split(&self.text, &lookup)
    }

    fn one(&self, config: &RuntimeConfig) -> Result<String, String> {
        match <[String; 1]>::try_from(self.words(config)?) {
            Ok([word]) if !word.is_empty() => Ok(word),
            _ => Err("it is not one word".to_owned()),
        }
    }

    /// Returns `KEY=value …`, or the old form `KEY value`.
    fn pairs(&self, config: &RuntimeConfig) -> Result<Vec<(String, String)>, String> {
        let words = self.words(config)?;
        let pair = |word: &String| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(format!("\"{word}\" is not KEY=VALUE")),
        };
        match words.split_first() {
            Some((key, rest)) if !key.contains('=') && !rest.is_empty() => {
                Ok(vec![(key.clone(), rest.join(" "))])
            }
            _ => words.iter().map(pair).collect(),
        }
    }
}

/// Returns the words of a JSON list of strings.
fn list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

fn set_variable(env: &mut Vec<String>, key: &str, value: &str) {
    let entry = format!("{key}={value}");
    let is_it = |old: &&mut String| old.split_once('=').is_some_and(|(name, _)| name == key);
    match env.iter_mut().find(is_it) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<RuntimeConfig, String> {
        let mut config = RuntimeConfig {
            env: vec!["PATH=/bin".to_owned()],
            cmd: Some(vec!["old".to_owned()]),
            working_dir: Some("/srv".to_owned()),
            ..RuntimeConfig::default()
        };
        let changes: Vec<Change> = changes.iter().map(|it| it.parse().unwrap()).collect();
        apply(&changes, &mut config).map(|()| config)
    }

    #[test]
    fn every_instruction_changes_its_setting() {
        let config = changed(&[
            "env PATH=/x:$PATH NEW=\"a b\"",
            "ENV OLD the old form",
            "LABEL a=1 b='2 3'",
            "EXPOSE 80 53/udp",
            "USER app:app",
            "VOLUME [\"/a b\", \"/c\"]",
            "VOLUME /d /e",
            "WORKDIR app",
            "STOPSIGNAL SIGQUIT",
            "CMD [\"serve\", \"-v\"]",
        ])
        .unwrap();
        assert_eq!(config.env, ["PATH=/x:/bin", "NEW=a b", "OLD=the old form"]);
        let labels: Vec<_> = config.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(labels, ["a=1", "b=2 3"]);
        assert_eq!(config.exposed_ports.into_iter().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.user.as_deref(), Some("app:app"));
        let volumes: Vec<_> = config.volumes.into_iter().collect();
        assert_eq!(volumes, ["/a b", "/c", "/d", "/e"]);
        assert_eq!(config.working_dir.as_deref(), Some("/srv/app"));
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
        assert_eq!(config.cmd.unwrap(), ["serve", "-v"]);
    }

    #[test]
    fn an_entrypoint_takes_the_command_away_unless_there_is_a_new_one() {
        let config = changed(&["ENTRYPOINT exec serve $X"]).unwrap();
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "exec serve $X"]);
        assert_eq!(config.cmd, None);
        let config = changed(&["CMD [\"-v\"]", "ENTRYPOINT [\"serve\"]"]).unwrap();
        assert_eq!(config.cmd.unwrap(), ["-v"]);
    }

    #[test]
    fn what_cannot_be_changed_is_refused_with_a_reason() {
        for (text, words) in [
            ("RUN true", "\"RUN\" is not a change of an image; there are CMD"),
            ("", "\"\" is not a change"),
            ("ENV", "ENV needs a value"),
        ] {
            assert!(text.parse::<Change>().unwrap_err().starts_with(words), "{text}");
        }
        for (text, words) in [
            ("ENV lonely", "\"lonely\" is not KEY=VALUE"),
            ("LABEL a='b", "a ' has no end"),
            ("EXPOSE http", "is not a port"),
            ("VOLUME relative", "not an absolute path"),
            ("USER a b", "it is not one word"),
            ("STOPSIGNAL SIGNOTHING", "SIGNOTHING"),
        ] {
            let error = changed(&[text]).unwrap_err();
            assert!(
                error.starts_with("cannot make the change") && error.contains(words),
                "{error}"
            );
        }
    }
}

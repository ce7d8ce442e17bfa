//! Instructions that change the image's configuration, and WORKDIR.

use super::{Applied, Applying};
use crate::dockerfile::{Code, CommandLine, KeyValue, expose, quote::quote_list};
use crate::plan::config;
use crate::plan::graph::{Action, Workdir};

impl Applying<'_, '_> {
    pub(super) fn env(&mut self, pairs: &[KeyValue]) -> Applied {
        let pairs = self.pairs(pairs)?;
        let mut line = "ENV".to_owned();
        for (name, value) in &pairs {
            config::set_env(&mut self.stage.image.config, name, value);
            self.stage.scope.variables.set(name, value);
            line.push_str(&format!(" {name}={value}"));
        }
        self.stage.metadata(line);
        Ok(())
    }

    pub(super) fn label(&mut self, pairs: &[KeyValue]) -> Applied {
        let mut line = "LABEL".to_owned();
        for (name, value) in self.pairs(pairs)? {
            line.push_str(&format!(" {name}={value}"));
            self.stage.image.config.labels.insert(name, value);
        }
        self.stage.metadata(line);
        Ok(())
    }

    /// Expands all pairs in the environment before the instruction.
    fn pairs(&self, pairs: &[KeyValue]) -> Applied<Vec<(String, String)>> {
        pairs
            .iter()
            .map(|KeyValue { key, value }| Ok((self.expand(key)?, self.expand(value)?)))
            .collect()
    }

    pub(super) fn cmd(&mut self, command: &CommandLine) -> Applied {
        let config = &mut self.stage.image.config;
        let args = command.to_args(&config::shell(config));
        let line = format!("CMD {}", quote_list(&args));
        config.cmd = Some(args);
        config.args_escaped = Some(true);
        self.stage.has_cmd = true;
        self.stage.metadata(line);
        Ok(())
    }

    pub(super) fn entrypoint(&mut self, command: &CommandLine) -> Applied {
        let has_cmd = self.stage.has_cmd;
        let config = &mut self.stage.image.config;
        let args = command.to_args(&config::shell(config));
        let line = format!("ENTRYPOINT {}", quote_list(&args));
        config.entrypoint = Some(args);
        if !has_cmd {
            config.cmd = None;
        }
        self.stage.metadata(line);
        Ok(())
    }

    pub(super) fn expose(&mut self, words: &[String]) -> Applied {
        // As in BuildKit: sorted as written, expanded in that order.
        let mut sorted = words.to_vec();
        sorted.sort_unstable();
        let words = self.expand_all(&sorted)?;
        let ports = expose::ports(&words)
            .map_err(|reason| self.problem(Code::BadArguments, reason.to_string()))?;
        self.stage.metadata(format!("EXPOSE [{}]", ports.join(" ")));
        self.stage.image.config.exposed_ports.extend(ports);
        Ok(())
    }

    pub(super) fn volume(&mut self, words: &[String]) -> Applied {
        let mut paths = Vec::new();
        for word in words {
            let path = self.expand(word)?;
            if path.is_empty() {
                return Err(
                    self.problem(Code::BadArguments, "VOLUME specified can not be an empty string")
                );
            }
            paths.push(path);
        }
        self.stage.metadata(format!("VOLUME [{}]", paths.join(" ")));
        self.stage.image.config.volumes.extend(paths);
        Ok(())
    }

    pub(super) fn user(&mut self, user: &str) -> Applied {
        let user = self.expand(user)?;
        self.stage.metadata(format!("USER {user}"));
        self.stage.image.config.user = (!user.is_empty()).then_some(user);
        Ok(())
    }

    pub(super) fn stop_signal(&mut self, signal: &str) -> Applied {
        let signal = self.expand(signal)?;
        if !config::is_signal(&signal) {
            return Err(self.problem(Code::BadArguments, format!("invalid signal: {signal}")));
        }
        self.stage.metadata(format!("STOPSIGNAL {signal}"));
        self.stage.image.config.stop_signal = Some(signal);
        Ok(())
    }

    pub(super) fn workdir(&mut self, path: &str) -> Applied {
        let text = self.display();
        let path = config::join(self.stage.cwd(), &self.expand(path)?);
        let line = format!("WORKDIR {path}");
        self.stage.image.config.working_dir = Some(path.clone());
        if path == "/" {
            // The root is there; no layer says so.
            self.stage.metadata(line);
            return Ok(());
        }
        let user = self.stage.image.config.user.clone().unwrap_or_default();
        self.step(Action::Workdir(Workdir { path, user }), text, line);
        Ok(())
    }
}

//! What each instruction does to a stage.

use super::config;
use super::graph::{Action, Copy, CopySource, Origin, Run, RunMount, Step, Workdir};
use super::outline::origin;
use super::problem::error;
use super::stage::Progress;
use crate::copy::Chmod;
use crate::dockerfile::expand::{ExpandError, Expander};
use crate::dockerfile::{
    AddInstruction, Code, CommandLine, CopyInstruction, Diagnostic, Files, Instruction, KeyValue,
    Kind, MountKind, MountText, RunInstruction, RunSecurity, Script, Source, expose,
    quote::quote_list,
};

/// One instruction on its way into the stage.
struct Applying<'a, 'b> {
    stage: &'a mut Progress<'b>,
    instruction: &'a Instruction,
    is_trigger: bool,
}

type Applied<T = ()> = Result<T, Diagnostic>;

/// Applies an instruction; `is_trigger` says that it came from a base image's ONBUILD.
///
/// # Errors
/// Returns the problem, pointing at the instruction.
pub(super) fn apply(
    stage: &mut Progress<'_>,
    instruction: &Instruction,
    is_trigger: bool,
) -> Applied {
    let mut applying = Applying { stage, instruction, is_trigger };
    match &instruction.kind {
        Kind::Add(add) => applying.add(add),
        Kind::Copy(copy) => applying.copy(copy),
        Kind::Run(run) => applying.run(run),
        Kind::Workdir(path) => applying.workdir(path),
        Kind::Arg(declarations) => {
            let Progress { scope, globals, .. } = &mut *applying.stage;
            let line = scope.declare(declarations, globals);
            let line = line.map_err(|reason| applying.unexpanded(&reason))?;
            applying.stage.metadata(line);
            Ok(())
        }
        Kind::Env(pairs) => applying.env(pairs),
        Kind::Label(pairs) => applying.label(pairs),
        Kind::Cmd(command) => applying.cmd(command),
        Kind::Entrypoint(command) => applying.entrypoint(command),
        Kind::Expose(words) => applying.expose(words),
        Kind::Volume(words) => applying.volume(words),
        Kind::User(user) => applying.user(user),
        Kind::Shell(words) => {
            applying.stage.image.config.shell = Some(words.clone());
            applying.stage.metadata(format!("SHELL [{}]", words.join(" ")));
            Ok(())
        }
        Kind::StopSignal(signal) => applying.stop_signal(signal),
        Kind::Healthcheck(check) => {
            applying.stage.image.config.healthcheck = config::healthcheck(check);
            applying.stage.metadata(format!("HEALTHCHECK {}", quote_list(&check.test)));
            Ok(())
        }
        Kind::Maintainer(author) => {
            applying.stage.image.author = Some(author.clone());
            applying.stage.metadata(format!("MAINTAINER {author}"));
            Ok(())
        }
        Kind::Onbuild(onbuild) => {
            applying.stage.image.config.on_build.push(onbuild.expression.clone());
            Ok(())
        }
    }
}

impl Applying<'_, '_> {
    fn problem(&self, code: Code, message: impl Into<String>) -> Diagnostic {
        error(code, self.instruction.span(), message)
    }

    fn unsupported(&self, what: &str) -> Diagnostic {
        self.problem(Code::NotSupported, format!("{what} is not supported yet"))
    }

    fn unexpanded(&self, reason: &ExpandError) -> Diagnostic {
        self.problem(Code::BadExpansion, reason.to_string())
    }

    fn expand(&self, text: &str) -> Applied<String> {
        let expanded = self.stage.scope.expand(self.stage.globals.expander, text);
        expanded.map_err(|reason| self.unexpanded(&reason))
    }

    fn expand_all(&self, words: &[String]) -> Applied<Vec<String>> {
        let mut expanded = Vec::new();
        for word in words {
            let words = self.stage.scope.expand_words(self.stage.globals.expander, word);
            expanded.extend(words.map_err(|reason| self.unexpanded(&reason))?);
        }
        Ok(expanded)
    }

    /// Returns the instruction as progress shows it: variables in it have their values.
    fn display(&self) -> String {
        let expander = Expander::for_display(self.stage.file.escape);
        let text = self.instruction.text();
        self.stage.scope.expand(expander, text).unwrap_or_else(|_| text.to_owned())
    }

    fn step(&mut self, action: Action, text: String, created_by: String) {
        let span = (!self.is_trigger).then(|| self.instruction.span());
        self.stage.step(Step { action, text, span }, created_by);
    }

    fn env(&mut self, pairs: &[KeyValue]) -> Applied {
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

    fn label(&mut self, pairs: &[KeyValue]) -> Applied {
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

    fn cmd(&mut self, command: &CommandLine) -> Applied {
        let config = &mut self.stage.image.config;
        let args = command.to_args(&config::shell(config));
        let line = format!("CMD {}", quote_list(&args));
        config.cmd = Some(args);
        config.args_escaped = Some(true);
        self.stage.has_cmd = true;
        self.stage.metadata(line);
        Ok(())
    }

    fn entrypoint(&mut self, command: &CommandLine) -> Applied {
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

    fn expose(&mut self, words: &[String]) -> Applied {
        let words = self.expand_all(words)?;
        let ports = expose::ports(&words)
            .map_err(|reason| self.problem(Code::BadArguments, reason.to_string()))?;
        self.stage.metadata(format!("EXPOSE [{}]", ports.join(" ")));
        self.stage.image.config.exposed_ports.extend(ports);
        Ok(())
    }

    fn volume(&mut self, words: &[String]) -> Applied {
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

    fn user(&mut self, user: &str) -> Applied {
        let user = self.expand(user)?;
        self.stage.metadata(format!("USER {user}"));
        self.stage.image.config.user = (!user.is_empty()).then_some(user);
        Ok(())
    }

    fn stop_signal(&mut self, signal: &str) -> Applied {
        let signal = self.expand(signal)?;
        if !config::is_signal(&signal) {
            return Err(self.problem(Code::BadArguments, format!("invalid signal: {signal}")));
        }
        self.stage.metadata(format!("STOPSIGNAL {signal}"));
        self.stage.image.config.stop_signal = Some(signal);
        Ok(())
    }

    fn workdir(&mut self, path: &str) -> Applied {
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

    fn run(&mut self, run: &RunInstruction) -> Applied {
        let RunInstruction { script, mounts, network, security, devices } = run;
        if *security == RunSecurity::Insecure {
            return Err(self.unsupported("RUN --security=insecure"));
        }
        if !devices.is_empty() {
            return Err(self.unsupported("RUN --device"));
        }
        let text = self.display();
        let args = script.to_args(&config::shell(&self.stage.image.config));
        let mut found = Vec::new();
        for mount in mounts {
            found.push(self.mount(mount)?);
        }
        let mut env = self.stage.scope.variables.to_env();
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.push(config::DEFAULT_PATH.to_owned());
        }
        let created_by = format!("{} # buildkit", self.stage.scope.run_line(&args));
        let script = match script {
            Script::File { name, content } => Some((name.clone(), content.clone())),
            Script::Shell(_) | Script::Exec(_) => None,
        };
        let run = Run {
            args,
            env,
            hidden_env: self.stage.globals.proxies(),
            cwd: self.stage.cwd().to_owned(),
            user: self.stage.image.config.user.clone().unwrap_or_default(),
            script,
            mounts: found,
            network: *network,
            security: *security,
        };
        self.step(Action::Run(run), text, created_by);
        Ok(())
    }

    fn mount(&self, text: &MountText) -> Applied<RunMount> {
        let lookup = |name: &str| self.stage.scope.variables.get(name).map(str::to_owned);
        let mount = text
            .resolve(self.stage.file.escape, &lookup)
            .map_err(|reason| self.problem(Code::BadMount, reason.to_string()))?;
        let kind = match &mount.kind {
            MountKind::Tmpfs { .. } => "tmpfs",
            MountKind::Cache { from: None, .. } => "cache",
            MountKind::Cache { from: Some(_), .. } => {
                return Err(self.unsupported("RUN --mount=type=cache,from="));
            }
            MountKind::Bind { .. } => return Err(self.unsupported("RUN --mount=type=bind")),
            MountKind::Secret { .. } => return Err(self.unsupported("RUN --mount=type=secret")),
            MountKind::Ssh { .. } => return Err(self.unsupported("RUN --mount=type=ssh")),
        };
        let Some(target) = &mount.target else {
            return Err(self.problem(Code::BadMount, format!("a {kind} mount needs a target")));
        };
        let target = config::join(self.stage.cwd(), target);
        if target == "/" {
            return Err(self.problem(Code::BadMount, "invalid mount target \"/\""));
        }
        Ok(RunMount { target, read_only: mount.read_only, kind: mount.kind, origin: None })
    }

    fn copy(&mut self, copy: &CopyInstruction) -> Applied {
        let origin = match &copy.from {
            Some(from) => origin(self.stage.file, self.stage.index, from, self.instruction.span())?,
            None => Origin::Context,
        };
        self.files(&copy.files, origin, copy.parents, None)
    }

    fn add(&mut self, add: &AddInstruction) -> Applied {
        let AddInstruction { files, checksum, unpack, keep_git_dir } = add;
        if checksum.is_some() {
            return Err(self.unsupported("ADD --checksum"));
        }
        if keep_git_dir.is_some() {
            return Err(self.unsupported("ADD --keep-git-dir"));
        }
        self.files(files, Origin::Context, false, Some(unpack.unwrap_or(true)))
    }

    /// What COPY and ADD share; `unpack` is given for ADD.
    fn files(
        &mut self,
        files: &Files,
        origin: Origin,
        parents: bool,
        unpack: Option<bool>,
    ) -> Applied {
        let text = self.display();
        let keyword = if unpack.is_some() { "ADD" } else { "COPY" };
        let mut line = keyword.to_owned();
        let chown = files.chown.as_deref().map(|text| self.expand(text)).transpose()?;
        let chmod = files.chmod.as_deref().map(|text| self.expand(text)).transpose()?;
        for (flag, value) in [("chown", &chown), ("chmod", &chmod)] {
            if let Some(value) = value {
                line.push_str(&format!(" --{flag}={value}"));
            }
        }
        let chmod = chmod.filter(|text| !text.is_empty());
        let chmod = chmod
            .map(|text| Chmod::parse(&text))
            .transpose()
            .map_err(|reason| self.problem(Code::BadFlag, reason.to_string()))?;
        if files.link {
            line.push_str(" --link");
        }
        let mut sources = Vec::new();
        for source in &files.sources {
            let source = self.source(source, keyword)?;
            match &source {
                CopySource::Path(path) => line.push_str(&format!(" {path}")),
                CopySource::Inline { name, .. } => line.push_str(&format!(" <<{name}")),
            }
            sources.push(source);
        }
        let destination = self.expand(&files.destination)?;
        line.push_str(&format!(" {destination} # buildkit"));
        let mut target = config::join(self.stage.cwd(), &destination);
        let is_directory = matches!(destination.as_str(), "" | ".")
            || destination.ends_with('/')
            || destination.ends_with("/.");
        if is_directory && target != "/" {
            target.push('/');
        }
        let copy = Copy {
            is_add: unpack.is_some(),
            origin,
            sources,
            destination: target,
            chown: chown.filter(|text| !text.is_empty()),
            chmod,
            link: files.link,
            parents,
            exclude: files.exclude.clone(),
            unpack: unpack.unwrap_or(false),
        };
        self.step(Action::Copy(copy), text, line);
        Ok(())
    }

    fn source(&self, source: &Source, keyword: &str) -> Applied<CopySource> {
        match source {
            Source::Path(path) => {
                let path = self.expand(path)?;
                if is_remote(&path) {
                    return Err(if keyword == "COPY" {
                        self.problem(Code::BadArguments, "source can't be a URL for COPY")
                    } else {
                        self.unsupported("ADD from a URL or git repository")
                    });
                }
                Ok(CopySource::Path(path))
            }
            Source::Inline { name, content, expand } => {
                let content = if *expand {
                    let expanded = self.stage.scope.expand(Expander::heredoc(), content);
                    expanded.map_err(|reason| self.unexpanded(&reason))?
                } else {
                    content.clone()
                };
                Ok(CopySource::Inline { name: name.clone(), content })
            }
        }
    }
}

/// Returns whether a source is fetched rather than copied.
fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "git@", "ssh://"]
        .iter()
        .any(|prefix| source.starts_with(prefix))
}

//! RUN: the command, its environment and its mounts.

use super::{Applied, Applying};
use crate::dockerfile::{Code, MountKind, MountText, RunInstruction, RunSecurity, Script};
use crate::plan::config;
use crate::plan::graph::{Action, Run, RunMount};

impl Applying<'_, '_> {
    pub(super) fn run(&mut self, run: &RunInstruction) -> Applied {
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
}

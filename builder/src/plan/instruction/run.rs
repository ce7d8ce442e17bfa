//! RUN: the command, its environment and its mounts.

use super::{Applied, Applying};
use crate::dockerfile::{
    Code, MountKind, MountText, RunInstruction, RunNetwork, RunSecurity, Script,
};
use crate::plan::config;
use crate::plan::graph::{Action, Origin, Run, RunMount};
use crate::plan::outline::origin;
use crate::plan::stage::Progress;

/// The variable by which programs find the SSH agent.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";
/// An image without files, as `from` names it.
const SCRATCH: &str = "scratch";

impl Applying<'_, '_> {
    pub(super) fn run(&mut self, run: &RunInstruction) -> Applied {
        let RunInstruction { script, mounts, network, security, devices } = run;
        let network = self.allowed(*network, *security)?;
        if !devices.is_empty() {
            return Err(self.unsupported("RUN --device (CDI)"));
        }
        let text = self.display();
        let args = script.to_args(&config::shell(&self.stage.image.config));
        let mut found: Vec<RunMount> = Vec::new();
        for mount in mounts {
            let sockets = found.iter().filter(|mount| is_ssh(mount)).count();
            found.push(self.mount(mount, sockets)?);
        }
        let env = self.run_env(&found);
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
            network,
            security: *security,
        };
        self.step(Action::Run(run), text, created_by);
        Ok(())
    }

    /// Refuses what the build does not allow; returns the network of the RUN.
    fn allowed(&self, network: RunNetwork, security: RunSecurity) -> Applied<RunNetwork> {
        let policy = self.stage.globals.run;
        let refused = |what: &str| {
            let message = format!("{what} is not allowed (`--allow {what}` permits it)");
            self.problem(Code::NotAllowed, message)
        };
        if security == RunSecurity::Insecure && !policy.allow_insecure {
            return Err(refused("security.insecure"));
        }
        if network == RunNetwork::Host && !policy.allow_host_network {
            return Err(refused("network.host"));
        }
        Ok(if network == RunNetwork::Default { policy.network } else { network })
    }

    fn run_env(&self, mounts: &[RunMount]) -> Vec<String> {
        let mut env = self.stage.scope.variables.to_env();
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.push(config::DEFAULT_PATH.to_owned());
        }
        let socket = mounts.iter().find(|mount| is_ssh(mount));
        if let Some(RunMount { target: Some(target), .. }) = socket
            && self.stage.scope.variables.get(AGENT_VARIABLE).is_none()
        {
            env.push(format!("{AGENT_VARIABLE}={target}"));
        }
        env
    }

    /// Resolves a `--mount`; `sockets` is the number of agents mounted before it.
    fn mount(&self, text: &MountText, sockets: usize) -> Applied<RunMount> {
        let lookup = |name: &str| self.stage.scope.variables.get(name).map(str::to_owned);
        let mount = text
            .resolve(self.stage.file.escape, &lookup)
            .map_err(|reason| self.problem(Code::BadMount, reason.to_string()))?;
        let mut kind = mount.kind;
        let target = match (&kind, mount.target) {
            (_, Some(target)) => Some(config::join(self.stage.cwd(), &target)),
            (MountKind::Secret { .. }, None) => None,
            (MountKind::Ssh { .. }, None) => Some(format!("/run/buildkit/ssh_agent.{sockets}")),
            (MountKind::Bind { .. } | MountKind::Cache { .. } | MountKind::Tmpfs { .. }, None) => {
                Some(self.stage.cwd().to_owned())
            }
        };
        if target.as_deref() == Some("/") {
            return Err(self.problem(Code::BadMount, "invalid mount target \"/\""));
        }
        let from = match &kind {
            MountKind::Bind { from: None, .. } => None,
            MountKind::Bind { from, .. } | MountKind::Cache { from, .. } => from.clone(),
            MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => None,
        };
        let mut origin = match from.as_deref() {
            None | Some(SCRATCH) => None,
            Some(from) => Some(self.mount_origin(from)?),
        };
        match &mut kind {
            MountKind::Bind { from: None, .. } => origin = Some(Origin::Context),
            // Nothing is in there, and what is written is thrown away.
            MountKind::Bind { .. } if origin.is_none() => {
                kind = MountKind::Tmpfs { size_bytes: None };
            }
            MountKind::Cache { id, .. } => {
                if let Some(namespace) = self.stage.globals.cache_namespace() {
                    *id = format!("{namespace}/{id}");
                }
            }
            _ => {}
        }
        Ok(RunMount { target, read_only: mount.read_only, kind, origin })
    }

    fn mount_origin(&self, from: &str) -> Applied<Origin> {
        let Progress { file, options, index, .. } = &*self.stage;
        origin(file, &options.contexts, *index, from, self.instruction.span())
    }
}

fn is_ssh(mount: &RunMount) -> bool {
    matches!(mount.kind, MountKind::Ssh { .. })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::dockerfile::{self, RunNetwork};
    use crate::plan::{self, Action, Options, Planned, Run, RunPolicy};

    fn plan(lines: &str, options: &Options) -> Result<Run, String> {
        let text = format!("FROM scratch AS one\nFROM scratch\nWORKDIR /w\n{lines}\n");
        let (file, diagnostics) = dockerfile::parse(&text);
        assert!(!dockerfile::has_errors(&diagnostics), "{diagnostics:?}");
        let planned = plan::plan(&file, options, &BTreeMap::new());
        match planned.map_err(|problems| problems.0[0].to_string())? {
            Planned::Ready(plan) => {
                match plan.stages[&1].steps.last().map(|step| step.action.clone()) {
                    Some(Action::Run(run)) => Ok(run),
                    other => panic!("{other:?}"),
                }
            }
            other @ Planned::NeedsImages(_) => panic!("{other:?}"),
        }
    }

    fn targets(lines: &str) -> Vec<Option<String>> {
        let run = plan(lines, &Options::default()).unwrap();
        run.mounts.into_iter().map(|mount| mount.target).collect()
    }

    #[test]
    fn targets_are_absolute_and_have_the_usual_places() {
        let some = |path: &str| Some(path.to_owned());
        for (lines, expected) in [
            ("RUN --mount=target=/m true", some("/m")),
            ("RUN --mount=target=m/../n true", some("/w/n")),
            ("RUN --mount=source=a true", some("/w")),
            ("RUN --mount=type=cache true", some("/w")),
            ("RUN --mount=type=tmpfs true", some("/w")),
            ("RUN --mount=type=secret,id=a/b true", some("/run/secrets/b")),
            ("RUN --mount=type=secret,id=a,env=A true", None),
            ("RUN --mount=type=secret,id=a,env=A,target=k true", some("/w/k")),
            ("ARG t=/there\nRUN --mount=type=tmpfs,target=$t/x true", some("/there/x")),
        ] {
            assert_eq!(targets(lines), [expected], "{lines}");
        }
        let ssh = "--mount=type=ssh --mount=type=ssh,id=b,target=/s --mount=type=ssh,id=c";
        let expected = ["/run/buildkit/ssh_agent.0", "/s", "/run/buildkit/ssh_agent.2"];
        assert_eq!(targets(&format!("RUN {ssh} true")), expected.map(some));
        for lines in [
            "RUN --mount=target=/ true",
            "RUN --mount=target=.. true",
            "RUN --mount=target=/a/.. true",
        ] {
            let error = plan(lines, &Options::default()).unwrap_err();
            assert!(error.contains("invalid mount target \"/\""), "{error}");
        }
    }

    #[test]
    fn the_first_agent_is_announced_unless_the_file_says_another() {
        let env = |lines: &str| plan(lines, &Options::default()).unwrap().env;
        let ssh = "RUN --mount=type=ssh --mount=type=ssh,id=b true";
        let announced = "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0".to_owned();
        assert!(env(ssh).contains(&announced));
        let own = env(&format!("ENV SSH_AUTH_SOCK=/mine\n{ssh}"));
        assert!(own.contains(&"SSH_AUTH_SOCK=/mine".to_owned()) && !own.contains(&announced));
        assert!(!env("RUN true").iter().any(|entry| entry.starts_with("SSH_AUTH_SOCK")));
    }

    /// CVE-2024-23653: what a build has to permit is checked where it is decided what runs.
    #[test]
    fn what_is_not_allowed_is_no_plan() {
        let with = |run: RunPolicy| Options { run, ..Options::default() };
        let none = with(RunPolicy::default());
        for lines in ["RUN --security=insecure true", "RUN --network=host true"] {
            let error = plan(lines, &none).unwrap_err();
            assert!(error.contains("is not allowed"), "{error}");
        }
        let host = with(RunPolicy { allow_host_network: true, ..RunPolicy::default() });
        assert!(plan("RUN --security=insecure true", &host).is_err());
        assert_eq!(plan("RUN --network=host true", &host).unwrap().network, RunNetwork::Host);
        let cut_off = with(RunPolicy { network: RunNetwork::None, ..RunPolicy::default() });
        assert_eq!(plan("RUN true", &cut_off).unwrap().network, RunNetwork::None);
        assert_eq!(plan("RUN --network=default true", &cut_off).unwrap().network, RunNetwork::None);
        assert!(plan("RUN --network=host true", &cut_off).is_err());
    }
}

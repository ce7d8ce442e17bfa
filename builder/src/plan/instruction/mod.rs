//! What each instruction does to a stage.

mod files;
mod metadata;
mod run;

use super::config;
use super::graph::{Action, Step};
use super::problem::error;
use super::stage::Progress;
use crate::dockerfile::expand::{ExpandError, Expander};
use crate::dockerfile::{Code, Diagnostic, Instruction, Kind};

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
            applying.stage.metadata(format!("HEALTHCHECK {check}"));
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
}

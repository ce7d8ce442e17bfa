//! Which variables an instruction sees: the rules of ARG and ENV.
//!
//! There are two environments. The *global* one has the ARGs before the first FROM and
//! the platform's; FROM lines see it. The one of a *stage* starts with what the base has,
//! ENV and ARG add to it in the order of the file, and RUN runs in it. ENV also goes into
//! the image config, ARG does not: so an ARG after an ENV of the same name replaces it for
//! the rest of the build and leaves the image alone.

use std::cell::Cell;
use std::collections::BTreeMap;

use oci::Platform;

use super::policy::RunPolicy;
use crate::dockerfile::expand::{ExpandError, Expander};
use crate::dockerfile::suggest::nearest;
use crate::dockerfile::{ArgDeclaration, Dockerfile};

/// Build arguments that reach every RUN without ARG, and no key, history or config.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Variables in the order in which they were first set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Variables(Vec<(String, String)>);

impl Variables {
    /// Reads the `NAME=value` strings of an image config.
    pub(super) fn of_config(env: &[String]) -> Self {
        let mut variables = Self::default();
        for entry in env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            variables.set(name, value);
        }
        variables
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(found, _)| found == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Returns the variables as `NAME=value`.
    pub(super) fn to_env(&self) -> Vec<String> {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// What is the same for all stages.
#[derive(Clone, Debug)]
pub(super) struct Globals {
    /// What FROM lines see.
    pub(super) variables: Variables,
    /// `--build-arg`.
    build_args: BTreeMap<String, String>,
    /// The expander of the file.
    pub(super) expander: Expander,
    /// What RUN may do.
    pub(super) run: RunPolicy,
    /// How many bytes the plan takes so far.
    spent: Cell<usize>,
}

impl Globals {
    /// Evaluates the ARGs before the first FROM, each seeing those before it.
    ///
    /// `platforms` are what is built on and what is built for.
    ///
    /// # Errors
    /// Returns the index of the instruction in [`Dockerfile::globals`] that cannot be expanded.
    pub(super) fn new(
        file: &Dockerfile,
        build_args: &BTreeMap<String, String>,
        platforms: (&Platform, &Platform),
        target: Option<&str>,
        run: RunPolicy,
    ) -> Result<Self, (usize, ExpandError)> {
        let mut globals = Self {
            variables: platform_variables(platforms, target, build_args),
            build_args: build_args.clone(),
            expander: Expander::new(file.escape),
            run,
            spent: Cell::new(0),
        };
        for (index, instruction) in file.globals.iter().enumerate() {
            let crate::dockerfile::Kind::Arg(declarations) = &instruction.kind else { continue };
            for ArgDeclaration { name, default } in declarations {
                let value = match (build_args.get(name), default) {
                    (Some(given), _) => given.clone(),
                    (None, Some(default)) => {
                        globals.expand(default).map_err(|error| (index, error))?
                    }
                    (None, None) => continue,
                };
                globals.variables.set(name, &value);
            }
        }
        Ok(globals)
    }

    /// Expands a word of a FROM line.
    ///
    /// # Errors
    /// Fails as the expander does.
    pub(super) fn expand(&self, text: &str) -> Result<String, ExpandError> {
        let lookup = |name: &str| self.variables.get(name).map(str::to_owned);
        Ok(self.expander.word(text, &lookup)?.text)
    }

    /// Counts bytes of the plan; returns whether there is room for them.
    ///
    /// Values multiply: a file of a megabyte can ask for a terabyte of environment.
    pub(super) fn spend(&self, bytes: usize) -> bool {
        /// Plans of people's files take some hundred kilobytes.
        const MOST: usize = 64 << 20;
        let spent = self.spent.get().saturating_add(bytes);
        self.spent.set(spent);
        spent <= MOST
    }

    /// Returns the variable that is nearest to one that `text` uses and nothing sets.
    pub(super) fn nearest_unset(&self, text: &str) -> Option<String> {
        let lookup = |name: &str| self.variables.get(name).map(str::to_owned);
        let unset = self.expander.word(text, &lookup).ok()?.unset;
        let near = |name: &String| nearest(name, self.variables.names()).map(str::to_owned);
        unset.iter().find_map(near)
    }

    /// Returns what cache mounts are kept apart by, as with BuildKit.
    pub(super) fn cache_namespace(&self) -> Option<&str> {
        let given = self.build_args.get("BUILDKIT_CACHE_MOUNT_NS").map(String::as_str);
        given.filter(|namespace| !namespace.is_empty())
    }

    /// Returns the proxies that were given, in both spellings, for the processes of RUN.
    pub(super) fn proxies(&self) -> Vec<String> {
        let mut env = Vec::new();
        for proxy in PROXIES {
            let lower = proxy.to_ascii_lowercase();
            let given = self.build_args.get(proxy).or_else(|| self.build_args.get(&lower));
            if let Some(value) = given {
                env.extend([format!("{proxy}={value}"), format!("{lower}={value}")]);
            }
        }
        env
    }
}

/// Returns whether a build argument has a meaning without being declared.
pub(super) fn is_predefined(name: &str) -> bool {
    let is_platform = ["BUILD", "TARGET"].iter().any(|prefix| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            matches!(rest, "PLATFORM" | "OS" | "OSVERSION" | "ARCH" | "VARIANT" | "STAGE")
        })
    });
    is_platform
        || PROXIES.contains(&name.to_ascii_uppercase().as_str())
        || name.starts_with("BUILDKIT_")
        || name == "SOURCE_DATE_EPOCH"
}

pub(super) fn platform_variables(
    (build, target_platform): (&Platform, &Platform),
    target: Option<&str>,
    build_args: &BTreeMap<String, String>,
) -> Variables {
    let mut variables = Variables::default();
    for (prefix, platform) in [("BUILD", build), ("TARGET", target_platform)] {
        for (name, value) in [
            ("PLATFORM", platform.to_string()),
            ("OS", platform.os.clone()),
            ("OSVERSION", platform.os_version.clone().unwrap_or_default()),
            ("ARCH", platform.architecture.clone()),
            ("VARIANT", platform.variant.clone().unwrap_or_default()),
        ] {
            variables.set(&format!("{prefix}{name}"), &value);
        }
    }
    variables.set("TARGETSTAGE", target.unwrap_or("default"));
    let names: Vec<String> = variables.names().map(str::to_owned).collect();
    for name in names {
        if let Some(given) = build_args.get(&name) {
            variables.set(&name, given);
        }
    }
    variables
}

/// The variables of one stage as its instructions go by.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// ENV and ARG together: what expansion and RUN see.
    pub(super) variables: Variables,
    /// Every ARG so far, for the history of RUN, in the order of declaration.
    arguments: Vec<(String, Option<String>)>,
}

impl Scope {
    /// Starts with the environment of a base image.
    pub(super) fn new(env: &[String]) -> Self {
        Self { variables: Variables::of_config(env), arguments: Vec::new() }
    }

    /// Sets the variables of an image config again, over ARGs that hid them: a stage that
    /// starts from another sees its image's environment.
    pub(super) fn inherit(&mut self, env: &[String]) {
        for (name, value) in Variables::of_config(env).0 {
            self.variables.set(&name, &value);
        }
    }

    /// Expands one word.
    ///
    /// # Errors
    /// Fails as the expander does.
    pub(super) fn expand(&self, expander: Expander, text: &str) -> Result<String, ExpandError> {
        let lookup = |name: &str| self.variables.get(name).map(str::to_owned);
        Ok(expander.word(text, &lookup)?.text)
    }

    /// Expands a text that may become several words.
    ///
    /// # Errors
    /// Fails as the expander does.
    pub(super) fn expand_words(
        &self,
        expander: Expander,
        text: &str,
    ) -> Result<Vec<String>, ExpandError> {
        let lookup = |name: &str| self.variables.get(name).map(str::to_owned);
        expander.words(text, &lookup)
    }

    /// Applies an ARG and returns its line in the history.
    ///
    /// # Errors
    /// Fails when a default cannot be expanded.
    pub(super) fn declare(
        &mut self,
        declarations: &[ArgDeclaration],
        globals: &Globals,
    ) -> Result<String, ExpandError> {
        let mut line = "ARG".to_owned();
        // Unlike ENV, each name of one ARG sees those before it.
        for ArgDeclaration { name, default } in declarations {
            let value = match (globals.build_args.get(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(globals.expander, default)?),
                (None, None) => globals.variables.get(name).map(str::to_owned),
            };
            line.push(' ');
            line.push_str(name);
            if let Some(value) = &value {
                line.push('=');
                line.push_str(value);
                self.variables.set(name, value);
            }
            self.arguments.push((name.clone(), value));
        }
        Ok(line)
    }

    /// Returns a RUN's line in the history: `RUN |1 version=2 /bin/sh -c make`.
    pub(super) fn run_line(&self, args: &[String]) -> String {
        let mut shown: Vec<(&str, &str)> = Vec::new();
        for (name, value) in &self.arguments {
            let value = self.variables.get(name).or(value.as_deref()).unwrap_or_default();
            match shown.iter_mut().find(|(found, _)| found == name) {
                Some((_, old)) => *old = value,
                None => shown.push((name, value)),
            }
        }
        let mut words = vec!["RUN".to_owned()];
        if !shown.is_empty() {
            words.push(format!("|{}", shown.len()));
            words.extend(shown.iter().map(|(name, value)| format!("{name}={value}")));
        }
        words.extend(args.iter().cloned());
        words.join(" ")
    }
}

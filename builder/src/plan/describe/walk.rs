//! The way through the stages: which are needed, and what each offers.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::{Argument, Mounted, described, location, unexpanded};
use crate::dockerfile::expand::Expander;
use crate::dockerfile::{
    ArgDeclaration, Code, Diagnostic, Dockerfile, Instruction, KeyValue, Kind, MountKind, Node,
    RunInstruction,
};
use crate::plan::graph::Options;
use crate::plan::outline::find_stage;
use crate::plan::problem::error;
use crate::plan::scope::platform_variables;

/// How much is kept of a file's values; people's files have some kilobytes of them.
const MAX_BYTES: usize = 32 << 20;

/// Variables and their values.
pub(super) type Environment = BTreeMap<String, String>;

/// A global ARG: its last definition.
struct Global<'a> {
    node: &'a Node,
    value: String,
    needs: BTreeSet<String>,
}

/// What the ARGs before the first FROM say.
pub(super) struct Globals<'a> {
    expander: Expander,
    build_args: &'a BTreeMap<String, String>,
    /// How many bytes of values may still be kept.
    left: Cell<usize>,
    variables: BTreeMap<String, String>,
    declared: BTreeMap<String, Global<'a>>,
}

impl<'a> Globals<'a> {
    pub(super) fn new(file: &'a Dockerfile, options: &'a Options) -> Result<Self, Diagnostic> {
        let last = file.stages.last().and_then(|stage| stage.name());
        let target = options.target.as_deref().or(last);
        let predefined = platform_variables(
            (&options.build_platform, &options.platform),
            target,
            &options.build_args,
        );
        let mut globals = Self {
            expander: Expander::new(file.escape),
            build_args: &options.build_args,
            left: Cell::new(MAX_BYTES),
            variables: predefined
                .names()
                .map(|name| (name.to_owned(), predefined.get(name).unwrap_or_default().to_owned()))
                .collect(),
            declared: BTreeMap::new(),
        };
        for Instruction { node, kind } in &file.globals {
            let Kind::Arg(declarations) = kind else { continue };
            for ArgDeclaration { name, default } in declarations {
                let mut global = Global { node, value: String::new(), needs: BTreeSet::new() };
                let value = match (globals.build_args.get(name), default) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => {
                        let variables = &globals.variables;
                        let expanded = globals
                            .expander
                            .word(default, &|name| variables.get(name).cloned())
                            .map_err(|reason| unexpanded(node.span, &reason))?;
                        global.needs = expanded.used;
                        if global.needs.remove(name)
                            && let Some(before) = globals.declared.get(name)
                        {
                            global.needs.extend(before.needs.iter().cloned());
                        }
                        Some(expanded.text)
                    }
                    (None, None) => None,
                };
                if let Some(value) = value {
                    globals.variables.insert(name.clone(), value.clone());
                    global.value = value;
                }
                globals.declared.insert(name.clone(), global);
            }
        }
        Ok(globals)
    }

    /// Expands a word of a FROM line; what cannot be expanded is left as it is.
    fn from(&self, text: &str) -> (String, BTreeSet<String>) {
        let expanded = self.expander.word(text, &|name| self.variables.get(name).cloned());
        expanded.map_or_else(|_| (text.to_owned(), BTreeSet::new()), |e| (e.text, e.used))
    }
}

/// What one stage offers.
#[derive(Default)]
pub(super) struct Offer {
    pub(super) args: Vec<Argument>,
    pub(super) secrets: Vec<Mounted>,
    pub(super) ssh: Vec<Mounted>,
}

/// Returns a stage and all it needs, its base first, each once.
pub(super) fn needed(file: &Dockerfile, target: usize, globals: &Globals<'_>) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    let mut waiting = vec![target];
    while let Some(index) = waiting.pop() {
        if !seen.insert(index) {
            continue;
        }
        order.push(index);
        let stage = &file.stages[index];
        let named = |name: &str| {
            let number = name.parse().ok().filter(|number| *number < index);
            find_stage(file, &name.to_lowercase(), index).or(number)
        };
        let mut needs = Vec::new();
        for instruction in &stage.instructions {
            match &instruction.kind {
                Kind::Copy(copy) => needs.extend(copy.from.as_deref().and_then(named)),
                Kind::Run(run) => needs.extend(run.mounts.iter().filter_map(|mount| {
                    match mount.resolve(file.escape, &|_| None).ok()?.kind {
                        MountKind::Bind { from, .. } | MountKind::Cache { from, .. } => {
                            named(&from?)
                        }
                        _ => None,
                    }
                })),
                _ => {}
            }
        }
        waiting.extend(needs.into_iter().rev());
        waiting.extend(find_stage(file, &globals.from(&stage.from.base).0.to_lowercase(), index));
    }
    order
}

/// Goes through one stage; returns its environment and what it offers.
pub(super) fn walk(
    file: &Dockerfile,
    index: usize,
    globals: &Globals<'_>,
    environments: &BTreeMap<usize, Environment>,
    images: &dyn Fn(&str) -> Option<Vec<String>>,
) -> Result<(Environment, Offer), Diagnostic> {
    let stage = &file.stages[index];
    let (base, mut used) = globals.from(&stage.from.base);
    if let Some(platform) = &stage.from.platform {
        used.extend(globals.from(platform).1);
    }
    let parent = find_stage(file, &base.to_lowercase(), index);
    let env: Environment = match parent.and_then(|parent| environments.get(&parent)) {
        Some(env) => env.clone(),
        None => images(&base)
            .unwrap_or_default()
            .iter()
            .map(|entry| entry.split_once('=').unwrap_or((entry, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    };
    let mut walk = Walk {
        escape: file.escape,
        globals,
        variables: env.clone(),
        env,
        used,
        own: BTreeMap::new(),
        offer: Offer::default(),
    };
    for Instruction { node, kind } in &stage.instructions {
        match kind {
            Kind::Arg(declarations) => walk.arg(node, declarations)?,
            Kind::Env(pairs) => walk.set(node, pairs)?,
            Kind::Run(run) => walk.run(node, run),
            _ => {}
        }
    }
    walk.offer.args = walk.arguments();
    Ok((walk.env, walk.offer))
}

/// A stage while its instructions go by.
struct Walk<'a> {
    escape: char,
    globals: &'a Globals<'a>,
    /// ENV and ARG together.
    variables: Environment,
    /// ENV alone: what a stage hands on.
    env: Environment,
    /// The arguments that the stage names.
    used: BTreeSet<String>,
    /// Those of them that it declares itself, with their values.
    own: BTreeMap<String, (&'a Node, String)>,
    offer: Offer,
}

impl<'a> Walk<'a> {
    fn expand(&self, node: &Node, text: &str) -> Result<String, Diagnostic> {
        let lookup = |name: &str| self.variables.get(name).cloned();
        let expanded = self.globals.expander.word(text, &lookup);
        let text = expanded.map_err(|reason| unexpanded(node.span, &reason))?.text;
        let left = self.globals.left.get().checked_sub(text.len()).ok_or_else(|| {
            let message = "with all values in place this file is too large";
            error(Code::TooLarge, node.span, message)
        })?;
        self.globals.left.set(left);
        Ok(text)
    }

    fn arg(&mut self, node: &'a Node, declarations: &[ArgDeclaration]) -> Result<(), Diagnostic> {
        for ArgDeclaration { name, default } in declarations {
            self.used.insert(name.clone());
            let given = self.globals.build_args.get(name);
            let is_inherited = given.is_none() && default.is_none();
            let value = match (given, default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(node, default)?),
                (None, None) => self.globals.variables.get(name).cloned(),
            };
            if let Some(value) = &value {
                self.variables.insert(name.clone(), value.clone());
            }
            // An argument of the whole file is shown where it is declared.
            if !(is_inherited && value.is_some()) {
                self.own.insert(name.clone(), (node, value.unwrap_or_default()));
            }
        }
        Ok(())
    }

    fn set(&mut self, node: &Node, pairs: &[KeyValue]) -> Result<(), Diagnostic> {
        let pair =
            |pair: &KeyValue| Ok((self.expand(node, &pair.key)?, self.expand(node, &pair.value)?));
        let pairs: Vec<(String, String)> = pairs.iter().map(pair).collect::<Result<_, _>>()?;
        for (name, value) in pairs {
            self.variables.insert(name.clone(), value.clone());
            self.env.insert(name, value);
        }
        Ok(())
    }

    fn run(&mut self, node: &Node, run: &RunInstruction) {
        let lookup = |name: &str| self.variables.get(name).cloned();
        for mount in &run.mounts {
            let Ok(mount) = mount.resolve(self.escape, &lookup) else { continue };
            let (list, name, required) = match mount.kind {
                MountKind::Secret { id, required, .. } => (&mut self.offer.secrets, id, required),
                MountKind::Ssh { id, required, .. } => (&mut self.offer.ssh, id, required),
                MountKind::Bind { .. } | MountKind::Cache { .. } | MountKind::Tmpfs { .. } => {
                    continue;
                }
            };
            if list.iter().all(|known: &Mounted| known.name != name) {
                let location = location(node.span);
                list.push(Mounted { name, required, location, line: node.span.line });
            }
        }
    }

    /// Returns the arguments that the stage uses: its own, and those of the file with what
    /// they need.
    fn arguments(&self) -> Vec<Argument> {
        let mut seen = BTreeSet::new();
        let mut waiting: Vec<&String> = self.used.iter().collect();
        let mut arguments = Vec::new();
        while let Some(name) = waiting.pop() {
            if !seen.insert(name) {
                continue;
            }
            let (node, value) = if let Some((node, value)) = self.own.get(name) {
                (*node, value)
            } else if let Some(global) = self.globals.declared.get(name) {
                waiting.extend(&global.needs);
                (global.node, &global.value)
            } else {
                continue;
            };
            arguments.push(Argument {
                name: name.clone(),
                description: described(node, name),
                value: value.clone(),
                location: location(node.span),
                line: node.span.line,
            });
        }
        arguments
    }
}

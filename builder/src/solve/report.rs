//! What a build did with each of its steps, kept for `rbuild explain` and for the next build.

use std::collections::BTreeSet;
use std::path::PathBuf;

use oci::Digest;
use serde::{Deserialize, Serialize};

use super::last::Builds;
use crate::key::Parts;
use crate::plan;

/// More changes of one step than this are counted and not listed.
const MAX_CHANGES: usize = 200;

/// A value longer than this is cut where it is shown.
const MAX_VALUE_CHARS: usize = 60;

/// Parts of names whose values are nobody's business, as in BuildKit's rule about secrets.
const SECRETS: [&str; 8] =
    ["apikey", "auth", "credential", "key", "password", "pword", "secret", "token"];

/// What one build did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// What its stages started from.
    pub bases: Vec<From>,
    /// Its steps, in the order of the file.
    pub steps: Vec<Known>,
}

/// What a stage started from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct From {
    /// The stage, by its index in the file.
    pub stage: usize,
    /// `[build 1/3] FROM alpine`
    pub name: String,
    /// The manifest that the name stood for.
    pub digest: Digest,
    /// What it stood for in the build before, if that was something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Digest>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its stage, by its index in the file.
    pub stage: usize,
    /// Its index in the stage.
    pub step: usize,
    /// `[build 2/3] RUN make`
    pub name: String,
    /// The instruction.
    pub text: String,
    /// Its key, by which its log is kept.
    pub key: Digest,
    /// What the key consists of.
    pub parts: Parts,
    /// What was done with it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What was done with a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Its result was known.
    Reused,
    /// It was executed.
    Ran {
        /// Why.
        changes: Vec<Change>,
        /// For how long.
        ms: u64,
    },
    /// It was executed, and failed or was stopped.
    Failed {
        /// Why it was executed.
        changes: Vec<Change>,
    },
    /// The build ended before; what is known is from a build before that.
    NotReached,
}

/// One reason why a step was executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// Nothing of this was built before.
    FirstBuild,
    /// The user asked for it.
    NoCache,
    /// The build before had no such instruction.
    NewInstruction,
    /// The instruction reads differently.
    Instruction {
        /// What it was.
        before: String,
        /// What it is.
        now: String,
    },
    /// Something that the instruction does not say itself: a directory, a user, a limit.
    Setting {
        /// What.
        name: String,
        /// What it was.
        before: Option<String>,
        /// What it is.
        now: Option<String>,
    },
    /// A variable that it sees.
    Variable {
        /// Its name.
        name: String,
        /// What it was; `None` where it was not set.
        before: Option<String>,
        /// What it is.
        now: Option<String>,
    },
    /// A file that it copies.
    File {
        /// The file.
        path: PathBuf,
        /// `changed`, `added` or `removed`.
        how: String,
    },
    /// There are more.
    More {
        /// How many.
        count: usize,
    },
    /// What it builds on has other files.
    Base,
    /// Nothing: it failed, or was stopped, when it ran the last time.
    FailedBefore,
    /// Nothing: its result is no longer in the store.
    ResultGone,
}

impl Last {
    /// Returns the step of an earlier build that a step corresponds to: the nearest with the same
    /// instruction, or the one in its place if that instruction is gone.
    pub(super) fn before(&self, stage: &plan::Stage, step: usize) -> Option<&Known> {
        let text = &stage.steps[step].text;
        let own = || self.steps.iter().filter(|known| known.stage == stage.index);
        let same = own().filter(|known| known.text == *text);
        same.min_by_key(|known| known.step.abs_diff(step)).or_else(|| {
            let is_gone = |known: &&Known| stage.steps.iter().all(|step| step.text != known.text);
            own().filter(|known| known.step == step).find(is_gone)
        })
    }

    /// Returns what the stages start from, compared with the build before.
    pub(super) fn bases<'a>(
        &self,
        stages: impl Iterator<Item = (&'a plan::Stage, String, Digest)>,
    ) -> Vec<From> {
        stages
            .map(|(stage, name, digest)| {
                let known = self.bases.iter().find(|base| base.stage == stage.index);
                let before = known.map(|known| known.digest).filter(|before| *before != digest);
                From { stage: stage.index, name, digest, before }
            })
            .collect()
    }
}

impl Builds {
    /// Says exactly why a step has to run, by what the last build knew of it.
    pub(super) fn changes(
        &self,
        last: &Last,
        before: Option<&Known>,
        now: (&str, &Parts),
    ) -> Vec<Change> {
        let (text, now) = now;
        let Some(known) = before else {
            let is_first = last.steps.is_empty();
            return vec![if is_first { Change::FirstBuild } else { Change::NewInstruction }];
        };
        let before = &known.parts;
        let mut changes = Vec::new();
        if known.text != text {
            let (before, now) = (known.text.clone(), text.to_owned());
            changes.push(Change::Instruction { before, now });
        } else if before.instruction != now.instruction {
            changes.extend(settings(&before.fields, &now.fields));
        }
        if before.clamp != now.clamp {
            let text = |clamp: Option<i64>| clamp.map(|seconds| seconds.to_string());
            let (before, now) = (text(before.clamp), text(now.clamp));
            changes.push(Change::Setting { name: "SOURCE_DATE_EPOCH".into(), before, now });
        }
        changes.extend(variables(&before.env, &now.env));
        if before.files != now.files {
            let files = self.changed_files(before.files.as_deref(), now.files.as_deref());
            changes.extend(
                files.into_iter().map(|(path, how)| Change::File { path, how: how.into() }),
            );
        }
        if before.base != now.base {
            changes.push(Change::Base);
        }
        if changes.len() > MAX_CHANGES {
            let count = changes.len() - MAX_CHANGES;
            changes.truncate(MAX_CHANGES);
            changes.push(Change::More { count });
        }
        if changes.is_empty() {
            changes.push(match known.outcome {
                _ if before != now => {
                    Change::Instruction { before: known.text.clone(), now: text.to_owned() }
                }
                Outcome::Failed { .. } => Change::FailedBefore,
                _ => Change::ResultGone,
            });
        }
        changes
    }
}

fn settings(before: &[(String, String)], now: &[(String, String)]) -> Vec<Change> {
    let names: BTreeSet<&String> = before.iter().chain(now).map(|(name, _)| name).collect();
    let values = |of: &[(String, String)], name: &str| -> Option<String> {
        let values: Vec<&str> =
            of.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| cut(&values.join(", ")))
    };
    let differs = |name: &String| {
        let (before, now) = (values(before, name), values(now, name));
        (before != now).then(|| Change::Setting { name: name.clone(), before, now })
    };
    names.into_iter().filter_map(differs).collect()
}

fn variables(before: &[String], now: &[String]) -> Vec<Change> {
    let split = |entry: &String| {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        (name.to_owned(), value.to_owned())
    };
    // The last one of a name counts.
    let before: std::collections::BTreeMap<_, _> = before.iter().map(split).collect();
    let now: std::collections::BTreeMap<_, _> = now.iter().map(split).collect();
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let shown = |name: &str, value: Option<&String>| {
        let lower = name.to_lowercase();
        let is_secret = SECRETS.iter().any(|part| lower.contains(part));
        value.map(|value| if is_secret { "…".to_owned() } else { cut(value) })
    };
    let differs = |name: &String| {
        let (before, now) = (before.get(name), now.get(name));
        (before != now).then(|| Change::Variable {
            name: name.clone(),
            before: shown(name, before),
            now: shown(name, now),
        })
    };
    names.into_iter().filter_map(differs).collect()
}

/// Cuts a value that is too long to be shown.
fn cut(text: &str) -> String {
    if text.chars().count() <= MAX_VALUE_CHARS {
        return text.to_owned();
    }
    text.chars().take(MAX_VALUE_CHARS).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(step: usize, text: &str) -> Known {
        Known {
            stage: 0,
            step,
            name: format!("[{}/2] {text}", step + 1),
            text: text.to_owned(),
            key: Digest::sha256(text.as_bytes()),
            parts: Parts {
                base: "sha256:base".into(),
                instruction: "sha256:run".into(),
                fields: vec![("cwd".into(), "/".into())],
                env: vec!["A=1".into(), "API_TOKEN=x".into()],
                files: None,
                clamp: None,
            },
            outcome: Outcome::Reused,
        }
    }

    #[test]
    fn every_difference_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Builds::new(dir.path());
        let before = known(0, "RUN make");
        let last = Last { bases: Vec::new(), steps: vec![before.clone()] };
        let changes =
            |text: &str, parts: &Parts| builds.changes(&last, Some(&before), (text, parts));
        assert_eq!(changes("RUN make", &before.parts), [Change::ResultGone]);
        let failed = Known { outcome: Outcome::Failed { changes: Vec::new() }, ..before.clone() };
        let again = builds.changes(&last, Some(&failed), ("RUN make", &before.parts));
        assert_eq!(again, [Change::FailedBefore]);
        let now = Parts {
            base: "other".into(),
            instruction: "sha256:other".into(),
            fields: vec![("cwd".into(), "/src".into()), ("user".into(), "app".into())],
            env: vec!["A=2".into(), "API_TOKEN=y".into(), "B=".into()],
            clamp: Some(7),
            ..before.parts.clone()
        };
        let text = |text: &str| Some(text.to_owned());
        let setting = |name: &str, before, now| Change::Setting { name: name.into(), before, now };
        let variable =
            |name: &str, before, now| Change::Variable { name: name.into(), before, now };
        assert_eq!(
            changes("RUN make", &now),
            [
                setting("cwd", text("/"), text("/src")),
                setting("user", None, text("app")),
                setting("SOURCE_DATE_EPOCH", None, text("7")),
                variable("A", text("1"), text("2")),
                variable("API_TOKEN", text("…"), text("…")),
                variable("B", None, text("")),
                Change::Base,
            ]
        );
        let (old, new) = ("RUN make".to_owned(), "RUN make all".to_owned());
        assert_eq!(
            changes("RUN make all", &before.parts),
            [Change::Instruction { before: old, now: new }]
        );
        assert_eq!(builds.changes(&last, None, ("x", &now)), [Change::NewInstruction]);
        assert_eq!(builds.changes(&Last::default(), None, ("x", &now)), [Change::FirstBuild]);
    }
}

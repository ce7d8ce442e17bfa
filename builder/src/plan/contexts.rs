//! Named contexts (`--build-context NAME=…`): what else a name in FROM, COPY and mounts means.

use std::collections::BTreeMap;

use oci::Reference;

use super::graph::{Action, Copy, CopySource, Origin, Step};
use crate::dockerfile::Span;

/// What a named context is, as far as a plan needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A tree of files: a directory, a repository, an archive.
    Files,
    /// An image, by its name in [`super::Plan::images`].
    Image(String),
    /// A stage of the Dockerfile.
    Stage(String),
}

/// The named contexts of a build.
///
/// A name means the same however it is written: `alpine`, `alpine:latest` and
/// `docker.io/library/alpine` are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedContexts(BTreeMap<String, NamedContext>);

impl NamedContexts {
    /// Adds a context; returns its name in the form that [`Origin::Named`] has it, or `None`
    /// for what is no name.
    pub fn insert(&mut self, name: &str, context: NamedContext) -> Option<String> {
        let name = normal(name)?;
        self.0.insert(name.clone(), context);
        Some(name)
    }

    /// Returns what a name stands for, and its normal form.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<(String, &NamedContext)> {
        if self.0.is_empty() {
            return None;
        }
        let name = normal(name)?;
        let context = self.0.get(&name)?;
        Some((name, context))
    }
}

/// Returns the form of a name that all its spellings share.
fn normal(name: &str) -> Option<String> {
    // Names of stages may be written in capitals, names of images may not.
    let reference: Reference =
        name.parse().or_else(|_| name.to_lowercase().parse::<Reference>()).ok()?;
    let familiar = reference.familiar();
    Some(familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned())
}

/// Returns the step that fills a stage which starts from files, and its line in the history.
pub(super) fn all_of(name: &str, span: Span) -> (Step, String) {
    let copy = Copy {
        is_add: false,
        origin: Origin::Named(name.to_owned()),
        sources: vec![CopySource::Path(".".to_owned())],
        destination: "/".to_owned(),
        chown: None,
        chmod: None,
        link: true,
        parents: false,
        exclude: Vec::new(),
        unpack: false,
    };
    let text = format!("FROM {name}");
    let line = format!("{text} # build context");
    (Step { action: Action::Copy(copy), text, span: Some(span) }, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_however_it_is_written() {
        let mut contexts = NamedContexts::default();
        assert_eq!(contexts.get("alpine"), None);
        let name = contexts.insert("docker.io/library/alpine:latest", NamedContext::Files);
        assert_eq!(name.as_deref(), Some("alpine"));
        contexts.insert("Build", NamedContext::Stage("x".into()));
        contexts.insert("host:5000/a:1", NamedContext::Files);
        for name in ["alpine", "alpine:latest", "library/alpine", "build", "BUILD", "host:5000/a:1"]
        {
            assert!(contexts.get(name).is_some(), "{name}");
        }
        for name in ["alpine:3", "host:5000/a", "", "no name"] {
            assert!(contexts.get(name).is_none(), "{name}");
        }
        assert_eq!(contexts.insert("no name", NamedContext::Files), None);
    }
}

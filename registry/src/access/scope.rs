//! What a token lets its bearer do: the scopes of docker's token specification
//! (distribution, "Token Scope Documentation").

use std::collections::BTreeSet;
use std::fmt;

use oci::Repository;
use serde::{Deserialize, Serialize};

/// How many scopes one token may have. A push that mounts asks for two.
pub(crate) const MAX_SCOPES: usize = 64;

/// A right over a repository, in the words of tokens and of policies.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Read manifests, blobs, tags and referrers.
    Pull,
    /// Push anything, and move tags.
    Push,
    /// Push anything, but leave the tags that exist where they are.
    Create,
    /// Delete manifests, tags and blobs.
    Delete,
}

impl Action {
    /// Returns the word that a token uses: docker knows no `create`.
    pub(crate) fn scope_word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push | Self::Create => "push",
            Self::Delete => "delete",
        }
    }
}

/// One entry of a token's `access` claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    /// `repository`, or `registry` for the catalog.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) actions: BTreeSet<String>,
}

impl Scope {
    /// Parses `type:name:action,action`. The name may have colons (a port), and
    /// the type a class in parentheses, which means nothing to us.
    ///
    /// Returns `None` for what is no scope: the specification has a token say
    /// less than was asked for rather than an error.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let kind = kind.split_once('(').map_or(kind, |(kind, _)| kind);
        let actions: BTreeSet<String> =
            actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned).collect();
        let is_one = !kind.is_empty() && !name.is_empty() && !actions.is_empty();
        is_one.then(|| Self { kind: kind.to_owned(), name: name.to_owned(), actions })
    }

    /// Returns whether the scope is about that repository and has the word.
    pub(crate) fn covers(&self, repository: &Repository, action: Action) -> bool {
        self.kind == "repository"
            && self.name == repository.as_str()
            && self.has(action.scope_word())
    }

    /// Returns whether the scope lets its bearer list all repositories.
    pub(crate) fn covers_catalog(&self) -> bool {
        self.kind == "registry" && self.name == "catalog" && self.actions.contains("*")
    }

    fn has(&self, word: &str) -> bool {
        self.actions.contains(word) || self.actions.contains("*")
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions: Vec<&str> = self.actions.iter().map(String::as_str).collect();
        write!(f, "{}:{}:{}", self.kind, self.name, actions.join(","))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scopes_are_parsed_from_both_ends() {
        let scope = Scope::parse("repository:host:5000/team/app:pull,push,").unwrap();
        assert_eq!(
            (scope.kind.as_str(), scope.name.as_str()),
            ("repository", "host:5000/team/app")
        );
        assert_eq!(scope.actions, BTreeSet::from(["pull".to_owned(), "push".to_owned()]));
        assert_eq!(Scope::parse("repository(plugin):app:pull").unwrap().kind, "repository");
        for text in
            ["", "repository", "repository:app", ":app:pull", "repository::pull", "a:b:", "a:b:,"]
        {
            assert_eq!(Scope::parse(text), None, "{text:?}");
        }
    }

    /// A delete is no push (GHSA-qg67-7m6v-qg25), a name no prefix.
    #[test]
    fn scopes_cover_what_they_name() {
        let app: Repository = "team/app".parse().unwrap();
        let covers = |text: &str, action| Scope::parse(text).unwrap().covers(&app, action);
        assert!(covers("repository:team/app:pull", Action::Pull));
        assert!(covers("repository:team/app:push", Action::Create));
        assert!(covers("repository:team/app:*", Action::Delete));
        assert!(!covers("repository:team/app:push", Action::Delete));
        assert!(!covers("repository:team/app:push", Action::Pull));
        assert!(!covers("repository:team:*", Action::Pull));
        assert!(!covers("repository:team/app2:*", Action::Pull));
        assert!(!covers("registry:team/app:*", Action::Pull));
        assert!(Scope::parse("registry:catalog:*").unwrap().covers_catalog());
        assert!(!Scope::parse("repository:catalog:*").unwrap().covers_catalog());
    }

    proptest! {
        #[test]
        fn no_scope_panics(text in "[a-z:,()*]{0,20}") {
            if let Some(scope) = Scope::parse(&text) {
                prop_assert!(!scope.actions.is_empty());
            }
        }
    }
}

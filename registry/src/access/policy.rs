//! Policies: which callers may do what in which repositories.

use std::collections::BTreeSet;

use oci::Repository;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Action, UserName};
use crate::pattern::RepositoryPattern;

/// One rule. What no rule allows is refused; no rule takes away what another
/// one gives.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Policy {
    /// Whom it is about.
    users: Vec<Who>,
    /// Which repositories it is about, like `library/*` or `team/**`.
    repositories: Vec<RepositoryPattern>,
    /// What they may do there.
    actions: BTreeSet<Action>,
}

impl Policy {
    /// Returns whether the rule lets `user` do `action` in `repository`;
    /// `None` is a caller without a name.
    fn allows(&self, user: Option<&UserName>, repository: &Repository, action: Action) -> bool {
        self.actions.contains(&action)
            && self.users.iter().any(|who| who.is(user))
            && self.repositories.iter().any(|pattern| pattern.matches(repository))
    }
}

/// Returns whether any of the rules allows it.
pub(super) fn allows(
    policies: &[Policy],
    user: Option<&UserName>,
    repository: &Repository,
    action: Action,
) -> bool {
    policies.iter().any(|policy| policy.allows(user, repository, action))
}

/// Returns whether any of the rules gives callers without a name anything.
pub(super) fn know_anonymous(policies: &[Policy]) -> bool {
    policies.iter().any(|policy| policy.users.contains(&Who::Anyone))
}

/// Returns whether any of the rules is about callers with a name.
pub(super) fn know_users(policies: &[Policy]) -> bool {
    policies.iter().flat_map(|policy| &policy.users).any(|who| *who != Who::Anyone)
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    /// `@anyone`: all callers, those without a name included.
    Anyone,
    /// `@users`: all who have shown who they are.
    Users,
    /// That user.
    Name(UserName),
}

impl Who {
    fn is(&self, user: Option<&UserName>) -> bool {
        match self {
            Self::Anyone => true,
            Self::Users => user.is_some(),
            Self::Name(name) => user == Some(name),
        }
    }
}

impl<'de> Deserialize<'de> for Who {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "@anyone" => Ok(Self::Anyone),
            "@users" => Ok(Self::Users),
            _ => text.parse().map(Self::Name).map_err(|error| {
                serde::de::Error::custom(format!("{error}; groups are `@anyone` and `@users`"))
            }),
        }
    }
}

impl JsonSchema for Who {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Who".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "examples": ["@anyone", "@users", "alice"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_allows_what_it_lists_and_no_more() {
        #[derive(Deserialize)]
        struct Rules {
            policies: Vec<Policy>,
        }
        let Rules { policies } = toml::from_str(
            r#"
            policies = [
                { users = ["@anyone"], repositories = ["library/*"], actions = ["pull"] },
                { users = ["@users"], repositories = ["team/**"], actions = ["pull", "create"] },
                { users = ["alice"], repositories = ["**"], actions = ["push", "delete"] },
            ]"#,
        )
        .unwrap();
        let alice: UserName = "alice".parse().unwrap();
        let bob: UserName = "bob".parse().unwrap();
        for (user, repository, action, expected) in [
            (None, "library/app", Action::Pull, true),
            (None, "library/app", Action::Push, false),
            (None, "team/app", Action::Pull, false),
            (Some(&bob), "library/app", Action::Pull, true),
            (Some(&bob), "team/app", Action::Create, true),
            (Some(&bob), "team/app", Action::Push, false),
            (Some(&bob), "team/app", Action::Delete, false),
            (Some(&alice), "team/app", Action::Push, true),
            (Some(&alice), "other", Action::Delete, true),
            (Some(&alice), "other", Action::Pull, false),
        ] {
            let repository: Repository = repository.parse().unwrap();
            let allowed = allows(&policies, user, &repository, action);
            assert_eq!(allowed, expected, "{user:?} {action:?} {repository}");
        }
        assert!(know_anonymous(&policies));
        assert!(!know_anonymous(&policies[1..]));
    }

    #[test]
    fn unknown_words_are_refused() {
        for text in [
            r#"users = ["@everyone"]
            repositories = ["**"]
            actions = ["pull"]"#,
            r#"users = ["alice"]
            repositories = ["**"]
            actions = ["read"]"#,
            r#"users = ["alice"]
            repositories = ["Team/**"]
            actions = ["pull"]"#,
            r#"users = ["alice"]
            repositories = ["**"]
            actions = ["pull"]
            deny = true"#,
            r#"users = ["alice"]
            actions = ["pull"]"#,
        ] {
            assert!(toml::from_str::<Policy>(text).is_err(), "accepted {text}");
        }
    }
}

//! What the user asks for: which images are looked up again, and which steps run anyway.

use super::spec::{Export, Import};

/// When base images are looked up in their registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// Where the store has none of that name
    #[default]
    Missing,
    /// Always; layers that are here are not downloaded again
    Always,
    /// Always, and where the registry does not answer the image that is here is used
    Newer,
    /// Never
    Never,
}

/// Which steps run although their result is recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Refresh {
    /// None.
    #[default]
    Nothing,
    /// Those of the stages with these names.
    Stages(Vec<String>),
    /// All.
    Everything,
}

impl Refresh {
    /// Returns whether the steps of a stage run anyway.
    #[must_use]
    pub fn includes(&self, stage: Option<&str>) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            // As in the file itself, names do not differ by case.
            Self::Stages(names) => {
                stage.is_some_and(|stage| names.iter().any(|name| name.eq_ignore_ascii_case(stage)))
            }
        }
    }
}

/// What a build does about earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Caching {
    /// When base images are looked up.
    pub pull: Policy,
    /// Which steps run anyway.
    pub refresh: Refresh,
    /// Whether the result may name layers that only a registry has: it leaves this machine and
    /// is not kept in the store.
    pub may_be_partial: bool,
    /// The caches to look results up in.
    pub import: Vec<Import>,
    /// The caches to leave results in.
    pub export: Vec<Export>,
}

impl Caching {
    /// Returns the same, but with every step run.
    #[must_use]
    pub fn refreshed(&self) -> Self {
        Self { refresh: Refresh::Everything, ..self.clone() }
    }
}

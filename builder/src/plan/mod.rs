//! The plan of a build: a Dockerfile and its arguments become a graph of typed steps. Pure.
//!
//! The configs of base images say which environment, user and triggers a stage starts
//! with, and reading them is not pure. So [`plan`] is a function of the configs known so
//! far, and when one is missing it says which: the caller fetches it and asks again.
//!
//! ```text
//! outline  which stages are needed, what they start from         global ARGs only
//! stage    instructions → steps, history, config                 ARG, ENV, ONBUILD
//! config   what metadata instructions do to the image config
//! ```

mod config;
mod contexts;
pub mod describe;
mod graph;
mod instruction;
mod outline;
mod policy;
mod problem;
mod scope;
mod stage;

pub(crate) use config::DEFAULT_PATH;
pub use contexts::{NamedContext, NamedContexts};
pub use graph::{
    Action, Base, Copy, CopySource, HistoryLine, ImageUse, Options, Origin, Plan, Run, RunMount,
    Stage, Step, Workdir,
};
pub use outline::{Planned, plan, predefined};
pub use policy::RunPolicy;
pub use problem::Problems;

#[cfg(test)]
mod tests;

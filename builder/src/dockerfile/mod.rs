//! The Dockerfile language: text → tree and diagnostics. No I/O, no clock.
//!
//! ```text
//! text ─ source (lines, continuations) ─ words, flags, heredoc ─ parse → Node
//!      ─ instruction (typed) → Dockerfile + every Diagnostic of the file
//! later, with an environment:   scope (ARG and ENV rules) ─ expand (shell words)
//! ```
//!
//! Invariants: [`parse`] never fails and never panics, whatever the text;
//! what it leaves out of the tree it explains in a diagnostic of severity
//! error. The reference for all behaviour is BuildKit's Dockerfile frontend;
//! where we differ, the code says so.

pub mod ast;
pub mod clean;
pub mod diagnostic;
pub mod directive;
pub mod expand;
pub mod expose;
mod flags;
mod frontend;
pub mod healthcheck;
mod heredoc;
mod instruction;
pub mod lint;
pub mod mount;
mod node;
mod parse;
mod pattern;
mod print;
mod problems;
pub mod quote;
mod run;
mod source;
pub mod suggest;
pub mod units;
mod words;

pub use ast::{
    AddInstruction, ArgDeclaration, CommandLine, CopyInstruction, Device, Directive, DirectiveKey,
    Dockerfile, Files, Form, FromInstruction, Heredoc, Instruction, KeyValue, Kind, Node,
    OnbuildInstruction, RunInstruction, RunNetwork, RunSecurity, Script, Source, Stage,
};
pub use diagnostic::{Code, Diagnostic, Severity, Span, has_errors};
pub use expand::{ExpandError, ExpandReason, Expander, Expansion};
pub use frontend::check_frontend;
pub use healthcheck::Healthcheck;
pub use instruction::is_stage_name;
pub(crate) use mount::csv_fields;
pub use mount::{FileOwner, Mount, MountError, MountKind, MountText, Sharing};
pub use parse::{parse, parse_nodes, parse_trigger};
pub use print::{dump, print};

#[cfg(test)]
mod tests;

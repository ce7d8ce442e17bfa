//! What the language does, by example and by law.

mod diagnostics;
mod expansion;
mod heredocs;
mod instructions;
mod laws;
mod lines;
mod mounts;

use super::{Diagnostic, Dockerfile, Instruction, Kind, parse};

/// Parses a file that must be good.
#[track_caller]
fn good(text: &str) -> Dockerfile {
    let (file, found) = parse(text);
    let errors: Vec<&Diagnostic> = found.iter().filter(|found| found.is_error()).collect();
    assert!(errors.is_empty(), "{text:?} is refused: {errors:?}");
    file
}

/// Parses one instruction that must be good, in a stage.
#[track_caller]
fn instruction(text: &str) -> Instruction {
    let mut file = good(&format!("FROM scratch\n{text}"));
    let mut stage = file.stages.remove(0);
    assert_eq!(stage.instructions.len(), 1, "{text:?}");
    stage.instructions.remove(0)
}

#[track_caller]
fn kind(text: &str) -> Kind {
    instruction(text).kind
}

/// Returns the message of the one error of an instruction that must be bad.
#[track_caller]
fn error(text: &str) -> String {
    let (_, found) = parse(&format!("FROM scratch\n{text}"));
    let errors: Vec<String> =
        found.iter().filter(|found| found.is_error()).map(ToString::to_string).collect();
    assert_eq!(errors.len(), 1, "{text:?}: {errors:?}");
    errors.concat()
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

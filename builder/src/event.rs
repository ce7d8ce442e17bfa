//! What a build tells while it runs.
//!
//! The library never prints: it hands events to a [`Sink`], and `cli` turns them into a
//! live tree, plain lines or JSON.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

/// Which output of a process a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Why a step ran instead of being reused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Why {
    /// Nothing like it was built before.
    First,
    /// The user asked for it with `--no-cache`.
    NoCache,
    /// The instruction itself is new or different.
    InstructionChanged,
    /// Files it copies are different.
    FilesChanged {
        /// The first of them, in order.
        path: PathBuf,
        /// How it differs: `changed`, `added` or `removed`.
        change: &'static str,
        /// How many more there are.
        more: usize,
    },
    /// A variable of its environment is different.
    VariableChanged {
        /// The variable.
        name: String,
    },
    /// What it builds on is different.
    BaseChanged,
    /// It failed, or was stopped, when it ran the last time.
    FailedBefore,
    /// The recorded result is no longer in the store.
    ResultGone,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::First => write!(f, "first build"),
            Self::NoCache => write!(f, "--no-cache"),
            Self::InstructionChanged => write!(f, "instruction changed"),
            Self::FilesChanged { path, change, more: 0 } => {
                write!(f, "{} {change}", path.display())
            }
            Self::FilesChanged { path, change, more } => {
                write!(f, "{} {change}, and {more} more", path.display())
            }
            Self::VariableChanged { name } => write!(f, "{name} changed"),
            Self::BaseChanged => write!(f, "its base changed"),
            Self::FailedBefore => write!(f, "it did not finish the last time"),
            Self::ResultGone => write!(f, "its result was removed"),
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A step begins to be looked at.
    Started {
        /// Number of the step, counted from one in the order of appearance.
        step: usize,
        /// `[build 2/3] RUN make`.
        name: String,
    },
    /// The step's result was known.
    Cached {
        /// The step.
        step: usize,
    },
    /// The step has to be executed.
    Running {
        /// The step.
        step: usize,
        /// Why.
        #[serde(flatten)]
        why: Why,
    },
    /// A line of output of the step's process.
    Log {
        /// The step.
        step: usize,
        /// Where it came from.
        stream: Stream,
        /// The line, without its end.
        line: String,
    },
    /// Bytes arriving, for steps that pull.
    Transfer {
        /// The step.
        step: usize,
        /// The blob, shortened.
        what: String,
        /// Bytes so far.
        current: u64,
        /// Bytes expected, when known.
        total: Option<u64>,
    },
    /// The step is done.
    Done {
        /// The step.
        step: usize,
        /// How long it took.
        #[serde(serialize_with = "milliseconds", rename = "ms")]
        took: Duration,
    },
    /// The most memory that the processes of a step used at one time.
    MemoryPeak {
        /// The step.
        step: usize,
        /// In bytes.
        bytes: u64,
    },
    /// The step failed.
    Failed {
        /// The step.
        step: usize,
        /// Why, in words.
        message: String,
    },
    /// The step was stopped because the build is over.
    Cancelled {
        /// The step.
        step: usize,
    },
    /// Something the user should know that does not stop the build.
    Warning {
        /// The step, when it is about one.
        step: Option<usize>,
        /// What.
        message: String,
    },
}

fn milliseconds<S: serde::Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
}

/// Takes the events of a build; called from several threads at once.
pub type Sink<'a> = &'a (dyn Fn(Event) + Sync);

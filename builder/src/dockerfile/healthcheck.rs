//! HEALTHCHECK: its typed value, and how a line becomes it.

use std::fmt;
use std::time::Duration;

use super::ast::Form;
use super::diagnostic::Code;
use super::flags::{Flags, Takes};
use super::instruction::{Context, at_least_one, ignored_flags, line_range};
use super::node::RawNode;
use super::quote::quote;
use super::units::{format_duration, parse_duration};

/// The meaning of a HEALTHCHECK line; zero means "inherit" in the image config, as
/// in Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", line]`.
    pub test: Vec<String>,
    /// Time between two checks.
    pub interval: Duration,
    /// Time after which a check counts as failed.
    pub timeout: Duration,
    /// Time a container has to start up.
    pub start_period: Duration,
    /// Time between two checks during the start period.
    pub start_interval: Duration,
    /// Failures in a row that make a container unhealthy.
    pub retries: u32,
}

impl fmt::Display for Healthcheck {
    /// Writes the check as Go prints the struct, which is what BuildKit puts into the history.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { test, interval, timeout, start_period, start_interval, retries } = self;
        write!(
            f,
            "{{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{retries}}}",
            test.join(" "),
            format_duration(*interval),
            format_duration(*timeout),
            format_duration(*start_period),
            format_duration(*start_interval),
        )
    }
}

/// Returns the meaning of a HEALTHCHECK line.
pub(super) fn read(node: &RawNode, context: &mut Context<'_, '_>) -> Option<Healthcheck> {
    let words = at_least_one(node, context)?;
    let (kind, command) = words.split_first()?;
    let bad_arguments = |context: &mut Context<'_, '_>, message: String| {
        context.problems.error(Code::BadArguments, line_range(node), message);
    };
    if kind.text.eq_ignore_ascii_case("NONE") {
        ignored_flags(node, context);
        if !command.is_empty() {
            bad_arguments(context, "HEALTHCHECK NONE takes no arguments".to_owned());
            return None;
        }
        return Some(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() });
    }
    let before = context.problems.found.len();
    let known = [
        ("interval", Takes::Text),
        ("timeout", Takes::Text),
        ("start-period", Takes::Text),
        ("start-interval", Takes::Text),
        ("retries", Takes::Text),
    ];
    let flags = Flags::read(&node.flags, &known, context.problems);
    if !kind.text.eq_ignore_ascii_case("CMD") {
        let kind = quote(&kind.text.to_uppercase());
        bad_arguments(context, format!("Unknown type {kind} in HEALTHCHECK (try CMD)"));
    } else if command.is_empty() {
        bad_arguments(context, "Missing command after HEALTHCHECK CMD".to_owned());
    }
    let form = if node.form == Form::TypedJson { "CMD" } else { "CMD-SHELL" };
    let command = command.iter().map(|word| word.text.clone());
    let check = Healthcheck {
        test: std::iter::once(form.to_owned()).chain(command).collect(),
        interval: interval(&flags, "interval", context),
        timeout: interval(&flags, "timeout", context),
        start_period: interval(&flags, "start-period", context),
        start_interval: interval(&flags, "start-interval", context),
        retries: retries(&flags, context),
    };
    context.is_clean_since(before).then_some(check)
}

/// Zero, which says nothing, or at least a millisecond.
fn interval(flags: &Flags<'_>, name: &'static str, context: &mut Context<'_, '_>) -> Duration {
    let Some(value) = flags.one(name).filter(|value| !value.text.is_empty()) else {
        return Duration::ZERO;
    };
    let problem = match parse_duration(value.text) {
        Ok(0) => return Duration::ZERO,
        Ok(nanos) if nanos < 1_000_000 => {
            format!("Interval {} cannot be less than 1ms", quote(name))
        }
        Ok(nanos) => return Duration::from_nanos(nanos.unsigned_abs()),
        Err(error) => error.to_string(),
    };
    context.problems.error(Code::BadFlag, value.word.range.clone(), problem);
    Duration::ZERO
}

fn retries(flags: &Flags<'_>, context: &mut Context<'_, '_>) -> u32 {
    let Some(value) = flags.one("retries").filter(|value| !value.text.is_empty()) else {
        return 0;
    };
    let problem = match value.text.parse::<i32>().map(|number| (number, u32::try_from(number))) {
        Ok((_, Ok(number))) => return number,
        Ok((number, Err(_))) => format!("--retries cannot be negative ({number})"),
        Err(error) => format!("invalid value for retries {}: {error}", quote(value.text)),
    };
    context.problems.error(Code::BadFlag, value.word.range.clone(), problem);
    0
}

//! `--call`: what to do with the Dockerfile instead of building it.

use std::str::FromStr;

use crate::dockerfile::mount::{csv_fields, parse_bool};
use crate::dockerfile::suggest::nearest;

/// What to do instead of building.
#[derive(Debug, clap::Args)]
pub(super) struct CallArgs {
    /// What to do: build, check (look for mistakes), outline (list arguments and secrets) or
    /// targets (list stages); `check,format=json` for programs
    #[arg(long, value_name = "METHOD", default_value = "build")]
    call: Call,
    /// The same as --call=check
    #[arg(long)]
    check: bool,
}

impl CallArgs {
    /// Returns what to do; `None` is to build.
    pub(super) fn call(&self) -> Option<Call> {
        let call = if self.check { Call { method: Method::Check, ..self.call } } else { self.call };
        (call.method != Method::Build).then_some(call)
    }
}

/// A method, and how its result is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Call {
    pub(in super::super) method: Method,
    /// Whether to print JSON instead of text.
    pub(in super::super) json: bool,
    /// Whether warnings leave the exit status at zero.
    pub(in super::super) ignore_status: bool,
}

/// What can be done with a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Method {
    Build,
    Check,
    Outline,
    Targets,
}

impl FromStr for Call {
    type Err = String;

    /// Reads `check,format=json,ignorestatus=true`, as buildx does.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut method = None;
        let mut call = Self { method: Method::Build, json: false, ignore_status: false };
        for field in csv_fields(text).map_err(str::to_owned)? {
            match field.split_once('=') {
                Some(("format", "json")) => call.json = true,
                Some(("format", "text" | "")) => call.json = false,
                Some(("format", other)) => return Err(format!("{other} is not text or json")),
                Some(("ignorestatus", value)) => {
                    let bad = || format!("invalid ignorestatus value: {value}");
                    call.ignore_status = parse_bool(value).ok_or_else(bad)?;
                }
                Some(_) => return Err(format!("invalid field: {field}")),
                None if method.is_some() => return Err(format!("{field} is one method too many")),
                None => method = Some(name(&field)?),
            }
        }
        call.method = method.unwrap_or(Method::Build);
        Ok(call)
    }
}

fn name(text: &str) -> Result<Method, String> {
    match text {
        "build" => Ok(Method::Build),
        "check" | "lint" => Ok(Method::Check),
        "outline" => Ok(Method::Outline),
        "targets" => Ok(Method::Targets),
        other => {
            let near = nearest(other, ["build", "check", "outline", "targets"]);
            let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
            Err(format!("there is no method {other}{near}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_formats() {
        let call = |text: &str| text.parse::<Call>().map(|c| (c.method, c.json, c.ignore_status));
        assert_eq!(call("check"), Ok((Method::Check, false, false)));
        assert_eq!(call("lint,format=json"), Ok((Method::Check, true, false)));
        assert_eq!(call("format=json,outline,ignorestatus=1"), Ok((Method::Outline, true, true)));
        assert_eq!(call("targets,format=text"), Ok((Method::Targets, false, false)));
        assert_eq!(call("build"), Ok((Method::Build, false, false)));
        assert_eq!(call("chek"), Err("there is no method chek (did you mean check?)".to_owned()));
        for bad in ["check,outline", "check,format=xml", "check,x=1", "check,ignorestatus=x"] {
            assert!(call(bad).is_err(), "{bad}");
        }
    }
}

//! Output in a form that the user describes: `json`, `table`, or a template like `{{.ID}}`.
//!
//! Of Go's templates, which docker uses here, this is the part that people write: paths
//! (`{{.Config.Labels}}`), `{{json .Config}}`, `{{index .Config.Labels "name"}}`, and `{{.}}`.

use std::fmt::Write as _;

use anyhow::bail;
use serde_json::Value;

/// How results are printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Aligned columns
    Table,
    /// JSON
    Json,
    /// A template for each
    Template(Template),
}

/// Text with holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Hole { keys: Vec<String>, as_json: bool },
}

impl std::str::FromStr for Format {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "table" => Self::Table,
            "json" | "{{json .}}" => Self::Json,
            text if text.contains("{{") => Self::Template(text.parse()?),
            _ => bail!("{text:?} is neither `table`, `json` nor a template such as {{{{.ID}}}}"),
        })
    }
}

impl std::str::FromStr for Template {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut parts = Vec::new();
        // As docker has it: a shell makes it hard to write these.
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((hole, after)) = after.split_once("}}") else {
                bail!("the template has a {{{{ without }}}}");
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(hole_of(hole.trim())?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }
}

/// Reads what stands between the braces.
fn hole_of(hole: &str) -> anyhow::Result<Part> {
    let unknown = || {
        anyhow::anyhow!(
            "{{{{{hole}}}}} is not understood: templates have {{{{.Field}}}}, {{{{json .Field}}}} \
             and {{{{index .Field \"key\"}}}}"
        )
    };
    if let Some(path) = hole.strip_prefix("json ") {
        return Ok(Part::Hole { keys: path_of(path.trim()).ok_or_else(unknown)?, as_json: true });
    }
    if let Some(arguments) = hole.strip_prefix("index ") {
        let (path, key) = arguments.trim().split_once(' ').ok_or_else(unknown)?;
        let mut keys = path_of(path).ok_or_else(unknown)?;
        let key = key.trim();
        let quoted = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
        let key = match quoted {
            Some(key) if !key.contains('"') => key,
            None if key.parse::<usize>().is_ok() => key,
            _ => return Err(unknown()),
        };
        keys.push(key.to_owned());
        return Ok(Part::Hole { keys, as_json: false });
    }
    Ok(Part::Hole { keys: path_of(hole).ok_or_else(unknown)?, as_json: false })
}

/// Reads `.A.B`.
fn path_of(path: &str) -> Option<Vec<String>> {
    let keys = path.strip_prefix('.')?;
    if keys.is_empty() {
        return Some(Vec::new());
    }
    let keys: Vec<String> = keys.split('.').map(str::to_owned).collect();
    let is_name = |key: &String| {
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    keys.iter().all(is_name).then_some(keys)
}

impl Template {
    /// Fills the holes.
    ///
    /// # Errors
    /// Names the field that does not exist, and those that do.
    pub(super) fn fill(&self, value: &Value) -> anyhow::Result<String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Hole { keys, as_json: true } => {
                    let _ = write!(text, "{}", find(value, keys)?);
                }
                Part::Hole { keys, as_json: false } => show(find(value, keys)?, &mut text),
            }
        }
        Ok(text)
    }
}

fn find<'v>(value: &'v Value, keys: &[String]) -> anyhow::Result<&'v Value> {
    let mut found = value;
    for key in keys {
        found = match found {
            Value::Object(fields) => match fields.get(key) {
                Some(value) => value,
                // A label or an optional field that is not set is nothing, as in docker.
                None if found != value => &Value::Null,
                None => {
                    let known: Vec<&str> = fields.keys().map(String::as_str).collect();
                    bail!("there is no field {key}, only {}", known.join(", "));
                }
            },
            Value::Array(items) => {
                key.parse().ok().and_then(|at: usize| items.get(at)).unwrap_or(&Value::Null)
            }
            _ => &Value::Null,
        };
    }
    Ok(found)
}

/// Writes a value as Go prints it.
fn show(value: &Value, text: &mut String) {
    match value {
        Value::Null => {}
        Value::String(value) => text.push_str(value),
        Value::Array(items) => {
            text.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    text.push(' ');
                }
                show(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            text.push_str("map[");
            for (position, (key, item)) in fields.iter().enumerate() {
                if position > 0 {
                    text.push(' ');
                }
                text.push_str(key);
                text.push(':');
                show(item, text);
            }
            text.push(']');
        }
        Value::Bool(_) | Value::Number(_) => {
            let _ = write!(text, "{value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_are_filled_as_in_docker() {
        let value = json!({
            "ID": "abc", "Size": 7, "Ok": true, "None": null,
            "Config": {"Env": ["A=1", "B=2"], "Labels": {"a.b": "x", "c": "y"}},
        });
        for (template, expected) in [
            ("{{.ID}}", "abc"),
            ("{{ .ID }}:{{.Size}}\\t{{.Ok}}", "abc:7\ttrue"),
            ("{{.Config.Env}}", "[A=1 B=2]"),
            ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
            ("{{.Config.Labels}}", "map[a.b:x c:y]"),
            (r#"{{index .Config.Labels "a.b"}}!"#, "x!"),
            (r#"{{index .Config.Labels "other"}}!"#, "!"),
            ("{{index .Config.Env 1}}", "B=2"),
            ("{{.Config.Other}}{{.None}}.", "."),
        ] {
            let Format::Template(parsed) = template.parse().unwrap() else { panic!("{template}") };
            assert_eq!(parsed.fill(&value).unwrap(), expected, "{template}");
        }
        let Format::Template(parsed) = "{{.Nmae}}".parse().unwrap() else { panic!() };
        let error = parsed.fill(&json!({"Name": 1, "ID": 2})).unwrap_err().to_string();
        assert_eq!(error, "there is no field Nmae, only Name, ID");
    }

    #[test]
    fn other_templates_are_refused() {
        assert_eq!("{{json .}}".parse::<Format>().unwrap(), Format::Json);
        for text in ["{{", "{{range .A}}", "{{.A | upper}}", "{{index .A}}", "{{.A..B}}", "yaml"] {
            assert!(text.parse::<Format>().is_err(), "{text}");
        }
    }
}

//! `--format`: tables and texts of the user's own making.
//!
//! A small part of Go's template language, the part that scripts use with
//! docker: `{{.Field}}`, `{{.Field.Inner}}`, `{{json .}}`, `{{json .Field}}`.

use std::io::Write;

use serde_json::Value;

use super::table;

/// Writes each row as JSON for `json`, else by a template, which may make a table.
pub(super) fn write_rows(out: &mut dyn Write, format: &str, rows: &[Value]) -> anyhow::Result<()> {
    if format == "json" {
        for row in rows {
            writeln!(out, "{row}")?;
        }
        return Ok(());
    }
    let (is_table, template) = match format.strip_prefix("table ") {
        Some(template) => (true, template),
        None => (false, format),
    };
    let template = Template::parse(template).map_err(anyhow::Error::msg)?;
    let mut lines = Vec::new();
    if is_table {
        lines.push(template.heading());
    }
    for row in rows {
        lines.push(template.render(row).map_err(anyhow::Error::msg)?);
    }
    if is_table {
        let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
        table::write(out, &lines.iter().map(cells).collect::<Vec<_>>())?;
    } else {
        for line in lines {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// A parsed template.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field { path: Vec<String>, json: bool },
}

impl Template {
    /// Parses a template; `\t` and `\n` are a tab and a newline.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, after) = after
                .split_once("}}")
                .ok_or_else(|| format!("\"{{{{{after}\" has no end: }}}} is missing"))?;
            push_text(&mut pieces, before);
            pieces.push(field(inside.trim())?);
            rest = after;
        }
        push_text(&mut pieces, rest);
        Ok(Self { pieces })
    }

    /// Fills in the fields of `value`.
    pub(super) fn render(&self, value: &Value) -> Result<String, String> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Field { path, json } => {
                    let found = look_up(value, path)?;
                    match (found, json) {
                        (found, true) => text.push_str(&found.to_string()),
                        (Value::String(string), false) => text.push_str(string),
                        (Value::Null, false) => text.push_str("<no value>"),
                        (found, false) => text.push_str(&found.to_string()),
                    }
                }
            }
        }
        Ok(text)
    }

    /// Returns the heading of a table with this row: the fields' names.
    pub(super) fn heading(&self) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Field { path, .. } => {
                    text.push_str(&path.last().map_or(String::new(), |name| heading(name)));
                }
            }
        }
        text
    }
}

/// Turns `RunningFor` into `RUNNING FOR`.
fn heading(name: &str) -> String {
    match name {
        "ID" => return "CONTAINER ID".to_owned(),
        "CreatedAt" => return "CREATED AT".to_owned(),
        "RunningFor" => return "CREATED".to_owned(),
        _ => {}
    }
    let mut text = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.push(character.to_ascii_uppercase());
    }
    text
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.replace("\\t", "\t").replace("\\n", "\n")));
    }
}

fn field(inside: &str) -> Result<Piece, String> {
    let (json, path) = match inside.strip_prefix("json ") {
        Some(path) => (true, path.trim()),
        None => (false, inside),
    };
    let names = path.strip_prefix('.').ok_or_else(|| {
        format!("\"{{{{{inside}}}}}\" is not understood; write {{{{.Field}}}} or {{{{json .}}}}")
    })?;
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
    };
    let path: Vec<String> = match names {
        "" => Vec::new(),
        names => names.split('.').map(str::to_owned).collect(),
    };
    if path.iter().all(|name| is_name(name)) {
        Ok(Piece::Field { path, json })
    } else {
        Err(format!("\"{{{{{inside}}}}}\" is not the name of a field"))
    }
}

fn look_up<'a>(value: &'a Value, path: &[String]) -> Result<&'a Value, String> {
    let mut found = value;
    for name in path {
        let object =
            found.as_object().ok_or_else(|| format!("nothing has a field .{name} here"))?;
        found = object.get(name).ok_or_else(|| {
            let names: Vec<_> = object.keys().map(|key| format!(".{key}")).collect();
            format!("no field .{name}; there are {}", names.join(" "))
        })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_filled_in() {
        let value = json!({"ID": "abc", "State": {"Pid": 7, "Error": null}});
        for (template, expected) in [
            ("{{.ID}}", "abc"),
            ("{{ .ID }}\\t{{.State.Pid}}", "abc\t7"),
            ("{{json .ID}}", "\"abc\""),
            ("{{json .}}", &value.to_string()),
            ("{{.State.Error}}", "<no value>"),
            ("plain", "plain"),
        ] {
            assert_eq!(Template::parse(template).unwrap().render(&value).unwrap(), expected);
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let value = json!({"ID": "abc", "Names": "web"});
        for (template, expected) in [
            ("{{.ID", "\"{{.ID\" has no end: }} is missing"),
            ("{{ID}}", "\"{{ID}}\" is not understood; write {{.Field}} or {{json .}}"),
            ("{{.Id}}", "no field .Id; there are .ID .Names"),
            ("{{.ID.x}}", "nothing has a field .x here"),
            ("{{range .x}}", "\"{{range .x}}\" is not understood; write {{.Field}} or {{json .}}"),
        ] {
            let result = Template::parse(template).and_then(|template| template.render(&value));
            assert_eq!(result.unwrap_err(), expected);
        }
    }

    #[test]
    fn headings_are_the_fields_names() {
        let template = Template::parse("{{.ID}}\\t{{.Names}}\\t{{.RunningFor}}").unwrap();
        assert_eq!(template.heading(), "CONTAINER ID\tNAMES\tCREATED");
    }
}

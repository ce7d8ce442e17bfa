//! Tree → text: as a Dockerfile, and as BuildKit's dump of its nodes.

use super::ast::{Dockerfile, Form, Heredoc, Node};
use super::diagnostic::Diagnostic;
use super::parse::parse_nodes;
use super::quote::{quote, quote_list};
use super::words::{Json, json_array};

/// Returns `dockerfile` as a file: one line per instruction, keywords in
/// capitals, comments dropped. Parsing it gives the same tree.
#[must_use]
pub fn print(dockerfile: &Dockerfile) -> String {
    let mut out = String::new();
    for directive in &dockerfile.directives {
        out.push_str(&format!("# {}={}\n", directive.key.name(), directive.value));
    }
    for node in nodes(dockerfile) {
        print_node(&mut out, node, dockerfile.escape);
    }
    out
}

/// Returns the instructions of a file as BuildKit's `Node.Dump` prints them,
/// one s-expression a line: `(run ["--network=none"] "make")`. Only the syntax
/// counts: no stage, unknown instructions and bad arguments are fine.
///
/// # Errors
///
/// Fails where BuildKit's parser does; the diagnostics say why.
pub fn dump(text: &str) -> Result<String, Vec<Diagnostic>> {
    let nodes = parse_nodes(text)?;
    let lines: Vec<String> = nodes.iter().map(|node| format!("({})", dump_node(node))).collect();
    Ok(lines.join("\n"))
}

fn nodes(dockerfile: &Dockerfile) -> impl Iterator<Item = &Node> {
    let stages = dockerfile.stages.iter().flat_map(|stage| {
        std::iter::once(&stage.node).chain(stage.instructions.iter().map(|found| &found.node))
    });
    dockerfile.globals.iter().map(|found| &found.node).chain(stages)
}

fn print_node(out: &mut String, node: &Node, escape: char) {
    out.push_str(&node.keyword.to_uppercase());
    for flag in &node.flags {
        out.push(' ');
        push_flag(out, flag, escape);
    }
    let args = print_args(node, escape);
    if args.starts_with("--") {
        out.push_str(" --");
    }
    if !args.is_empty() {
        out.push(' ');
        out.push_str(&args);
        // A form feed is trimmed off again, and keeps the escape character
        // before it from joining the next line.
        if args.ends_with(escape) {
            out.push('\u{c}');
        }
    }
    out.push('\n');
    for heredoc in &node.heredocs {
        print_heredoc(out, heredoc);
    }
}

fn print_heredoc(out: &mut String, heredoc: &Heredoc) {
    out.push_str(&heredoc.body);
    out.push_str(&heredoc.name);
    out.push('\n');
}

fn print_args(node: &Node, escape: char) -> String {
    match node.form {
        Form::Line | Form::Instruction => node.args.concat(),
        Form::Words => print_words(&node.args),
        Form::Json => print_json(&node.args),
        // An escape character at the end of the key takes one blank to itself.
        Form::LegacyPair => {
            let is_escape = node.args.first().is_some_and(|key| key.ends_with(escape));
            node.args.join(if is_escape { "  " } else { " " })
        }
        Form::Pairs => {
            let pairs: Vec<String> = node.args.chunks(2).map(|pair| pair.join("=")).collect();
            pairs.join(" ")
        }
        Form::TypedLine => node.args.join(" "),
        Form::TypedJson => {
            let (kind, command) =
                node.args.split_first().map_or(("", &[][..]), |(kind, rest)| (kind.as_str(), rest));
            format!("{kind} {}", print_json(command))
        }
    }
}

/// Words that would read as JSON between blanks are parted by a character
/// that parts words but is no blank in JSON.
fn print_words(words: &[String]) -> String {
    let line = words.join(" ");
    if json_array(&line) == Json::Not { line } else { words.join("\u{b}") }
}

fn print_json(words: &[String]) -> String {
    let words: Vec<serde_json::Value> = words.iter().map(|word| word.as_str().into()).collect();
    serde_json::Value::Array(words).to_string()
}

/// Flags lost their quotes when they were read; escapes bring them back.
fn push_flag(out: &mut String, flag: &str, escape: char) {
    for c in flag.chars() {
        if c.is_whitespace() || c == escape || matches!(c, '\'' | '"') {
            out.push(escape);
        }
        out.push(c);
    }
}

fn dump_node(node: &Node) -> String {
    let mut out = node.keyword.to_lowercase();
    if !node.flags.is_empty() {
        out.push(' ');
        out.push_str(&quote_list(&node.flags));
    }
    match (&node.child, node.form) {
        (Some(child), _) => out.push_str(&format!(" ({})", dump_node(child))),
        (None, Form::Instruction) => {
            // A trigger that is no instruction we know: BuildKit keeps its name only.
            let word = node.args.first().and_then(|args| args.split_whitespace().next());
            out.extend(word.map(|word| format!(" ({} \"\")", word.to_lowercase())));
        }
        (None, Form::Pairs | Form::LegacyPair) => {
            let delimiter = if node.form == Form::Pairs { "=" } else { "" };
            for pair in node.args.chunks(2) {
                for word in pair.iter().map(String::as_str).chain([delimiter]) {
                    out.push(' ');
                    out.push_str(&quote(word));
                }
            }
        }
        (None, _) => {
            for arg in &node.args {
                out.push(' ');
                out.push_str(&quote(arg));
            }
        }
    }
    out
}

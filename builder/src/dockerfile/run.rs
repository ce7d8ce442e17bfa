//! RUN: its script and its flags.

use super::ast::{Device, Form, RunInstruction, RunNetwork, RunSecurity, Script};
use super::diagnostic::Code;
use super::flags::{Flags, Takes, Value};
use super::heredoc;
use super::instruction::{Context, line_range};
use super::mount::{MountError, MountText, csv_fields};
use super::node::RawNode;
use super::quote::quote;
use super::suggest::nearest;

/// Returns the meaning of a RUN line.
pub(super) fn read(node: &RawNode, context: &mut Context<'_, '_>) -> Option<RunInstruction> {
    let before = context.problems.found.len();
    let known = [
        ("mount", Takes::Texts),
        ("network", Takes::Text),
        ("security", Takes::Text),
        ("device", Takes::Texts),
    ];
    let flags = Flags::read(&node.flags, &known, context.problems);
    let network = match flags.one("network").map(|value| value.text) {
        None | Some("default") => RunNetwork::Default,
        Some("none") => RunNetwork::None,
        Some("host") => RunNetwork::Host,
        Some(other) => {
            let message = format!("invalid network mode {}", quote(other));
            bad_flag(context, flags.one("network"), message, other, &["default", "none", "host"]);
            RunNetwork::Default
        }
    };
    let security = match flags.one("security").map(|value| value.text) {
        None | Some("sandbox") => RunSecurity::Sandbox,
        Some("insecure") => RunSecurity::Insecure,
        Some(other) => {
            let message = format!("security {} is not valid", quote(other));
            bad_flag(context, flags.one("security"), message, other, &["sandbox", "insecure"]);
            RunSecurity::Sandbox
        }
    };
    let mounts = flags.all("mount").iter().map(|value| mount(value, context)).collect();
    let devices = flags.all("device").iter().filter_map(|value| device(value, context)).collect();
    let script = script(node, context);
    context.is_clean_since(before).then_some(RunInstruction {
        script,
        mounts,
        network,
        security,
        devices,
    })
}

fn bad_flag(
    context: &mut Context<'_, '_>,
    value: Option<&Value<'_>>,
    message: String,
    word: &str,
    valid: &[&str],
) {
    let range = value.map(|value| value.word.range.clone()).unwrap_or_default();
    let near = nearest(word, valid.iter().copied());
    context.problems.suggest(Code::BadFlag, range, message, near);
}

/// Checks what can be checked before variables are known.
fn mount(value: &Value<'_>, context: &mut Context<'_, '_>) -> MountText {
    let mount = MountText(value.text.to_owned());
    if let Err(MountError { message, suggestion }) = mount.check(context.escape) {
        let range = value.word.range.clone();
        context.problems.suggest(Code::BadMount, range, message, suggestion);
    }
    mount
}

fn device(value: &Value<'_>, context: &mut Context<'_, '_>) -> Option<Device> {
    match parse_device(value.text) {
        Ok(device) => Some(device),
        Err(MountError { message, suggestion }) => {
            let range = value.word.range.clone();
            context.problems.suggest(Code::BadFlag, range, message, suggestion);
            None
        }
    }
}

fn parse_device(text: &str) -> Result<Device, MountError> {
    let fields = csv_fields(text)
        .map_err(|error| MountError::new(format!("failed to parse csv devices: {error}")))?;
    let mut device = Device { name: String::new(), required: false };
    for field in fields {
        match field.split_once('=').map(|(key, value)| (key.to_lowercase(), value)) {
            None if field.eq_ignore_ascii_case("required") => device.required = true,
            Some((key, value)) if key == "required" => {
                device.required = super::mount::parse_bool(value)
                    .ok_or_else(|| MountError::new(format!("invalid value for {key}: {value}")))?;
            }
            Some((key, value)) if key == "name" => {
                if !device.name.is_empty() {
                    let message = format!("device name already set to {}", device.name);
                    return Err(MountError::new(message));
                }
                value.clone_into(&mut device.name);
            }
            _ if device.name.is_empty() => device.name = field,
            None => {
                let message = format!("invalid field '{field}' must be a key=value pair");
                return Err(MountError::new(message));
            }
            Some((key, _)) => {
                let suggestion = nearest(&key, ["name", "required"]);
                let message = format!("unexpected key '{key}' in '{field}'");
                return Err(MountError { message, suggestion });
            }
        }
    }
    Ok(device)
}

/// A heredoc alone is the script itself, handed to the shell as one argument
/// or, with `#!`, as a file. With other words on the line the shell gets the
/// line and the bodies, and must know heredocs itself. The builder expands
/// nothing in either.
fn script(node: &RawNode, context: &mut Context<'_, '_>) -> Script {
    if node.form == Form::Json {
        if node.args.is_empty() {
            let message = "RUN requires at least one argument".to_owned();
            context.problems.error(Code::BadArguments, line_range(node), message);
        }
        return Script::Exec(node.args.iter().map(|word| word.text.clone()).collect());
    }
    let mut line = node.args.first().map(|word| word.text.clone()).unwrap_or_default();
    let Some(first) = context.heredocs.first() else { return Script::Shell(line) };
    if heredoc::parse_word(&line).is_ok_and(|found| found.is_some()) {
        let content = first.content();
        if content.starts_with("#!") {
            return Script::File { name: first.name.clone(), content };
        }
        return Script::Shell(content);
    }
    for heredoc in context.heredocs {
        line.push('\n');
        line.push_str(&heredoc.body);
        line.push_str(&heredoc.name);
    }
    Script::Shell(line)
}

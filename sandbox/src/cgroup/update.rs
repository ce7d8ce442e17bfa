//! Other limits for a group that is in use.

use std::path::PathBuf;

use super::create::write;
use super::limits::{self, Setting};
use super::position::{Position, Tree};
use crate::error::{Context as _, Error, Result};
use crate::spec::Limits;

/// Changes limits of the group `name` that `process` is in; those that are none
/// stay as they are.
///
/// # Errors
///
/// When a limit makes no sense or the kernel refuses it, and when the group has
/// no part in the tree of a controller: that is made only with a limit.
pub fn update(process: u32, name: &str, limits: &Limits) -> Result<()> {
    if let Some(objection) = limits::objection(limits) {
        return Err(Error::invalid(objection));
    }
    let position = Position::of(&process.to_string())?;
    let group = |tree: &Tree| {
        let named = |path: &PathBuf| path.file_name().is_some_and(|last| last == name);
        tree.ancestors().into_iter().find(named)
    };
    let is_v2 = |controller: &str| position.v1_tree(controller).is_none();
    let mut refused = Vec::new();
    for setting in limits::settings(limits, is_v2) {
        let tree = position.v1_tree(setting.controller).or(position.v2.as_ref());
        let file = tree.and_then(group).map(|group| group.join(setting.file));
        match file.filter(|file| file.exists()) {
            Some(file) if write(&file, &setting.value).is_err() => refused.push((setting, file)),
            Some(_) => {}
            None if setting.optional => {}
            None => return Err(missing(&setting)),
        }
    }
    // On v1 memory may not be more than memory and swap together: what was too
    // much before the other one was written is not now.
    for (setting, file) in refused {
        match write(&file, &setting.value) {
            Err(_) if setting.optional => {}
            written => written
                .cannot(|| format!("set the limit on {} in {}", setting.limit, file.display()))?,
        }
    }
    Ok(())
}

fn missing(setting: &Setting) -> Error {
    Error::invalid(format!(
        "it was started without a limit on {}, so none can be set while it runs: stop it first",
        setting.limit
    ))
}

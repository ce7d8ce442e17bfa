//! `--chown` and USER: names become numbers by the files of the image, never by the host's.

use std::io::Read as _;
use std::path::Path;

use crate::error::{IoContext as _, Result};
use crate::tree::{Kind, Tree, resolve};

/// How much of `/etc/passwd` and `/etc/group` is read; real ones have a few KiB.
const MAX_BYTES: u64 = 4 << 20;

/// A user and a group as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Owner {
    /// Reads `user`, `user:group`, `:group`, by name or number, in the view of `root`.
    ///
    /// As in BuildKit: a name alone takes the user's own group, a number alone is the
    /// group's number as well. A name that the image does not have becomes 0, where
    /// BuildKit is silent; we return it for a warning.
    ///
    /// # Errors
    /// Fails when the image's files cannot be read.
    pub fn parse(text: &str, root: &dyn Tree) -> Result<(Self, Vec<String>)> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let mut unknown = Vec::new();
        let mut owner = Self::default();
        let mut primary = None;
        if let Ok(uid) = user.parse() {
            owner.uid = uid;
            primary = Some(uid);
        } else if !user.is_empty() {
            let passwd = read(root, "etc/passwd")?;
            match find(&passwd, user) {
                Some(fields) => {
                    owner.uid = fields.get(2).and_then(|field| field.parse().ok()).unwrap_or(0);
                    primary = fields.get(3).and_then(|field| field.parse().ok());
                }
                None => unknown.push(format!("user {user:?}")),
            }
        }
        owner.gid = match group {
            None | Some("") => primary.unwrap_or(0),
            Some(group) => match group.parse() {
                Ok(gid) => gid,
                Err(_) => {
                    let groups = read(root, "etc/group")?;
                    match find(&groups, group) {
                        Some(fields) => fields.get(2).and_then(|f| f.parse().ok()).unwrap_or(0),
                        None => {
                            unknown.push(format!("group {group:?}"));
                            0
                        }
                    }
                }
            },
        };
        Ok((owner, unknown))
    }
}

/// Returns the fields of the line whose first one is `name`.
fn find<'a>(file: &'a str, name: &str) -> Option<Vec<&'a str>> {
    file.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|line| line[0] == name)
}

/// Reads a small file of the image; one that is missing is empty.
fn read(root: &dyn Tree, path: &str) -> Result<String> {
    let resolved = resolve(root, Path::new(path), true)?;
    if !resolved.node.is_some_and(|node| matches!(node.kind, Kind::File { .. })) {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    root.open(&resolved.path)?
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .doing("read", &resolved.path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

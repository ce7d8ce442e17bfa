//! What the previous build of the same context did, to say why a step runs now.
//!
//! ```text
//! <root>/builds/
//! ├── contexts/<hex>   digests of the files of one context (see crate::context)
//! ├── files/<hex>      what one content digest consists of: short digest and path per file
//! ├── last/<hex>       the key parts of every step of the last build of one Dockerfile
//! └── logs/<hex>       the whole output of one step
//! ```
//!
//! All of it is a convenience: losing it costs an explanation, never a build.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use oci::Digest;

use super::report::Last;
use crate::event::Why;
use crate::key::Parts;

/// The builder's own directory in a store.
#[derive(Clone, Debug)]
pub struct Builds {
    root: PathBuf,
}

impl Builds {
    /// Returns the directory of the store at `store_root`.
    #[must_use]
    pub fn new(store_root: &Path) -> Self {
        Self { root: store_root.join("builds") }
    }

    /// Returns the directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the file that remembers the digests of a context's files.
    #[must_use]
    pub fn context_index(&self, context: &Path) -> PathBuf {
        let name = Digest::sha256(context.as_os_str().as_bytes()).hex();
        self.root.join("contexts").join(name)
    }

    /// Returns the file that a step's output goes to.
    #[must_use]
    pub fn log(&self, key: &Digest) -> PathBuf {
        self.root.join("logs").join(key.hex())
    }

    /// Returns the record of the last build with this identity.
    #[must_use]
    pub fn last(&self, identity: &str) -> Option<Last> {
        let bytes = fs::read(self.last_path(identity)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Replaces the record of the last build with this identity.
    ///
    /// # Errors
    /// Fails when it cannot be written; the build does not depend on it.
    pub fn set_last(&self, identity: &str, last: &Last) -> std::io::Result<()> {
        write(&self.last_path(identity), &serde_json::to_vec(last)?)
    }

    fn last_path(&self, identity: &str) -> PathBuf {
        self.root.join("last").join(Digest::sha256(identity.as_bytes()).hex())
    }

    /// Keeps the list of files behind a content digest.
    ///
    /// # Errors
    /// Fails when it cannot be written; the build does not depend on it.
    pub fn set_files(&self, digest: &Digest, files: &[(PathBuf, [u8; 8])]) -> std::io::Result<()> {
        let path = self.root.join("files").join(digest.hex());
        if path.exists() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for (path, short) in files {
            bytes.extend_from_slice(short);
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            bytes.push(0);
        }
        write(&path, &bytes)
    }

    fn files(&self, digest: &str) -> Option<BTreeMap<PathBuf, [u8; 8]>> {
        let digest: Digest = digest.parse().ok()?;
        let bytes = fs::read(self.root.join("files").join(digest.hex())).ok()?;
        let mut files = BTreeMap::new();
        let mut rest = &bytes[..];
        while let Some((short, after)) = rest.split_first_chunk::<8>() {
            let end = after.iter().position(|byte| *byte == 0)?;
            let path = OsString::from_vec(after[..end].to_vec());
            files.insert(PathBuf::from(path), *short);
            rest = &after[end + 1..];
        }
        Some(files)
    }

    /// Returns the files that differ between two content digests, as far as their lists are kept.
    pub(super) fn changed_files(
        &self,
        before: Option<&str>,
        now: Option<&str>,
    ) -> Vec<(PathBuf, &'static str)> {
        let lists = before.zip(now);
        let lists = lists.and_then(|(b, n)| Some((self.files(b)?, self.files(n)?)));
        lists.map(|(before, now)| differences(&before, &now)).unwrap_or_default()
    }

    /// Marks the record of the last build with this identity as that of a build just now.
    pub fn touch_last(&self, identity: &str) {
        if let Ok(file) = fs::File::open(self.last_path(identity)) {
            // It only says when the last build was.
            let _only_a_hint = rustix::fs::futimens(
                &file,
                &rustix::fs::Timestamps {
                    last_access: rustix::fs::Timespec {
                        tv_sec: 0,
                        tv_nsec: rustix::fs::UTIME_OMIT,
                    },
                    last_modification: rustix::fs::Timespec {
                        tv_sec: 0,
                        tv_nsec: rustix::fs::UTIME_NOW,
                    },
                },
            );
        }
    }

    /// Returns when the last build with this identity was.
    #[must_use]
    pub fn last_time(&self, identity: &str) -> Option<std::time::SystemTime> {
        fs::metadata(self.last_path(identity)).ok()?.modified().ok()
    }

    /// Says why a step has to run, by what the last build knew of it.
    #[must_use]
    pub fn why(&self, before: Option<&Parts>, now: &Parts) -> Why {
        let Some(before) = before else { return Why::First };
        if before.instruction != now.instruction || before.clamp != now.clamp {
            return Why::InstructionChanged;
        }
        if before.env != now.env {
            return Why::VariableChanged { name: first_difference(&before.env, &now.env) };
        }
        if before.files != now.files {
            let changes = self.changed_files(before.files.as_deref(), now.files.as_deref());
            return match changes.first() {
                Some((path, change)) => {
                    Why::FilesChanged { path: path.clone(), change, more: changes.len() - 1 }
                }
                None => Why::InstructionChanged,
            };
        }
        if before.base != now.base { Why::BaseChanged } else { Why::ResultGone }
    }

    /// Removes logs that were written before a time, or all; returns how many.
    ///
    /// # Errors
    /// Fails when the directory cannot be read or a file not removed.
    pub fn prune_logs(&self, before: Option<std::time::SystemTime>) -> std::io::Result<usize> {
        let mut count = 0;
        for path in list(&self.root.join("logs"))? {
            let Ok(written) = fs::metadata(&path).and_then(|metadata| metadata.modified()) else {
                continue;
            };
            if before.is_none_or(|before| written < before) {
                remove(&path)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Removes what no recent build refers to; returns the bytes freed.
    ///
    /// With `all`, everything goes.
    ///
    /// # Errors
    /// Fails when the directory cannot be read or a file not removed.
    pub fn prune(&self, all: bool) -> std::io::Result<u64> {
        let mut freed = 0;
        let (mut used, mut logs): (Vec<String>, Vec<String>) = Default::default();
        for path in list(&self.root.join("last"))? {
            if all {
                freed += remove(&path)?;
            } else if let Some(last) =
                fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Last>(&bytes).ok())
            {
                used.extend(last.steps.iter().filter_map(|known| known.parts.files.clone()));
                logs.extend(last.steps.iter().map(|known| known.key.hex()));
            }
        }
        for directory in ["contexts", "files", "logs"] {
            for path in list(&self.root.join(directory))? {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let is_used = match directory {
                    "files" => used.iter().any(|digest| digest.ends_with(&name)),
                    // The index of a context is worth keeping as long as builds are.
                    "contexts" => true,
                    // The log of a step of the last build of something.
                    _ => logs.contains(&name),
                };
                if all || !is_used {
                    freed += remove(&path)?;
                }
            }
        }
        Ok(freed)
    }
}

fn first_difference(before: &[String], now: &[String]) -> String {
    let changed = now
        .iter()
        .find(|entry| !before.contains(entry))
        .or_else(|| before.iter().find(|entry| !now.contains(entry)));
    let entry = changed.map_or("the order of variables", String::as_str);
    entry.split_once('=').map_or(entry, |(name, _)| name).to_owned()
}

/// Returns the files that differ between two lists, and how; what is gone comes last.
fn differences(
    before: &BTreeMap<PathBuf, [u8; 8]>,
    now: &BTreeMap<PathBuf, [u8; 8]>,
) -> Vec<(PathBuf, &'static str)> {
    let mut changes = Vec::new();
    for (path, short) in now {
        match before.get(path) {
            None => changes.push((path.clone(), "added")),
            Some(old) if old != short => changes.push((path.clone(), "changed")),
            Some(_) => {}
        }
    }
    let removed = before.keys().filter(|path| !now.contains_key(*path));
    changes.extend(removed.map(|path| (path.clone(), "removed")));
    changes
}

fn list(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> std::io::Result<u64> {
    let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
    match fs::remove_file(path) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Writes a file so that readers see the old or the new one.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        Parts {
            base: "sha256:base".into(),
            instruction: "sha256:run".into(),
            fields: Vec::new(),
            env: vec!["PATH=/bin".into(), "V=1".into()],
            files: None,
            clamp: None,
        }
    }

    #[test]
    fn the_reason_is_the_nearest_change() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Builds::new(dir.path());
        let old = parts();
        let why = |now: &Parts| builds.why(Some(&old), now).to_string();
        assert_eq!(builds.why(None, &old).to_string(), "first build");
        assert_eq!(why(&Parts { base: "x".into(), ..parts() }), "its base changed");
        assert_eq!(why(&Parts { instruction: "x".into(), ..parts() }), "instruction changed");
        let env = vec!["PATH=/bin".into(), "V=2".into()];
        assert_eq!(why(&Parts { env, base: "x".into(), ..parts() }), "V changed");
        assert_eq!(why(&parts()), "its result was removed");
    }

    #[test]
    fn changed_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Builds::new(dir.path());
        let list = |files: &[(&str, u8)]| -> Vec<(PathBuf, [u8; 8])> {
            files.iter().map(|(path, n)| (PathBuf::from(path), [*n; 8])).collect()
        };
        let (one, two) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        builds.set_files(&one, &list(&[("a", 1), ("src/main.c", 1), ("z", 1)])).unwrap();
        builds.set_files(&two, &list(&[("a", 1), ("src/main.c", 2), ("new", 1)])).unwrap();
        let with = |digest: &Digest| Parts { files: Some(digest.to_string()), ..parts() };
        assert_eq!(builds.why(Some(&with(&one)), &with(&two)).to_string(), "new added, and 2 more");
        assert!(builds.prune(false).unwrap() > 0);
        assert!(builds.files(&one.to_string()).is_none());
    }
}

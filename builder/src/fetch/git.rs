//! A git repository, through the `git` program.
//!
//! A branch or tag is looked up (`ls-remote`); its commit is the key. What a commit holds
//! never changes, so a checkout is made once and kept as a plain tar in the store: with
//! the permissions that git knows, the time of the commit, and owned by nobody. Two
//! machines get the same tar (but for `.git`, where that is kept).

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oci::Digest;
use store::StepRecord;

use super::Fetcher;
use super::address::{GitRef, is_commit};
use crate::context::{Context, Index, TarTree};
use crate::copy::{Destination, LayerWriting, Placement, Selector, select, write_layer};
use crate::error::{Error, Result};
use crate::event::{Event, Stream};
use crate::ignore::Ignore;
use crate::key::Key;
use crate::tree::{Empty, Kind, Mtime, Tree as _};

/// How long one command of git may take: a large repository over a slow line.
const MAX_TIME: Duration = Duration::from_secs(2 * 3600);
/// How often a command is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);
/// How much a command may print.
const MAX_OUTPUT_BYTES: u64 = 4 << 20;
/// The largest file that git may write (a pack), in the 512-byte blocks of `ulimit -f`.
const MAX_FILE_BLOCKS: u64 = (32 << 30) / 512;

/// What git gets of its surroundings; all else stays away from it.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Variables as they are passed: `PATH`, proxies, `SSH_AUTH_SOCK`, …
    pub variables: BTreeMap<String, String>,
    /// The file of host keys that ssh compares with, and adds new hosts to.
    pub known_hosts: Option<PathBuf>,
}

/// A commit, and what is wanted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    git: GitRef,
    commit: String,
    /// The full name of the branch or tag, which is kept with `.git`.
    reference: Option<String>,
    keep_git_dir: bool,
}

impl Checkout {
    /// Returns what the content depends on.
    #[must_use]
    pub fn key(&self) -> Digest {
        let mut key = Key::new("git");
        key.field("commit", &self.commit);
        key.field("subdir", &self.git.subdir.to_string_lossy());
        key.field("submodules", if self.git.skip_submodules { "no" } else { "yes" });
        // Submodules may be named relative to the repository.
        key.field("remote", &self.git.remote);
        if self.keep_git_dir {
            key.field("git-dir", self.reference.as_deref().unwrap_or_default());
        }
        key.finish()
    }

    /// Returns the commit's name.
    #[must_use]
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Returns the address as it may be shown.
    #[must_use]
    pub fn remote(&self) -> String {
        self.git.shown()
    }

    /// Returns the address with the commit, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{}#{}", self.git.shown(), self.commit)
    }
}

impl Fetcher<'_> {
    /// Learns which commit is meant now.
    ///
    /// # Errors
    /// Fails when the repository cannot be asked, has no such branch or tag, or another
    /// commit than `git.checksum` says.
    pub fn resolve_git(&self, git: &GitRef, keep_git_dir: bool) -> Result<Checkout> {
        let keep_git_dir = git.keep_git_dir.unwrap_or(keep_git_dir);
        let found = match git.reference.as_deref().filter(|name| is_commit(name)) {
            Some(commit) => Found { commit: commit.to_owned(), tag: None, reference: None },
            None => self.look_up(git)?,
        };
        if let Some(checksum) = &git.checksum {
            let is_it = |name: &String| name.starts_with(checksum);
            if !is_it(&found.commit) && !found.tag.as_ref().is_some_and(is_it) {
                return Err(Error::Checksum {
                    what: git.shown(),
                    actual: found.commit,
                    expected: checksum.clone(),
                });
            }
        }
        let Found { commit, reference, .. } = found;
        Ok(Checkout { git: git.clone(), commit, reference, keep_git_dir })
    }

    fn look_up(&self, git: &GitRef) -> Result<Found> {
        let mut args = vec!["ls-remote", "--symref", "--", &git.remote];
        let peeled = git.reference.as_ref().map(|name| format!("{name}^{{}}"));
        match (&git.reference, &peeled) {
            (Some(name), Some(peeled)) => args.extend([name.as_str(), peeled.as_str()]),
            _ => args.push("HEAD"),
        }
        let name = format!("[internal] load git metadata {}", git.shown());
        let listed = self.shown(name, |step| self.run(git, &args, Path::new("/"), Some(step)))?;
        found(&listed, git.reference.as_deref()).ok_or_else(|| {
            let name = git.reference.as_deref().unwrap_or("HEAD");
            failed(git, &format!("repository does not contain ref {name}"))
        })
    }

    /// Returns the files, as they are in the store or fetched now.
    ///
    /// # Errors
    /// Fails when the repository cannot be fetched, or has no such directory.
    pub fn open_git(&self, checkout: &Checkout) -> Result<TarTree> {
        let key = checkout.key();
        let store = self.lease.store();
        let known = store.steps().get(self.lease, &key)?.and_then(|record| record.layer);
        let blob = match known {
            Some((_, blob)) => blob,
            None => {
                let name = format!("[internal] load git source {}", checkout.shown());
                let written = self.shown(name, |step| self.check_out(checkout, step))?;
                let blob = written.blob.clone();
                let record = StepRecord::of_layer(written.diff_id, blob, serde_json::Value::Null);
                store.steps().put(self.lease, &key, &record)?;
                written.blob
            }
        };
        let path = PathBuf::from(checkout.git.shown());
        TarTree::read(&Arc::new(store.blobs().open(&blob.digest)?.file), &path)
    }

    /// Fetches a commit and packs what is wanted of it.
    fn check_out(&self, checkout: &Checkout, step: usize) -> Result<crate::copy::Written> {
        let Checkout { git, commit, reference, keep_git_dir } = checkout;
        let dir = self.lease.scratch("git")?;
        let run = |args: &[&str]| self.run(git, args, &dir, Some(step));
        let format = if commit.len() == 64 { "sha256" } else { "sha1" };
        run(&["init", "-q", "--template=", &format!("--object-format={format}"), "."])?;
        run(&["remote", "add", "--", "origin", &git.remote])?;
        self.fetch(checkout, &dir, step)?;
        let branch = reference.as_deref().and_then(|name| name.strip_prefix("refs/heads/"));
        match branch.filter(|_| *keep_git_dir) {
            Some(branch) => run(&["checkout", "-q", "-B", branch, commit])?,
            None => run(&["checkout", "-q", "--detach", commit])?,
        };
        if let Some(tag) = reference.as_deref().filter(|name| name.starts_with("refs/tags/")) {
            run(&["update-ref", tag, commit])?;
        }
        if !git.skip_submodules {
            let args = ["submodule", "update", "-q", "--init", "--recursive", "--depth=1"];
            run(&args)?;
        }
        let time = run(&["show", "-s", "--format=%ct", "HEAD^{commit}"])?;
        let time: i64 = time.trim().parse().unwrap_or(0);
        if *keep_git_dir {
            run(&["remote", "set-url", "origin", &git.shown()])?;
            run(&["reflog", "expire", "--all", "--expire=now"])?;
        }
        self.pack(checkout, &dir, time)
    }

    fn fetch(&self, checkout: &Checkout, dir: &Path, step: usize) -> Result<()> {
        let Checkout { git, commit, reference, .. } = checkout;
        let fetch = |args: &[&str]| {
            let mut all =
                vec!["fetch", "-q", "--no-tags", "--no-recurse-submodules", "--update-head-ok"];
            all.extend_from_slice(args);
            self.run(git, &all, dir, Some(step))
        };
        let has_it = || {
            self.run(git, &["cat-file", "-e", &format!("{commit}^{{commit}}")], dir, None).is_ok()
        };
        // The commit alone, then its branch alone, then everything: servers differ in what
        // they give away, and the plain HTTP of a file server knows no shallow clones.
        let mut failure = match fetch(&["--depth=1", "--", "origin", commit]) {
            Ok(_) if has_it() => return Ok(()),
            Ok(_) => None,
            Err(error) if error.is_cancelled() => return Err(error),
            Err(error) => Some(error),
        };
        if let Some(name) = reference
            && fetch(&["--depth=1", "--", "origin", name]).is_ok()
            && has_it()
        {
            return Ok(());
        }
        match fetch(&["--tags", "--", "origin", "+refs/heads/*:refs/remotes/origin/*"]) {
            Ok(_) if has_it() => return Ok(()),
            Ok(_) => {}
            Err(error) => failure = Some(error),
        }
        let missing = || failed(git, &format!("repository does not contain commit {commit}"));
        Err(failure.unwrap_or_else(missing))
    }

    /// Writes the files of a checkout as a plain tar into the store.
    fn pack(&self, checkout: &Checkout, dir: &Path, time: i64) -> Result<crate::copy::Written> {
        let Checkout { git, keep_git_dir, .. } = checkout;
        // Also in submodules there is a `.git`; no tracked file can have this name.
        let hidden = if *keep_git_dir { "" } else { "**/.git" };
        let ignore = Ignore::parse(hidden).expect("the pattern is well-formed");
        let context = Context::open(dir, ignore, Index::empty())?;
        let subdir = git.subdir.to_str().ok_or_else(|| failed(git, "invalid subdir"))?;
        if !context.lookup(&git.subdir)?.is_some_and(|node| node.is_dir()) {
            return Err(failed(git, &format!("invalid subdir {subdir}: no such directory")));
        }
        let none = Ignore::default();
        let word = if subdir.is_empty() { "." } else { subdir };
        // The name of a directory may look like a pattern.
        let word = word.replace(['\\', '*', '?', '['], "?");
        let selected = select(&context, &Selector { word: &word, parents: false, exclude: &none })?;
        let mtime = Mtime { seconds: time, nanoseconds: 0 };
        let mut placement = Placement::new(&Empty, None, None, mtime);
        for selected in selected.iter().filter(|selected| selected.path == git.subdir) {
            placement.place(selected, &context, &Destination::new("/"))?;
        }
        let mut entries = placement.into_entries();
        for placed in entries.values_mut() {
            let node = &mut placed.node;
            node.mtime = mtime;
            node.mode = match node.kind {
                Kind::File { .. } if node.mode & 0o100 == 0 => 0o644,
                Kind::Symlink { .. } => 0o777,
                _ => 0o755,
            };
        }
        let how = LayerWriting { clamp: None, check: &|| self.cancel.check() };
        write_layer(self.lease, &context, &entries, &how)
    }

    /// Runs git and returns what it prints; what it complains about goes to `step`.
    fn run(&self, git: &GitRef, args: &[&str], dir: &Path, step: Option<usize>) -> Result<String> {
        self.cancel.check()?;
        let mut child = self
            .command(args, dir)
            .spawn()
            .map_err(|error| failed(git, &format!("`git` is needed to fetch it: {error}")))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let (status, printed, complaints) = std::thread::scope(|scope| {
            let printed = scope.spawn(|| read(stdout));
            let complaints = scope.spawn(|| read(stderr));
            let end = Instant::now() + MAX_TIME;
            let status = loop {
                match child.try_wait() {
                    Ok(None) if self.cancel.is_stopped() || Instant::now() > end => {
                        // Its helpers are in its group; who is gone already need not be told.
                        let _gone = nix::sys::signal::killpg(group, nix::sys::signal::SIGKILL);
                        break child.wait();
                    }
                    Ok(None) => std::thread::sleep(POLL),
                    Ok(Some(status)) => break Ok(status),
                    Err(error) => break Err(error),
                }
            };
            let join = |reader: std::thread::ScopedJoinHandle<'_, String>| {
                reader.join().expect("reading does not panic")
            };
            (status, join(printed), join(complaints))
        });
        self.cancel.check()?;
        let is_success = status.is_ok_and(|status| status.success());
        if is_success {
            return Ok(printed);
        }
        if let Some(step) = step {
            for line in complaints.lines() {
                let line = line.to_owned();
                (self.events)(Event::Log { step, stream: Stream::Stderr, line });
            }
        }
        Err(failed(git, &reason(&complaints, args)))
    }

    /// Returns git with an environment of its own making.
    fn command(&self, args: &[&str], dir: &Path) -> Command {
        // The shell sets what only a process can set for itself, and becomes git.
        let script = format!("umask 022; ulimit -f {MAX_FILE_BLOCKS} 2>/dev/null; exec git \"$@\"");
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).arg("git");
        for setting in [
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "core.attributesFile=/dev/null",
            "core.excludesFile=/dev/null",
            "core.askPass=",
            "credential.helper=",
            "submodule.recurse=false",
            "gc.auto=0",
            "maintenance.auto=false",
            "advice.detachedHead=false",
            "http.lowSpeedLimit=1",
            "http.lowSpeedTime=60",
        ] {
            command.args(["-c", setting]);
        }
        command.args(args).current_dir(dir).env_clear().process_group(0);
        command.envs(&self.git.variables);
        let known_hosts = match &self.git.known_hosts {
            // In double quotes ssh takes blanks. The single ones are for the shell that starts it.
            Some(path) => {
                let path = path.display().to_string().replace('\'', "'\\''");
                format!(" -o 'UserKnownHostsFile=\"{path}\"'")
            }
            None => String::new(),
        };
        let ssh = format!(
            "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new{known_hosts}"
        );
        command
            .env("GIT_ALLOW_PROTOCOL", "http:https:git:ssh")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_CEILING_DIRECTORIES", dir.parent().unwrap_or(dir))
            .env("GIT_SSH_COMMAND", ssh)
            .env("HOME", "/dev/null")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// What `ls-remote` found.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// The commit, also where a tag leads to it.
    commit: String,
    /// The object of an annotated tag.
    tag: Option<String>,
    reference: Option<String>,
}

/// Chooses as git does: a full name, then a branch, then a tag.
fn found(listed: &str, wanted: Option<&str>) -> Option<Found> {
    let lines: Vec<(&str, &str)> =
        listed.lines().filter_map(|line| line.split_once('\t')).collect();
    let object = |name: &str| {
        let found = lines.iter().find(|(object, found)| *found == name && is_commit(object));
        found.map(|(object, _)| (*object).to_owned())
    };
    let Some(wanted) = wanted else {
        let target = lines
            .iter()
            .find_map(|(target, name)| target.strip_prefix("ref: ").filter(|_| *name == "HEAD"));
        let reference = target.map(str::to_owned);
        return Some(Found { commit: object("HEAD")?, tag: None, reference });
    };
    let names = [
        format!("refs/{}", wanted.trim_start_matches("refs/")),
        format!("refs/heads/{}", wanted.trim_start_matches("refs/heads/")),
        format!("refs/tags/{}", wanted.trim_start_matches("refs/tags/")),
    ];
    let (name, first) = names.iter().find_map(|name| Some((name, object(name)?)))?;
    let reference = Some(name.clone());
    Some(match object(&format!("{name}^{{}}")) {
        Some(commit) => Found { commit, tag: Some(first), reference },
        None => Found { commit: first, tag: None, reference },
    })
}

/// Reads what a process prints, to its end but not without bound.
fn read(pipe: Option<impl std::io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // A broken pipe ends the text, and the exit status says the rest.
        let _partial = pipe.by_ref().take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes);
        let _drained = std::io::copy(&mut pipe, &mut std::io::sink());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns git's own word for a failure: its first `fatal:` line, or the last of all.
fn reason(complaints: &str, args: &[&str]) -> String {
    let clean = |line: &str| -> String { line.chars().filter(|c| !c.is_control()).collect() };
    let lines = || complaints.lines().map(str::trim).filter(|line| !line.is_empty());
    let line =
        lines().find_map(|line| line.strip_prefix("fatal: ")).or_else(|| lines().next_back());
    let command = args.first().copied().unwrap_or_default();
    line.map_or_else(
        || format!("git {command} failed"),
        |line| format!("git {command}: {}", clean(line)),
    )
}

fn failed(git: &GitRef, reason: &str) -> Error {
    let remote = git.shown();
    // What git says repeats the address as it was given.
    Error::Git { reason: reason.replace(&git.remote, &remote), remote }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn a_branch_comes_before_a_tag_and_a_tag_leads_to_its_commit() {
        let listed = format!("{A}\trefs/tags/v1\n{B}\trefs/tags/v1^{{}}\n");
        let expected =
            Found { commit: B.into(), tag: Some(A.into()), reference: Some("refs/tags/v1".into()) };
        assert_eq!(found(&listed, Some("v1")), Some(expected));
        let listed = format!("{A}\trefs/heads/x\n{B}\trefs/tags/x\n");
        let chosen = |wanted: &str| found(&listed, Some(wanted)).unwrap().commit;
        assert_eq!(chosen("x"), A);
        assert_eq!(chosen("refs/tags/x"), B);
        assert_eq!(chosen("tags/x"), B);
        // `ls-remote x` also lists what ends in x.
        assert_eq!(found(&format!("{A}\trefs/heads/y/x\n"), Some("x")), None);
        let head = format!("ref: refs/heads/main\tHEAD\n{A}\tHEAD\n");
        assert_eq!(found(&head, None).unwrap().reference.as_deref(), Some("refs/heads/main"));
        assert_eq!(found("", None), None);
        assert_eq!(found("--option\trefs/heads/x\n", Some("x")), None);
    }

    #[test]
    fn gits_words_are_quoted_without_passwords() {
        let git = GitRef { remote: "https://u:secret@h/x.git".into(), ..GitRef::default() };
        let said =
            "warning: x\nfatal: unable to access 'https://u:secret@h/x.git/': no\u{1b}[31m\n";
        let error = failed(&git, &reason(said, &["fetch", "-q"])).to_string();
        assert_eq!(
            error,
            "cannot fetch https://u:xxxxx@h/x.git: git fetch: unable to access 'https://u:xxxxx@h/x.git/': no[31m"
        );
        assert_eq!(reason("", &["fetch"]), "git fetch failed");
    }
}

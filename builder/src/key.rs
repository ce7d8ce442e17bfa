//! Content keys: what the result of a step depends on, as one digest.
//!
//! Two steps with equal keys have equal results (as far as the step itself is
//! deterministic), on any machine. What stays out matters as much as what goes in: the
//! instruction's text and comments, proxies, secrets, times, inode numbers, and every
//! metadata instruction that the step does not see.
//!
//! The state a step builds on enters as the chain of its layers, not as the key of the
//! step before: a changed step that yields the same files leads to the same keys again.

use oci::{Algorithm, ChainId, DiffId, Digest, Hasher};

use crate::dockerfile::MountKind;
use crate::plan::{Copy, CopySource, Run, RunMount, Workdir};

/// Changes when the meaning of keys does, so that old records are not found any more.
const VERSION: &str = "rbuild-step/1";

/// How much of a field is kept to explain a difference.
const MAX_DESCRIBED_CHARS: usize = 200;

/// Collects named, length-prefixed fields, so that no two lists of fields look alike.
#[derive(Debug)]
pub struct Key {
    hasher: Hasher,
    /// What was added, for people.
    fields: Vec<(String, String)>,
}

impl Key {
    /// Starts a key of some kind.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        let mut key = Self { hasher: Hasher::new(Algorithm::Sha256), fields: Vec::new() };
        key.bytes(VERSION.as_bytes());
        key.bytes(kind.as_bytes());
        key
    }

    /// Adds a field.
    pub fn field(&mut self, name: &str, value: &str) {
        self.bytes(name.as_bytes());
        self.bytes(value.as_bytes());
        self.describe(name, value);
    }

    /// Adds a list; an empty one differs from none.
    pub fn list<'a>(&mut self, name: &str, values: impl IntoIterator<Item = &'a str>) {
        let values: Vec<&str> = values.into_iter().collect();
        self.bytes(name.as_bytes());
        self.bytes(values.len().to_string().as_bytes());
        for value in &values {
            self.bytes(value.as_bytes());
        }
        self.describe(name, &values.join(" "));
    }

    /// Remembers a field for people, as far as it is worth reading.
    fn describe(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            let value = value.chars().take(MAX_DESCRIBED_CHARS).collect();
            self.fields.push((name.to_owned(), value));
        }
    }

    /// Returns the digest of all fields as text, and the fields themselves.
    fn described(self) -> (String, Vec<(String, String)>) {
        (self.hasher.finish().to_string(), self.fields)
    }

    /// Returns the digest of all fields.
    #[must_use]
    pub fn finish(self) -> Digest {
        self.hasher.finish()
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }
}

/// Returns the text that stands for a stack of layers in keys.
#[must_use]
pub fn state(layers: &[DiffId]) -> String {
    ChainId::of(layers).map_or_else(|| "scratch".to_owned(), |chain| chain.to_string())
}

/// What a step's key consists of, kept apart so that a miss can be explained.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Parts {
    /// What the step builds on.
    pub base: String,
    /// The instruction, without its environment and files.
    pub instruction: String,
    /// What the digest of the instruction consists of, shortened, for people.
    #[serde(default)]
    pub fields: Vec<(String, String)>,
    /// The variables it sees.
    pub env: Vec<String>,
    /// The digest of the files it copies.
    pub files: Option<String>,
    /// The clamp of times, which is part of every layer.
    pub clamp: Option<i64>,
}

impl Parts {
    /// Returns the key.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut key = Key::new("step");
        key.field("base", &self.base);
        key.field("instruction", &self.instruction);
        key.list("env", self.env.iter().map(String::as_str));
        key.list("files", self.files.as_deref());
        key.list("clamp", self.clamp.map(|clamp| clamp.to_string()).as_deref());
        key.finish()
    }
}

/// What the key of a RUN depends on besides the instruction and what is below it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<'a> {
    /// What its mounts show of other stages and images.
    pub mounted: &'a [String],
    /// The digest of what its mounts show of build contexts.
    pub files: Option<&'a Digest>,
    /// What the build's options change inside of every RUN.
    pub settings: &'a [String],
}

/// Returns the parts of a RUN's key.
#[must_use]
pub fn run(run: &Run, base: &[DiffId], around: Around<'_>, clamp: Option<i64>) -> Parts {
    let Around { mounted, files, settings } = around;
    let Run { args, env, hidden_env: _, cwd, user, script, mounts, network, security } = run;
    let mut key = Key::new("run");
    key.list("args", args.iter().map(String::as_str));
    key.field("cwd", cwd);
    key.field("user", user);
    key.list("script", script.as_ref().map(|(_, content)| content.as_str()));
    key.field("network", &format!("{network:?}"));
    key.field("security", &format!("{security:?}"));
    for mount in mounts {
        key.field("mount", &described(mount));
    }
    key.list("mounted", mounted.iter().map(String::as_str));
    if !settings.is_empty() {
        key.list("settings", settings.iter().map(String::as_str));
    }
    let (instruction, fields) = key.described();
    Parts {
        base: state(base),
        instruction,
        fields,
        env: env.clone(),
        files: files.map(ToString::to_string),
        clamp,
    }
}

/// Describes a mount without where its files come from: what they are is told apart by
/// their digest.
fn described(mount: &RunMount) -> String {
    let RunMount { target, read_only, kind, origin } = mount;
    let kind = match kind.clone() {
        MountKind::Bind { .. } => MountKind::Bind { from: None, source: None },
        MountKind::Cache { id, sharing, owner, .. } => {
            MountKind::Cache { id, sharing, from: None, source: None, owner }
        }
        other => other,
    };
    format!("{target:?} {read_only} {kind:?} {}", origin.is_some())
}

/// Returns the parts of a COPY's key; `files` is the content digest of its sources.
#[must_use]
pub fn copy(copy: &Copy, base: &[DiffId], files: Option<&Digest>, clamp: Option<i64>) -> Parts {
    let Copy {
        is_add,
        origin: _, // Where files come from does not matter, only what they are.
        sources,
        destination,
        chown,
        chmod,
        link,
        parents,
        exclude,
        unpack,
    } = copy;
    let mut key = Key::new(if *is_add { "add" } else { "copy" });
    key.field("destination", destination);
    key.list("chown", chown.as_deref());
    key.list("chmod", chmod.as_ref().map(|mode| format!("{mode:?}")).as_deref());
    key.field("flags", &format!("{link} {parents} {unpack}"));
    key.list("exclude", exclude.iter().map(String::as_str));
    for source in sources {
        match source {
            // The names that reach the image are in the content digest.
            CopySource::Path(_) => key.field("source", ""),
            // What they hold now is in the content digest, and so are their names.
            CopySource::Http { url: _, checksum: _, unpack } => {
                key.field("http", &unpack.to_string());
            }
            CopySource::Git { git: _, keep_git_dir: _ } => key.field("git", ""),
            CopySource::Inline { name, content } => {
                key.field("inline", name);
                key.field("content", content);
            }
        }
    }
    let (instruction, fields) = key.described();
    Parts {
        // A linked copy is the same layer wherever it is put.
        base: if *link { state(&[]) } else { state(base) },
        instruction,
        fields,
        env: Vec::new(),
        files: files.map(ToString::to_string),
        clamp,
    }
}

/// Returns the parts of a WORKDIR's key.
#[must_use]
pub fn workdir(workdir: &Workdir, base: &[DiffId], clamp: Option<i64>) -> Parts {
    let mut key = Key::new("workdir");
    key.field("path", &workdir.path);
    key.field("user", &workdir.user);
    let (instruction, fields) = key.described();
    Parts { base: state(base), instruction, fields, env: Vec::new(), files: None, clamp }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::{RunNetwork, RunSecurity};
    use crate::plan::Origin;

    fn sample_run() -> Run {
        Run {
            args: vec!["/bin/sh".into(), "-c".into(), "make".into()],
            env: vec!["PATH=/bin".into()],
            hidden_env: Vec::new(),
            cwd: "/".into(),
            user: String::new(),
            script: None,
            mounts: Vec::new(),
            network: RunNetwork::Default,
            security: RunSecurity::Sandbox,
        }
    }

    fn sample_copy() -> Copy {
        Copy {
            is_add: false,
            origin: Origin::Context,
            sources: vec![CopySource::Path("a".into())],
            destination: "/x".into(),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            unpack: false,
        }
    }

    fn layers(count: u8) -> Vec<DiffId> {
        (0..count).map(|n| DiffId(Digest::sha256(&[n]))).collect()
    }

    #[test]
    fn a_run_is_keyed_by_what_its_process_can_see() {
        let digest = |run: &Run| super::run(run, &layers(1), Around::default(), None).digest();
        let base = digest(&sample_run());
        let same = Run { hidden_env: vec!["HTTP_PROXY=p".into()], ..sample_run() };
        assert_eq!(digest(&same), base, "proxies do not count");
        let others = [
            Run { args: vec!["make".into()], ..sample_run() },
            Run { env: vec!["PATH=/bin".into(), "A=".into()], ..sample_run() },
            Run { cwd: "/x".into(), ..sample_run() },
            Run { user: "u".into(), ..sample_run() },
            Run { script: Some(("EOF".into(), "#!/x".into())), ..sample_run() },
            Run { network: RunNetwork::None, ..sample_run() },
        ];
        for other in &others {
            assert_ne!(digest(other), base, "{other:?}");
        }
        let other = |base: &[DiffId], around: Around<'_>, clamp| {
            super::run(&sample_run(), base, around, clamp).digest()
        };
        assert_ne!(other(&layers(2), Around::default(), None), base);
        let files = Digest::sha256(b"files");
        let around = Around { files: Some(&files), ..Around::default() };
        assert_ne!(other(&layers(1), around, None), base);
        let mounted = ["sha256:x".to_owned()];
        let around = Around { mounted: &mounted, ..Around::default() };
        assert_ne!(other(&layers(1), around, None), base);
        let around = Around { settings: &mounted, ..Around::default() };
        assert_ne!(other(&layers(1), around, None), base);
        assert_ne!(other(&layers(1), Around::default(), Some(0)), base);
    }

    #[test]
    fn a_copy_is_keyed_by_content_and_not_by_where_it_is() {
        let files = Digest::sha256(b"files");
        let digest = |copy: &Copy| super::copy(copy, &layers(1), Some(&files), None).digest();
        let base = digest(&sample_copy());
        let moved = Copy {
            origin: Origin::Stage(3),
            sources: vec![CopySource::Path("deep/a".into())],
            ..sample_copy()
        };
        assert_eq!(digest(&moved), base);
        let others = [
            Copy { destination: "/y".into(), ..sample_copy() },
            Copy { chown: Some("1".into()), ..sample_copy() },
            Copy { link: true, ..sample_copy() },
            Copy { is_add: true, ..sample_copy() },
        ];
        for other in &others {
            assert_ne!(digest(other), base, "{other:?}");
        }
        let linked = Copy { link: true, ..sample_copy() };
        assert_eq!(
            digest(&linked),
            super::copy(&linked, &layers(3), Some(&files), None).digest(),
            "a linked copy does not depend on what is below"
        );
    }

    #[test]
    fn neighbouring_fields_do_not_run_together() {
        let key = |a: &str, b: &str| {
            let mut key = Key::new("k");
            key.field("f", a);
            key.field("f", b);
            key.finish()
        };
        assert_ne!(key("ab", "c"), key("a", "bc"));
    }
}

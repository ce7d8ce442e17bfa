//! `RUN --mount=…`: its text, and its meaning once variables are expanded.

use super::clean::{base, clean};
use super::expand::{ExpandError, Expander, Lookup};
use super::quote::quote;
use super::suggest::nearest;
use super::units::parse_bytes;

/// The value of a `--mount` flag as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountText(pub String);

/// One mount of a RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where in the container; relative paths start at the working directory.
    /// `None` means the working directory itself (bind, cache, tmpfs), no file
    /// (a secret that is only a variable), or a place of the builder's choice (ssh).
    pub target: Option<String>,
    /// Whether writing is refused.
    pub read_only: bool,
    /// What is mounted.
    pub kind: MountKind,
}

/// What a RUN mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A directory or file of the context, a stage or an image.
    Bind {
        /// Stage, image or named context; the build context without it.
        from: Option<String>,
        /// Path in `from`; its root without it.
        source: Option<String>,
    },
    /// A directory that outlives the build.
    Cache {
        /// The cache's name: `id`, else the cleaned target path.
        id: String,
        /// Who may use it at once.
        sharing: Sharing,
        /// What a new cache starts from.
        from: Option<String>,
        /// Path in `from`.
        source: Option<String>,
        /// Mode and owner of a new cache.
        owner: FileOwner,
    },
    /// A file system in memory.
    Tmpfs {
        /// Its largest size in bytes.
        size_bytes: Option<u64>,
    },
    /// A secret as a file, as a variable, or both.
    Secret {
        /// The secret's name: `id`, else `source`, else the target's last part.
        id: String,
        /// The environment variable to set.
        env: Option<String>,
        /// Whether the build fails without it.
        required: bool,
        /// Mode and owner of the file.
        owner: FileOwner,
    },
    /// A socket of an SSH agent.
    Ssh {
        /// The agent's name (`default`).
        id: String,
        /// Whether the build fails without it.
        required: bool,
        /// Mode and owner of the socket.
        owner: FileOwner,
    },
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Everyone.
    Shared,
    /// One at a time; others get a cache of their own.
    Private,
    /// One at a time; others wait.
    Locked,
}

/// Mode and owner asked for; `None` where nothing was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileOwner {
    /// The permission bits.
    pub mode: Option<u32>,
    /// The user's number.
    pub uid: Option<u32>,
    /// The group's number.
    pub gid: Option<u32>,
}

/// What is wrong with a mount, and the nearest valid word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", suggestion.map(|word| format!(" (did you mean {word}?)")).unwrap_or_default())]
pub struct MountError {
    /// What is wrong, in BuildKit's words.
    pub message: String,
    /// The nearest valid word.
    pub suggestion: Option<&'static str>,
}

impl MountError {
    pub(super) fn new(message: String) -> Self {
        Self { message, suggestion: None }
    }

    fn near(message: String, word: &str, valid: &[&'static str]) -> Self {
        Self { message, suggestion: nearest(word, valid.iter().copied()) }
    }
}

impl From<ExpandError> for MountError {
    fn from(error: ExpandError) -> Self {
        Self::new(error.to_string())
    }
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];
const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

impl MountText {
    /// Returns the mount, its values expanded with the file's escape character and `env`.
    ///
    /// Keys count in the order written, as in BuildKit: `size` and `required`
    /// are refused before the `type` that allows them.
    ///
    /// # Errors
    ///
    /// Fails on unknown keys and types, values that do not parse, keys that the
    /// type does not have, and variables that cannot be expanded.
    pub fn resolve(&self, escape: char, env: Lookup<'_>) -> Result<Mount, MountError> {
        let fields = self.fields()?;
        let expander = Expander::new(escape);
        let mut draft = Draft::default();
        for field in &fields {
            match field.split_once('=') {
                None => draft.set_bare(field)?,
                Some((key, value)) => {
                    draft.set(&key.to_lowercase(), expander.word(value, env)?.text, field)?;
                }
            }
        }
        draft.finish()
    }

    /// Finds what is wrong whatever the variables are.
    pub(super) fn check(&self, escape: char) -> Result<(), MountError> {
        for field in self.fields()? {
            let Some((key, value)) = field.split_once('=') else { continue };
            // A `$` at the very end is no variable.
            let has_variable = value.find('$').is_some_and(|at| at + 1 < value.len());
            if key.eq_ignore_ascii_case("from") && has_variable {
                let message =
                    "'from' doesn't support variable expansion, define alias stage instead";
                return Err(MountError::new(message.to_owned()));
            }
        }
        if self.0.contains('$') {
            return Ok(());
        }
        self.resolve(escape, &|_| None).map(|_| ())
    }

    fn fields(&self) -> Result<Vec<String>, MountError> {
        csv_fields(&self.0)
            .map_err(|error| MountError::new(format!("failed to parse csv mounts: {error}")))
    }
}

/// The keys read so far.
#[derive(Debug, Default)]
struct Draft {
    kind: Type,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: Option<bool>,
    size_bytes: Option<u64>,
    id: Option<String>,
    sharing: Option<Sharing>,
    required: bool,
    env: Option<String>,
    owner: FileOwner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Type {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

impl Draft {
    fn set_bare(&mut self, field: &str) -> Result<(), MountError> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            key @ "required" => {
                self.only_for(key, &[Type::Secret, Type::Ssh])?;
                self.required = true;
            }
            _ => {
                let message = format!("invalid field '{field}' must be a key=value pair");
                return Err(MountError::new(message));
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: String, field: &str) -> Result<(), MountError> {
        let boolean = |value: &str| {
            let error = || MountError::new(format!("invalid value for {key}: {value}"));
            parse_bool(value).ok_or_else(error)
        };
        let number = |value: &str, radix| {
            let error = |_| MountError::new(format!("invalid value {value} for {key}"));
            u32::from_str_radix(value, radix).map_err(error)
        };
        // An empty value says as much as no key.
        let text = |value: String| (!value.is_empty()).then_some(value);
        match key {
            "type" => self.kind = parse_type(&value)?,
            "from" => self.from = text(value),
            "source" | "src" => self.source = text(value),
            "target" | "dst" | "destination" => self.target = text(value),
            "readonly" | "ro" => self.read_only = Some(boolean(&value)?),
            "readwrite" | "rw" => self.read_only = Some(!boolean(&value)?),
            "required" => {
                self.only_for(key, &[Type::Secret, Type::Ssh])?;
                self.required = boolean(&value)?;
            }
            "size" => {
                self.only_for(key, &[Type::Tmpfs])?;
                let error = || MountError::new(format!("invalid value for {key}: {value}"));
                self.size_bytes = Some(parse_bytes(&value).ok_or_else(error)?);
            }
            "id" => self.id = text(value),
            "sharing" => self.sharing = Some(parse_sharing(&value)?),
            "mode" => self.owner.mode = Some(number(&value, 8)?),
            "uid" => self.owner.uid = Some(number(&value, 10)?),
            "gid" => self.owner.gid = Some(number(&value, 10)?),
            "env" => self.env = Some(value),
            _ => {
                let message = format!("unexpected key '{key}' in '{field}'");
                return Err(MountError::near(message, key, &KEYS));
            }
        }
        Ok(())
    }

    fn only_for(&self, key: &str, types: &[Type]) -> Result<(), MountError> {
        if types.contains(&self.kind) {
            return Ok(());
        }
        let kind = self.kind.name();
        Err(MountError::new(format!("unexpected key '{key}' for mount type '{kind}'")))
    }

    fn finish(self) -> Result<Mount, MountError> {
        let error = |message: &str| Err(MountError::new(message.to_owned()));
        let FileOwner { mode, uid, gid } = self.owner;
        if matches!(self.kind, Type::Bind | Type::Tmpfs) {
            for (key, value) in [("mode", mode), ("uid", uid), ("gid", gid)] {
                if value.is_some() {
                    let kind = quote(self.kind.name());
                    return error(&format!("{key} not allowed for {kind} type mounts"));
                }
            }
        }
        if self.kind == Type::Secret {
            if self.from.is_some() {
                return error("secret mount should not have a from");
            }
            if self.sharing.is_some() {
                return error("secret mount should not define sharing");
            }
            if self.source.is_some() && self.id.is_some() {
                return error("both source and id can't be set");
            }
        }
        if self.sharing.is_some() && self.kind != Type::Cache {
            let kind = self.kind.name();
            return error(&format!("invalid cache sharing set for {kind} mount"));
        }
        let usual = !matches!(self.kind, Type::Cache | Type::Tmpfs);
        let read_only = self.read_only.unwrap_or(usual);
        let owner = self.owner;
        let (target, kind) = match self.kind {
            Type::Bind => (self.target, MountKind::Bind { from: self.from, source: self.source }),
            Type::Tmpfs => (self.target, MountKind::Tmpfs { size_bytes: self.size_bytes }),
            Type::Cache => {
                let id = self.id.unwrap_or_else(|| clean(self.target.as_deref().unwrap_or("")));
                let sharing = self.sharing.unwrap_or(Sharing::Shared);
                let (from, source) = (self.from, self.source);
                (self.target, MountKind::Cache { id, sharing, from, source, owner })
            }
            Type::Secret => {
                let Some(id) = self
                    .source
                    .or(self.id)
                    .or_else(|| self.target.as_deref().map(|target| base(target).to_owned()))
                else {
                    return error("invalid secret mount. one of source, target required");
                };
                let usual = || self.env.is_none().then(|| format!("/run/secrets/{}", base(&id)));
                let target = self.target.or_else(usual);
                (target, MountKind::Secret { id, env: self.env, required: self.required, owner })
            }
            Type::Ssh => {
                if self.source.is_some() {
                    return error("ssh does not support source");
                }
                let id = self.id.unwrap_or_else(|| "default".to_owned());
                (self.target, MountKind::Ssh { id, required: self.required, owner })
            }
        };
        Ok(Mount { target, read_only, kind })
    }
}

fn parse_type(value: &str) -> Result<Type, MountError> {
    match value.to_lowercase().as_str() {
        "bind" => Ok(Type::Bind),
        "cache" => Ok(Type::Cache),
        "tmpfs" => Ok(Type::Tmpfs),
        "secret" => Ok(Type::Secret),
        "ssh" => Ok(Type::Ssh),
        _ => {
            let message = format!("unsupported mount type {}", quote(value));
            Err(MountError::near(message, value, &TYPES))
        }
    }
}

fn parse_sharing(value: &str) -> Result<Sharing, MountError> {
    match value.to_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => {
            let message = format!("unsupported sharing value {}", quote(value));
            Err(MountError::near(message, value, &["shared", "private", "locked"]))
        }
    }
}

/// Reads a boolean as Go's `strconv.ParseBool` does.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Cuts one line of comma-separated values; a field in double quotes may hold
/// commas, and doubled quotes (RFC 4180).
///
/// # Errors
///
/// Fails on a quote inside an unquoted field, and on text behind a quoted one.
pub(crate) fn csv_fields(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = line;
    if line.is_empty() {
        return Ok(fields);
    }
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                if field.contains('"') {
                    return Err("bare \" in non-quoted field");
                }
                (field.to_owned(), after)
            }
            Some(inside) => quoted_field(inside)?,
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

fn quoted_field(text: &str) -> Result<(String, &str), &'static str> {
    const ERROR: &str = "extraneous or missing \" in quoted-field";
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (inside, after) = rest.split_once('"').ok_or(ERROR)?;
        field.push_str(inside);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None if after.is_empty() || after.starts_with(',') => return Ok((field, after)),
            None => return Err(ERROR),
        }
    }
}

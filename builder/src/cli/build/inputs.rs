//! Where a build's files and its Dockerfile come from.
//!
//! | context | is |
//! |---|---|
//! | a directory | its files, without what the ignore file excludes |
//! | `-` | stdin: a tar (also compressed), or a Dockerfile without files; told by content |
//! | an address | a git repository, or an archive or a Dockerfile on a web server |

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{IsTerminal as _, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use oci::Reference;
use store::Lease;

use crate::cli::check::Subject;
use crate::cli::progress::human_size;
use crate::context::{Contexts, SharedTree, Source, ignore_file};
use crate::copy::Unpacked;
use crate::fetch::{Remote, without_password};
use crate::ignore::Ignore;
use crate::plan::{NamedContext, NamedContexts, Options};
use crate::tree::{Empty, Kind, resolve};

/// A Dockerfile larger than this is none.
const MAX_DOCKERFILE_BYTES: u64 = 16 << 20;
/// The largest context on stdin: it takes the place of a disk's worth of files, not of a disk.
const MAX_STDIN_BYTES: u64 = 64 << 30;
/// The word for stdin.
const STDIN: &str = "-";

/// The flags about a build's files.
#[derive(Debug, clap::Args)]
pub(super) struct InputArgs {
    /// Dockerfile: a file, an address, or `-` for stdin [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// More files or images under a name, for FROM, COPY --from and mounts: a directory, an
    /// address, docker-image://…, oci-layout://… or target:STAGE (can be repeated)
    #[arg(long = "build-context", value_name = "NAME=SOURCE")]
    named: Vec<String>,
    /// Directory with the files to build from, its address, or `-` for stdin
    context: String,
}

/// The Dockerfile, and the build context.
pub(super) struct Inputs {
    /// The Dockerfile's name as messages have it.
    pub(super) shown: String,
    /// Its text.
    pub(super) text: String,
    /// Tells this build from those of other contexts and Dockerfiles.
    pub(super) identity: String,
    /// When the context was changed last, where that is known: for `SOURCE_DATE_EPOCH=context`.
    pub(super) time: Option<i64>,
    /// What is left out of the context.
    ignore: Ignore,
    context: Main,
}

/// The files of the build context.
enum Main {
    Directory(PathBuf),
    Tree(SharedTree),
}

impl InputArgs {
    /// Reads the Dockerfile where that needs no network and no store: of a directory.
    pub(super) fn here(&self) -> anyhow::Result<Option<Inputs>> {
        let file = self.file.as_deref();
        if self.context == STDIN && file == Some(STDIN) {
            bail!("invalid argument: can't use stdin for both build context and dockerfile");
        }
        if self.remote()?.is_some() || self.context == STDIN || self.remote_file().is_some() {
            return Ok(None);
        }
        let (path, text) = match file {
            Some(STDIN) => (PathBuf::from(STDIN), text_of(std::io::stdin(), "stdin")?),
            _ => local(file, &self.directory()?)?,
        };
        self.in_directory(&path, text).map(Some)
    }

    /// Reads a Dockerfile that has to be fetched, or comes with its context.
    pub(super) fn elsewhere(&self, contexts: &Contexts<'_>) -> anyhow::Result<Inputs> {
        if let (None, Some(url), false) =
            (self.remote()?, self.remote_file(), self.context == STDIN)
        {
            let found = contexts.fetcher().resolve_http(&url, None)?;
            let content = contexts.fetcher().open_http(&url, &found)?;
            let shown = without_password(&url);
            let text = text_of(content, &shown)?;
            return self.in_directory(Path::new(&shown), text);
        }
        let shown = without_password(&self.context);
        let (tree, dockerfile, time) = match self.remote()? {
            None => {
                let (tree, dockerfile) = stdin_context(contexts)?;
                (tree, dockerfile, None)
            }
            Some(remote) => {
                let (tree, time, is_file) = contexts.remote(&remote)?;
                if is_file {
                    let name = tree.list(Path::new(""))?.into_iter().next().unwrap_or_default();
                    let text = text_of(tree.open(Path::new(&name))?, &shown)?;
                    (Arc::new(Empty) as SharedTree, Some(text), time)
                } else {
                    (tree, None, time)
                }
            }
        };
        let (path, text) = match (dockerfile, self.file.as_deref()) {
            (Some(_), Some(_)) => {
                bail!("ambiguous Dockerfile source: both the context and --file are Dockerfiles")
            }
            (Some(text), None) => (PathBuf::from(STDIN), text),
            (None, Some(STDIN)) => (PathBuf::from(STDIN), text_of(std::io::stdin(), "stdin")?),
            (None, file) => in_tree(file.unwrap_or("Dockerfile"), &*tree)?,
        };
        Ok(Inputs {
            shown: shown_name(&path),
            text,
            identity: format!("{shown}\n{}", path.display()),
            time,
            // As in BuildKit: an ignore file keeps files from being sent, and nothing is sent.
            ignore: Ignore::default(),
            context: Main::Tree(tree),
        })
    }

    /// Returns what a check of the Dockerfile looks at.
    pub(super) fn subject<'a>(
        &'a self,
        inputs: &'a Inputs,
        options: &'a Options,
        lease: Option<&'a Lease>,
    ) -> Subject<'a> {
        let given = self.file.as_deref().filter(|file| *file != STDIN);
        Subject {
            path: given.unwrap_or(&inputs.shown),
            name: &inputs.shown,
            text: &inputs.text,
            ignore: &inputs.ignore,
            options,
            lease,
        }
    }

    /// Reads `--build-context`: what the names mean, and where the files are of those that have some.
    pub(super) fn named(&self) -> anyhow::Result<(NamedContexts, Vec<(String, Source)>)> {
        let (mut named, mut sources) = (NamedContexts::default(), Vec::new());
        let mut seen = BTreeSet::new();
        for text in &self.named {
            let Some((name, word)) = text.split_once('=') else {
                bail!("invalid context value: {text}, expected key=value");
            };
            let (context, source) =
                named_source(word).with_context(|| format!("invalid build context {name}"))?;
            let Some(name) = named.insert(name, context) else {
                bail!("invalid context name {name:?}");
            };
            if !seen.insert(name.clone()) {
                bail!("build context {name} is given twice");
            }
            sources.extend(source.map(|source| (name, source)));
        }
        Ok((named, sources))
    }

    /// Returns the address that the context is; a directory of the same name comes first.
    fn remote(&self) -> anyhow::Result<Option<Remote>> {
        if Path::new(&self.context).is_dir() {
            return Ok(None);
        }
        Remote::parse_context(&self.context).map_err(anyhow::Error::msg)
    }

    /// Returns the address that the Dockerfile is.
    fn remote_file(&self) -> Option<String> {
        match Remote::parse(self.file.as_deref()?) {
            Ok(Some(Remote::Http(url))) => Some(url),
            _ => None,
        }
    }

    fn directory(&self) -> anyhow::Result<PathBuf> {
        let word = &self.context;
        let directory = fs::canonicalize(word)
            .with_context(|| format!("cannot use {word} as build context"))?;
        if !directory.is_dir() {
            bail!("{word} is not a directory");
        }
        Ok(directory)
    }

    fn in_directory(&self, dockerfile: &Path, text: String) -> anyhow::Result<Inputs> {
        let directory = self.directory()?;
        Ok(Inputs {
            shown: shown_name(dockerfile),
            text,
            identity: format!("{}\n{}", directory.display(), dockerfile.display()),
            time: None,
            ignore: ignore_of(dockerfile, &directory)?,
            context: Main::Directory(directory),
        })
    }
}

impl Inputs {
    /// Returns the build context where it is a directory.
    pub(super) fn directory(&self) -> Option<&Path> {
        match &self.context {
            Main::Directory(directory) => Some(directory),
            Main::Tree(_) => None,
        }
    }

    /// Hands the build context and the named ones to the build.
    pub(super) fn give(
        &self,
        sources: Vec<(String, Source)>,
        contexts: &mut Contexts<'_>,
    ) -> crate::Result<()> {
        let main = match &self.context {
            Main::Directory(directory) => contexts.directory(directory, self.ignore.clone())?,
            Main::Tree(tree) => Arc::clone(tree),
        };
        contexts.set_main(main);
        for (name, source) in sources {
            contexts.add(name, source);
        }
        Ok(())
    }
}

/// Returns what a named context is, and where its files are if it is made of files.
fn named_source(word: &str) -> anyhow::Result<(NamedContext, Option<Source>)> {
    if let Some(image) = word.strip_prefix("docker-image://") {
        if image != "scratch" {
            image.parse::<Reference>().with_context(|| format!("{image:?} is no image"))?;
        }
        return Ok((NamedContext::Image(image.to_owned()), None));
    }
    if word.starts_with("oci-layout://") {
        let layout = crate::context::Layout::parse(word).map_err(anyhow::Error::msg)?;
        return Ok((NamedContext::Image(layout.canonical()?), None));
    }
    if let Some(stage) = word.strip_prefix("target:") {
        return Ok((NamedContext::Stage(stage.to_owned()), None));
    }
    if !Path::new(word).is_dir()
        && let Some(remote) = Remote::parse_context(word).map_err(anyhow::Error::msg)?
    {
        return Ok((NamedContext::Files, Some(Source::Remote(remote))));
    }
    let directory = fs::canonicalize(word).with_context(|| format!("cannot use {word}"))?;
    if !directory.is_dir() {
        bail!("{word} is not a directory");
    }
    Ok((NamedContext::Files, Some(Source::Directory(directory))))
}

/// Reads stdin into a file without a name: a tar becomes a tree, all else a Dockerfile.
fn stdin_context(contexts: &Contexts<'_>) -> anyhow::Result<(SharedTree, Option<String>)> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        bail!("the build context is to come from stdin, which is a terminal");
    }
    let fetcher = contexts.fetcher();
    let directory = fetcher.lease.scratch("stdin")?;
    let mut file = tempfile::tempfile_in(&directory).context("cannot keep the build context")?;
    let mut input = stdin.lock().take(MAX_STDIN_BYTES + 1);
    let mut buffer = vec![0; 256 * 1024];
    let mut length = 0;
    loop {
        fetcher.cancel.check()?;
        let count = input.read(&mut buffer).context("cannot read the build context from stdin")?;
        if count == 0 {
            break;
        }
        length += count as u64;
        file.write_all(&buffer[..count]).context("cannot keep the build context")?;
    }
    if length > MAX_STDIN_BYTES {
        bail!("the build context on stdin has more than {}", human_size(MAX_STDIN_BYTES));
    }
    file.rewind().context("cannot read the build context")?;
    let scratch = || fetcher.lease.scratch("context");
    let copy = file.try_clone().context("cannot read the build context")?;
    if let Some(tar) = Unpacked::open(copy, Path::new("the build context"), &scratch)? {
        return Ok((Arc::new(tar.into_tree()?), None));
    }
    Ok((Arc::new(Empty), Some(text_of(file, "stdin")?)))
}

/// Reads the Dockerfile of a directory, which may be anywhere.
fn local(file: Option<&str>, directory: &Path) -> anyhow::Result<(PathBuf, String)> {
    let path = file.map_or_else(|| directory.join("Dockerfile"), PathBuf::from);
    let found = match fs::canonicalize(&path) {
        // As BuildKit: the default name may be written small.
        Err(_) if file.is_none() && directory.join("dockerfile").exists() => {
            fs::canonicalize(directory.join("dockerfile"))
        }
        found => found,
    };
    let path = found.with_context(|| format!("failed to read dockerfile {}", path.display()))?;
    let failed = || format!("failed to read dockerfile {}", path.display());
    if !fs::metadata(&path).with_context(failed)?.is_file() {
        bail!("failed to read dockerfile {}: it is no file", path.display());
    }
    let text = text_of(File::open(&path).with_context(failed)?, &path.display().to_string())?;
    Ok((path, text))
}

/// Reads the Dockerfile out of a repository or archive.
fn in_tree(name: &str, tree: &dyn crate::tree::Tree) -> anyhow::Result<(PathBuf, String)> {
    let mut found = resolve(tree, Path::new(name), true)?;
    if found.node.is_none() && Path::new(name).file_name().is_some_and(|name| name == "Dockerfile")
    {
        found = resolve(tree, &Path::new(name).with_file_name("dockerfile"), true)?;
    }
    let Some(Kind::File { size }) = found.node.map(|node| node.kind) else {
        bail!("failed to read dockerfile {name}: the build context has no such file");
    };
    if size > MAX_DOCKERFILE_BYTES {
        bail!("{name} is too large for a Dockerfile: {}", human_size(size));
    }
    Ok((PathBuf::from(name), text_of(tree.open(&found.path)?, name)?))
}

/// Reads a Dockerfile, which is text and not endless.
fn text_of(input: impl Read, name: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    input
        .take(MAX_DOCKERFILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("failed to read dockerfile {name}"))?;
    if bytes.len() as u64 > MAX_DOCKERFILE_BYTES {
        bail!(
            "{name} is too large for a Dockerfile: more than {}",
            human_size(MAX_DOCKERFILE_BYTES)
        );
    }
    String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{name} is no Dockerfile: it is not text"))
}

/// Returns the file's name as messages have it: short, as the user would write it.
fn shown_name(path: &Path) -> String {
    if path.as_os_str() == STDIN {
        return "<stdin>".to_owned();
    }
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Reads `<Dockerfile>.dockerignore`, else `.dockerignore` of the context; they are not merged.
fn ignore_of(dockerfile: &Path, directory: &Path) -> crate::Result<Ignore> {
    if dockerfile.is_absolute() {
        let mut own = dockerfile.as_os_str().to_owned();
        own.push(".dockerignore");
        if let Some(ignore) = ignore_file(Path::new(&own))? {
            return Ok(ignore);
        }
    }
    Ok(ignore_file(&directory.join(".dockerignore"))?.unwrap_or_default())
}

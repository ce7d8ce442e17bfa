//! All the places that the files of one build come from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Context, Index};
use crate::copy::Unpacked;
use crate::error::{Error, IoContext as _, Result};
use crate::fetch::{Fetcher, Remote};
use crate::ignore::Ignore;
use crate::tree::{Kind, Mtime, Node, OneFile, Slice, Tree};

/// A tree that many threads look into.
pub type SharedTree = Arc<dyn Tree + Send>;

/// The name of the only file of a context that is one file, as in BuildKit.
const FILE_NAME: &str = "context";
/// An ignore file larger than this is none.
const MAX_IGNORE_BYTES: u64 = 16 << 20;

/// Where the files of a named context are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory of this machine, seen through its own `.dockerignore`.
    Directory(PathBuf),
    /// A repository, an archive or a file somewhere else.
    Remote(Remote),
}

/// Where the indexes of directories are kept.
pub type IndexPath<'a> = &'a (dyn Fn(&Path) -> PathBuf + Sync);

/// The build context and the named contexts, which are opened when they are used.
pub struct Contexts<'a> {
    main: SharedTree,
    named: BTreeMap<String, (Source, Mutex<Option<SharedTree>>)>,
    fetcher: &'a Fetcher<'a>,
    index_path: IndexPath<'a>,
    now_ns: i64,
    directories: Mutex<Vec<(Arc<Context>, PathBuf)>>,
}

impl std::fmt::Debug for Contexts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contexts").field("named", &self.named.keys()).finish_non_exhaustive()
    }
}

impl<'a> Contexts<'a> {
    /// Starts with a build context of no files.
    ///
    /// `now_ns` is the time at which the build starts, in nanoseconds since 1970.
    #[must_use]
    pub fn new(fetcher: &'a Fetcher<'a>, index_path: IndexPath<'a>, now_ns: i64) -> Self {
        Self {
            main: Arc::new(crate::tree::Empty),
            named: BTreeMap::new(),
            fetcher,
            index_path,
            now_ns,
            directories: Mutex::default(),
        }
    }

    /// Sets the build context.
    pub fn set_main(&mut self, main: SharedTree) {
        self.main = main;
    }

    /// Adds a named context under its normal name.
    pub fn add(&mut self, name: String, source: Source) {
        self.named.insert(name, (source, Mutex::default()));
    }

    /// Returns what fetches sources.
    #[must_use]
    pub fn fetcher(&self) -> &'a Fetcher<'a> {
        self.fetcher
    }

    /// Returns the build context.
    #[must_use]
    pub fn main(&self) -> SharedTree {
        Arc::clone(&self.main)
    }

    /// Returns a named context.
    ///
    /// # Errors
    /// Fails when it cannot be opened or fetched.
    pub fn named(&self, name: &str) -> Result<SharedTree> {
        let (source, opened) = self.named.get(name).ok_or_else(|| Error::Context {
            context: name.to_owned(),
            reason: "it was not given".to_owned(),
        })?;
        // Held while it is opened: two steps at once fetch it once.
        let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = &*opened {
            return Ok(Arc::clone(tree));
        }
        let tree = match source {
            Source::Directory(path) => {
                let ignore = ignore_file(&path.join(".dockerignore"))?.unwrap_or_default();
                self.directory(path, ignore)?
            }
            Source::Remote(remote) => self.remote(remote)?.0,
        };
        *opened = Some(Arc::clone(&tree));
        Ok(tree)
    }

    /// Opens a directory, whose index is saved with the others.
    ///
    /// # Errors
    /// Fails when it cannot be opened.
    pub fn directory(&self, path: &Path, ignore: Ignore) -> Result<SharedTree> {
        let index_path = (self.index_path)(path);
        let index = Index::open(&index_path, self.now_ns);
        let scratch = index_path.parent().unwrap_or(Path::new("."));
        let context = Context::open(path, ignore, index)?.spilling_into(scratch);
        let context = Arc::new(context);
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        directories.push((Arc::clone(&context), index_path));
        Ok(context)
    }

    /// Fetches a context: a repository, or an archive, or a single file. Says when it was
    /// changed last, in seconds since 1970, and whether it is a single file.
    ///
    /// # Errors
    /// Fails when it cannot be fetched, or its archive is broken.
    pub fn remote(&self, remote: &Remote) -> Result<(SharedTree, Option<i64>, bool)> {
        match remote {
            Remote::Git(git) => {
                let checkout = self.fetcher.resolve_git(git, false)?;
                let tree = self.fetcher.open_git(&checkout)?;
                let time = tree.newest();
                Ok((Arc::new(tree), time, false))
            }
            Remote::Http(url) => {
                let found = self.fetcher.resolve_http(url, None)?;
                let file = self.fetcher.open_http(url, &found)?;
                let name = PathBuf::from(crate::fetch::without_password(url));
                let scratch = || self.fetcher.lease.scratch("context");
                let size = file.metadata().doing("look at", &name)?.len();
                let copy = file.try_clone().doing("read", &name)?;
                Ok(match Unpacked::open(copy, &name, &scratch)? {
                    Some(tar) => {
                        let tree = tar.into_tree()?;
                        let time = found.last_modified.or(tree.newest());
                        (Arc::new(tree), time, false)
                    }
                    None => {
                        let mtime =
                            Mtime { seconds: found.last_modified.unwrap_or(0), nanoseconds: 0 };
                        let node = Node {
                            kind: Kind::File { size },
                            ..Node::directory(0o600, 0, 0, mtime)
                        };
                        let slice = Slice { file: Arc::new(file), offset: 0, sparse: None };
                        let tree = OneFile::new(FILE_NAME, node, slice);
                        (Arc::new(tree), found.last_modified, true)
                    }
                })
            }
        }
    }

    /// Saves what was learned about the files of directories; the build does not depend on it.
    pub fn save(&self) {
        let directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        for (context, path) in &*directories {
            if let Err(error) = context.index().save(path) {
                tracing::debug!(%error, "the next build reads all files again");
            }
        }
    }
}

/// Reads an ignore file; `None` when there is none.
///
/// # Errors
/// Fails when it cannot be read or has a malformed pattern.
pub fn ignore_file(path: &Path) -> Result<Option<Ignore>> {
    let bytes = match fs::File::open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(
                &mut std::io::Read::take(file, MAX_IGNORE_BYTES),
                &mut bytes,
            )
            .doing("read", path)?;
            bytes
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing("read", path),
    };
    Ignore::parse(&String::from_utf8_lossy(&bytes)).map(Some).map_err(|error| Error::Context {
        context: path.display().to_string(),
        reason: error.to_string(),
    })
}

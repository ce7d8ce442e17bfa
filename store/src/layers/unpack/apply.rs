//! The unpacker: entry after entry into a directory that nobody else sees yet.

use std::{
    fs::File,
    io::{self, BufRead, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    rc::Rc,
    thread,
};

use rustix::{
    fs::{self as sys, AtFlags, FileType, Mode, XattrFlags},
    io::Errno,
};

use super::{
    fill::{Filling, Finish, Job, MAX_CONTENT_BYTES, Queue},
    tree::Tree,
};
use crate::layers::{
    dir::{Dir, OPAQUE_XATTR, is, owner, set_metadata},
    entry::{Entry, Kind, Metadata},
    error::{EntryContext as _, LayerError, LayerResult},
    index::LayerIndex,
    path::{self, Naming, display, join, split},
    tar::Reader,
};

/// How many symbolic links one path may lead through: the kernel's own limit.
const MAX_LINKS: usize = 40;
/// How many parent directories stay open. Entries come directory by directory, so few are enough.
const OPEN_PARENTS: usize = 16;

/// Unpacks a whole tar into `target`, an empty directory of ours.
///
/// Directories that are replaced by other entries are moved into `replaced`, an empty directory on
/// the same file system, which the caller removes.
///
/// # Errors
///
/// Fails for tars that are damaged or hostile, and when the file system refuses something; `target`
/// is then to be thrown away. Nothing outside the two directories is touched in any case.
pub(crate) fn apply<R: BufRead>(
    reader: &mut Reader<R>,
    target: &Path,
    replaced: &Path,
) -> LayerResult<LayerIndex> {
    let queue = Queue::default();
    thread::scope(|scope| {
        let filling = Filling::new(scope, &queue);
        let mut unpacker = Unpacker::new(target, replaced, filling)?;
        unpacker.read(reader)?;
        unpacker.finish()
    })
}

struct Unpacker<'scope, 'env> {
    root: Dir,
    replaced: Dir,
    replacements: u64,
    tree: Tree,
    /// The parents used last, most recent first.
    open: Vec<(Vec<u8>, Rc<Dir>)>,
    defaults: Defaults,
    filling: Filling<'scope, 'env>,
}

/// What a new file has before anything is set, so that what is right already need not be set.
struct Defaults {
    uid: u32,
    gid: u32,
    umask: u32,
}

impl<'scope, 'env> Unpacker<'scope, 'env> {
    fn new(target: &Path, replaced: &Path, filling: Filling<'scope, 'env>) -> LayerResult<Self> {
        let root = Dir::open(target).entry("open", b"the layer's directory")?;
        let replaced = Dir::open(replaced).entry("open", b"the layer's directory")?;
        let defaults =
            Defaults::probe(&replaced).entry("create a file in", b"the layer's directory")?;
        let (tree, open) = (Tree::new(), Vec::new());
        Ok(Self { root, replaced, replacements: 0, tree, open, defaults, filling })
    }

    fn read<R: BufRead>(&mut self, reader: &mut Reader<R>) -> LayerResult<()> {
        while let Some(entry) = reader.next_entry()? {
            match path::classify(&entry.path)? {
                Naming::Ignored => {}
                Naming::Plain(path) => self.plain(reader, &path, entry)?,
                Naming::Opaque(directory) => {
                    let directory = self.make_parent(&directory)?;
                    self.tree.dirs.get_mut(&directory).expect("it was made").is_opaque = true;
                }
                Naming::Whiteout(hidden) => {
                    let (parent, name) = split(&hidden);
                    let parent = self.make_parent(parent)?;
                    self.tree.add_whiteout(join(&parent, name))?;
                }
            }
        }
        Ok(())
    }

    fn plain<R: BufRead>(
        &mut self,
        reader: &mut Reader<R>,
        path: &[u8],
        entry: Entry,
    ) -> LayerResult<()> {
        let Entry { kind, metadata, .. } = entry;
        if path.is_empty() {
            if kind != Kind::Directory {
                let reason = "the root of a layer must be a directory";
                return Err(LayerError::Path { path: display(&entry.path), reason });
            }
            return self.tree.describe(b"", metadata);
        }
        let (parent, name) = split(path);
        let parent = self.make_parent(parent)?;
        let path = &join(&parent, name);
        let dir = self.open_parent(&parent)?;
        match kind {
            Kind::Directory => return self.directory(&dir, path, metadata),
            Kind::HardLink { target } => return self.hard_link(&dir, path, &target),
            Kind::File { .. } | Kind::Symlink { .. } | Kind::Fifo => {}
            Kind::CharDevice { major: 0, minor: 0 } => {
                let reason = "the character device 0/0 is how overlayfs marks a deletion";
                return Err(LayerError::Path { path: display(path), reason });
            }
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {}
        }
        self.tree.forget_name(path);
        match kind {
            Kind::File { size } => self.file(reader, &dir, path, size, &metadata),
            Kind::Symlink { target } => {
                let make = || Ok(sys::symlinkat(target.as_slice(), &*dir, name)?);
                self.replacing(path, make).entry("create the link", path)?;
                self.dress(&dir, path, &metadata, false)
            }
            Kind::CharDevice { major, minor } => self.node(
                &dir,
                path,
                FileType::CharacterDevice,
                sys::makedev(major, minor),
                &metadata,
            ),
            Kind::BlockDevice { major, minor } => {
                self.node(&dir, path, FileType::BlockDevice, sys::makedev(major, minor), &metadata)
            }
            Kind::Fifo => self.node(&dir, path, FileType::Fifo, 0, &metadata),
            Kind::Directory | Kind::HardLink { .. } => unreachable!("both were taken above"),
        }
    }

    fn directory(&mut self, dir: &Dir, path: &[u8], metadata: Metadata) -> LayerResult<()> {
        if !self.tree.dirs.contains_key(path) {
            let (_, name) = split(path);
            // What was here a moment ago would have replaced a lower directory with all that is in
            // it: none of that comes back now.
            let mut replaces = self.tree.is_name_taken(path);
            self.tree.forget_name(path);
            if dir.stat(name).entry("read", path)?.is_some() {
                self.clear(path).entry("replace", path)?;
                replaces = true;
            }
            dir.make_dir(name).entry("create the directory", path)?;
            self.tree.add_implied(path.to_vec())?;
            self.tree.dirs.get_mut(path).expect("it was just added").is_opaque = replaces;
        }
        self.tree.describe(path, metadata)
    }

    fn file<R: BufRead>(
        &mut self,
        reader: &mut Reader<R>,
        dir: &Dir,
        path: &[u8],
        size: u64,
        metadata: &Metadata,
    ) -> LayerResult<()> {
        let (_, name) = split(path);
        // Setuid only together with its owner, and not before the content is there.
        let mode = metadata.mode & 0o777;
        let file = self.replacing(path, || dir.create(name, mode)).entry("create", path)?;
        let finish = Finish {
            metadata: metadata.clone(),
            needs_owner: !self.defaults.has_owner(metadata),
            needs_mode: !self.defaults.has_mode(metadata),
        };
        if reader.sparse().is_some() {
            write_sparse(reader, &file, size, path)?;
        } else if size <= MAX_CONTENT_BYTES {
            let content = read_small(reader, size)?;
            return self.filling.add(Job { file, path: path.to_vec(), content, finish });
        } else {
            write_plain(reader, &file, path)?;
        }
        finish.apply(&file, path)
    }

    fn node(
        &mut self,
        dir: &Dir,
        path: &[u8],
        kind: FileType,
        device: u64,
        metadata: &Metadata,
    ) -> LayerResult<()> {
        let (_, name) = split(path);
        let mode = Mode::from_raw_mode(metadata.mode & 0o777);
        let make = || Ok(sys::mknodat(dir, name, kind, mode, device)?);
        match self.replacing(path, make) {
            Ok(()) => self.dress(dir, path, metadata, true),
            // In a user namespace nobody makes devices; the sandbox brings the usual ones.
            Err(error)
                if device != 0 && error.raw_os_error() == Some(Errno::PERM.raw_os_error()) =>
            {
                self.tree.add_skipped(path.to_vec())
            }
            Err(error) => Err(error).entry("create the device", path),
        }
    }

    /// Sets the metadata of something that cannot be opened.
    fn dress(
        &self,
        dir: &Dir,
        path: &[u8],
        metadata: &Metadata,
        has_mode: bool,
    ) -> LayerResult<()> {
        let (_, name) = split(path);
        if !self.defaults.has_owner(metadata) {
            let (uid, gid) = owner(metadata);
            sys::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| owner_error(path, metadata, error.into()))?;
        }
        if has_mode && !self.defaults.has_mode(metadata) {
            let mode = Mode::from_raw_mode(metadata.mode);
            sys::chmodat(dir, name, mode, AtFlags::empty()).entry("set the mode of", path)?;
        }
        for (key, value) in &metadata.xattrs {
            // `user.` attributes exist on files and directories only.
            if !key.starts_with(b"user.") {
                dir.set_xattr(name, key, value).entry("set the attributes of", path)?;
            }
        }
        dir.set_times(name, metadata.mtime).entry("set the time of", path)
    }

    fn hard_link(&mut self, dir: &Dir, path: &[u8], target: &[u8]) -> LayerResult<()> {
        let refuse =
            |reason| Err(LayerError::Link { path: display(path), target: display(target), reason });
        let target = match path::classify(target) {
            Ok(Naming::Plain(clean)) if !clean.is_empty() => clean,
            Ok(_) => return refuse("no file can have that name"),
            Err(LayerError::Path { reason, .. }) => return refuse(reason),
            Err(other) => return Err(other),
        };
        let (target_parent, target_name) = split(&target);
        // A parent that is not here, and one that is no directory here, may be one further down.
        let Some(target_parent) = self.resolve(target_parent, false)? else {
            return self.link_down(path, target);
        };
        let target = join(&target_parent, target_name);
        if let Some(further) = self.tree.links.get(&target).cloned() {
            return self.link_down(path, further);
        }
        if self.tree.skipped.contains(&target) {
            return self.tree.add_skipped(path.to_vec());
        }
        let target_dir = self.open_parent(&target_parent)?;
        let stat = target_dir.stat(target_name).entry("read", &target)?;
        let Some(stat) = stat else { return self.link_down(path, target) };
        if is(&stat, FileType::Directory) {
            return refuse("it is a directory");
        }
        if target == path {
            return Ok(());
        }
        let (_, name) = split(path);
        self.tree.forget_name(path);
        let make = || Ok(sys::linkat(&*target_dir, target_name, dir, name, AtFlags::empty())?);
        self.replacing(path, make).entry("link", path)
    }

    /// Notes a link to a file of a lower layer; the chain makes it.
    fn link_down(&mut self, path: &[u8], target: Vec<u8>) -> LayerResult<()> {
        if target == path {
            let (path, target) = (display(path), display(&target));
            return Err(LayerError::Link { path, target, reason: "it would be its own target" });
        }
        let (parent, name) = split(path);
        if self.open_parent(parent)?.stat(name).entry("read", path)?.is_some() {
            self.clear(path).entry("replace", path)?;
        }
        self.tree.forget_name(path);
        self.tree.add_link(path.to_vec(), target)
    }

    /// Runs `make`, which creates something at `path`; where something is there already, once more
    /// after moving that away.
    fn replacing<T>(&mut self, path: &[u8], make: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.clear(path)?;
                make()
            }
            other => other,
        }
    }

    /// Takes away what is at `path`.
    fn clear(&mut self, path: &[u8]) -> io::Result<()> {
        let (parent, name) = split(path);
        let dir = self.open_parent_raw(parent)?;
        if self.tree.dirs.contains_key(path) {
            // Moved as a whole: it may be too deep to be removed here and now.
            let new_name = self.replacements.to_string();
            self.replacements += 1;
            sys::renameat(&*dir, name, &self.replaced, new_name.as_str())?;
            self.tree.forget_directory(path);
            self.open.clear();
            return Ok(());
        }
        Ok(sys::unlinkat(&*dir, name, AtFlags::empty())?)
    }

    /// Resolves the directory at a clean path, making what is missing of it.
    fn make_parent(&mut self, parent: &[u8]) -> LayerResult<Vec<u8>> {
        let resolved = self.resolve(parent, true)?;
        Ok(resolved.expect("missing directories were made"))
    }

    /// Finds the directory that a clean path leads to inside the layer, through symbolic links of
    /// the layer. Where it does not exist it is made, or `None` returned.
    fn resolve(&mut self, parent: &[u8], make: bool) -> LayerResult<Option<Vec<u8>>> {
        if self.tree.dirs.contains_key(parent) {
            return Ok(Some(parent.to_vec()));
        }
        let mut resolved = Vec::new();
        let mut todo: Vec<Vec<u8>> = path::components(parent).rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b"." {
                continue;
            }
            if name == b".." {
                // At the root, `..` is the root, as after chroot.
                resolved = split(&resolved).0.to_vec();
                continue;
            }
            let next = path::clean(&join(&resolved, &name))?;
            if self.tree.dirs.contains_key(&next) {
                resolved = next;
                continue;
            }
            let dir = self.open_parent(&resolved)?;
            match dir.stat(&name).entry("read", &next)? {
                None if !make => return Ok(None),
                None if self.tree.is_name_taken(&next) => return Err(in_the_way(parent)),
                None => {
                    dir.make_dir(&name).entry("create the directory", &next)?;
                    self.tree.add_implied(next.clone())?;
                    resolved = next;
                }
                Some(stat) if is(&stat, FileType::Symlink) => {
                    links += 1;
                    if links > MAX_LINKS {
                        let reason = "it leads through too many symbolic links";
                        return Err(LayerError::Path { path: display(parent), reason });
                    }
                    let target = dir.read_link(&name).entry("read the link", &next)?;
                    if target.starts_with(b"/") {
                        resolved.clear();
                    }
                    todo.extend(path::components(&target).rev().map(<[u8]>::to_vec));
                }
                Some(_) if !make => return Ok(None),
                Some(_) => return Err(in_the_way(parent)),
            }
        }
        Ok(Some(resolved))
    }

    fn open_parent(&mut self, parent: &[u8]) -> LayerResult<Rc<Dir>> {
        self.open_parent_raw(parent).entry("open the directory", parent)
    }

    fn open_parent_raw(&mut self, parent: &[u8]) -> io::Result<Rc<Dir>> {
        if let Some(at) = self.open.iter().position(|(path, _)| path == parent) {
            if at != 0 {
                self.open[..=at].rotate_right(1);
            }
            return Ok(Rc::clone(&self.open[0].1));
        }
        let dir = Rc::new(self.root.beneath(parent)?);
        self.open.truncate(OPEN_PARENTS - 1);
        self.open.insert(0, (parent.to_vec(), Rc::clone(&dir)));
        Ok(dir)
    }

    /// Makes whiteouts and gives directories their metadata, now that nothing is added any more.
    fn finish(mut self) -> LayerResult<LayerIndex> {
        self.filling.finish()?;
        self.tree.settle_whiteouts();
        for path in std::mem::take(&mut self.tree.whiteouts) {
            let (parent, name) = split(&path);
            let dir = self.open_parent(parent)?;
            match dir.make_whiteout(name) {
                // What the layer has there hides the lower layers already.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).entry("mark as deleted", &path),
                Ok(()) => drop(self.tree.whiteouts.insert(path)),
            }
        }
        // Children first: a directory may end up as one that even its owner cannot enter.
        for (path, state) in self.tree.dirs.iter().rev() {
            let dir = self.root.readable_beneath(path).entry("open the directory", path)?;
            if state.is_opaque {
                let result = sys::fsetxattr(&dir, OPAQUE_XATTR, b"y", XattrFlags::empty());
                result.entry("mark as opaque", path)?;
            }
            set_metadata(&dir, &state.metadata).map_err(|source| {
                if matches!(
                    source.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied
                ) {
                    return owner_error(path, &state.metadata, source);
                }
                LayerError::Entry { action: "set the metadata of", path: display(path), source }
            })?;
        }
        Ok(self.tree.into_index())
    }
}

impl Defaults {
    /// Looks at what a new file gets, which depends on the process and on the file system.
    fn probe(dir: &Dir) -> io::Result<Self> {
        const NAME: &[u8] = b"probe";
        let file = dir.create(NAME, 0o777)?;
        let stat = sys::fstat(&file)?;
        sys::unlinkat(dir, NAME, AtFlags::empty())?;
        Ok(Self { uid: stat.st_uid, gid: stat.st_gid, umask: !stat.st_mode & 0o777 })
    }

    fn has_owner(&self, metadata: &Metadata) -> bool {
        (metadata.uid, metadata.gid) == (self.uid, self.gid)
    }

    /// Whether creating it with this mode gave it this mode, and nothing took a part away.
    fn has_mode(&self, metadata: &Metadata) -> bool {
        metadata.mode & (0o7000 | self.umask) == 0
    }
}

fn in_the_way(parent: &[u8]) -> LayerError {
    let reason = "a file of the same layer is in the place of a directory above it";
    LayerError::Path { path: display(parent), reason }
}

pub(super) fn owner_error(path: &[u8], metadata: &Metadata, source: io::Error) -> LayerError {
    LayerError::Owner { path: display(path), uid: metadata.uid, gid: metadata.gid, source }
}

fn read_small<R: BufRead>(reader: &mut Reader<R>, size: u64) -> LayerResult<Vec<u8>> {
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    loop {
        let chunk = reader.chunk()?;
        if chunk.is_empty() {
            return Ok(content);
        }
        content.extend_from_slice(chunk);
        let bytes = chunk.len();
        reader.consume(bytes);
    }
}

fn write_plain<R: BufRead>(
    reader: &mut Reader<R>,
    mut file: &File,
    path: &[u8],
) -> LayerResult<()> {
    loop {
        let chunk = reader.chunk()?;
        if chunk.is_empty() {
            return Ok(());
        }
        file.write_all(chunk).entry("write", path)?;
        let bytes = chunk.len();
        reader.consume(bytes);
    }
}

/// Writes the parts of a sparse file to their places; what is between stays a hole.
fn write_sparse<R: BufRead>(
    reader: &mut Reader<R>,
    file: &File,
    size: u64,
    path: &[u8],
) -> LayerResult<()> {
    file.set_len(size).entry("set the length of", path)?;
    for segment in reader.sparse().unwrap_or_default().to_vec() {
        let (mut offset, mut left) = (segment.offset, segment.bytes);
        while left > 0 {
            let chunk = reader.chunk()?;
            let bytes = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            file.write_all_at(&chunk[..bytes], offset).entry("write", path)?;
            reader.consume(bytes);
            offset += bytes as u64;
            left -= bytes as u64;
        }
    }
    Ok(())
}

//! The containers of one state directory.
//!
//! ```text
//! <root>/
//! ├── names/
//! │   ├── .lock               taken while a name is claimed or garbage is judged
//! │   └── <name>              symbolic link → the container's id
//! └── containers/<id>/        0700
//!     ├── lock                flock'ed by whoever makes or watches the container,
//!     │                       so most of its life; holds its name, and whether it
//!     │                       goes away when it ends
//!     ├── config.json         what was asked; without it the container is not one
//!     ├── pins                the layers that gc must keep
//!     ├── running, exit       see `state`
//!     ├── health              what its checks have found, see `health`
//!     ├── restart             when it is started again, see `restart`
//!     ├── log
//!     ├── hosts, hostname, resolv.conf
//!     ├── volumes/<n>/        anonymous volumes
//!     └── upper/, work/       the writable layer
//! ```
//!
//! # Invariants
//!
//! - A name belongs to one container: links are made and replaced only under
//!   `names/.lock`, and together with the container's directory.
//! - A directory without `config.json` whose `lock` is free is garbage.
//! - Nothing is mounted here on the host: a container's mounts live in its own
//!   mount namespace and die with it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::config::{Config, VERSION};
use super::error::{Error, IoContext as _, Result};
use super::id::{ContainerId, is_hex};
use super::name::Name;
use super::ownership::{Note, Ownership, own};
use super::pause::is_paused;
use super::state::{self, Status, write_json};

/// How often two random words are drawn before numbers are added to them;
/// after this many tries in all, something else is wrong.
const NAME_ATTEMPTS: u32 = 64;

/// All containers under one root.
#[derive(Clone, Debug)]
pub struct Containers {
    dir: PathBuf,
    names: PathBuf,
}

/// A container's directory.
#[derive(Clone, Debug)]
pub struct Container {
    dir: PathBuf,
    /// What was asked of it.
    pub config: Config,
}

/// A new container's name, id and directory, before it is complete. Dropping
/// it removes them.
#[derive(Debug)]
pub struct Claim {
    containers: Containers,
    /// Its identity.
    pub id: ContainerId,
    /// Its name.
    pub name: Name,
    dir: PathBuf,
    lock: Option<File>,
}

impl Containers {
    /// Returns the containers below `root`, which exists.
    pub fn new(root: &Path) -> Self {
        Self { dir: root.join("containers"), names: root.join("names") }
    }

    /// Takes a name and an id for a new container and makes its directory;
    /// `remove` says that it goes away when it ends.
    ///
    /// # Errors
    ///
    /// [`Error::NameInUse`] if `name` belongs to another container, and when
    /// the directories cannot be made.
    pub fn claim(&self, name: Option<&Name>, remove: bool) -> Result<Claim> {
        let id = ContainerId::random()?;
        let guard = self.lock_names()?;
        let name = match name {
            Some(name) => match self.holder(name)? {
                Some(holder) => return Err(Error::NameInUse { name: name.clone(), holder }),
                None => name.clone(),
            },
            None => self.free_name()?,
        };
        let dir = self.dir.join(id.as_str());
        make_private_dir(&dir)?;
        let lock = Note { name: Some(name.clone()), remove }.create(&dir)?;
        let link = self.names.join(name.as_str());
        replace_link(id.as_str(), &link).doing("create", &link)?;
        drop(guard);
        Ok(Claim { containers: self.clone(), id, name, dir, lock: Some(lock) })
    }

    /// Returns every container, the newest first. A directory that has just
    /// been removed, or is not complete yet, is left out.
    ///
    /// # Errors
    ///
    /// When a state file cannot be read or understood.
    pub fn list(&self) -> Result<Vec<Container>> {
        let mut containers = Vec::new();
        for id in self.ids()? {
            if let Some(container) = self.load(&id)? {
                containers.push(container);
            }
        }
        containers.sort_by_key(|container| std::cmp::Reverse(container.config.created));
        Ok(containers)
    }

    /// Finds a container by id, name or the beginning of its id, in this order.
    ///
    /// # Errors
    ///
    /// [`Error::ContainerUnknown`], [`Error::ContainerAmbiguous`], and when
    /// its state cannot be read.
    pub fn find(&self, text: &str) -> Result<Container> {
        let unknown = || Error::ContainerUnknown { text: text.to_owned() };
        if let Ok(id) = text.parse::<ContainerId>() {
            return self.load(&id)?.ok_or_else(unknown);
        }
        if let Ok(name) = text.parse::<Name>()
            && let Some(id) = self.named(&name)?
            && let Some(container) = self.load(&id)?
        {
            return Ok(container);
        }
        if !is_hex(text) {
            return Err(unknown());
        }
        let mut matches: Vec<_> =
            self.ids()?.into_iter().filter(|id| id.as_str().starts_with(text)).collect();
        match (matches.pop(), matches.len()) {
            (Some(id), 0) => self.load(&id)?.ok_or_else(unknown),
            (Some(_), others) => {
                Err(Error::ContainerAmbiguous { text: text.to_owned(), count: others + 1 })
            }
            (None, _) => Err(unknown()),
        }
    }

    /// Gives a container another name, whether it runs or not.
    ///
    /// # Errors
    ///
    /// [`Error::NameInUse`] if `name` belongs to a container, be it this one,
    /// and when files cannot be written.
    pub fn rename(&self, mut container: Container, name: &Name) -> Result<()> {
        // One that does not run must not be removed meanwhile; one that does
        // is owned by its watcher, and stays.
        let _ownership = container.own()?;
        let _guard = self.lock_names()?;
        if let Some(holder) = self.holder(name)? {
            return Err(Error::NameInUse { name: name.clone(), holder });
        }
        if !container.dir.join("config.json").exists() {
            return Err(Error::ContainerUnknown { text: container.config.id.to_string() });
        }
        let link = self.names.join(name.as_str());
        replace_link(container.config.id.as_str(), &link).doing("create", &link)?;
        let old = std::mem::replace(&mut container.config.name, name.clone());
        write_json(&container.dir.join("config.json"), &container.config)?;
        // A crash from here on leaves two names; the old one binds nobody any
        // more when the container goes.
        let remove = Note::read(&container.dir).remove;
        Note { name: Some(name.clone()), remove }.write(&container.dir)?;
        let link = self.names.join(old.as_str());
        ignore_missing(fs::remove_file(&link)).doing("remove", &link)
    }

    /// Changes what was asked of a container, whether it runs or not.
    ///
    /// # Errors
    ///
    /// [`Error::ContainerUnknown`] if it has just been removed, and when its file
    /// cannot be written.
    pub fn change(&self, container: &Container, change: impl FnOnce(&mut Config)) -> Result<()> {
        let _ownership = container.own()?;
        let _guard = self.lock_names()?;
        let id = &container.config.id;
        // Read again: somebody else may have changed something else.
        let found = self.load(id)?;
        let mut found = found.ok_or_else(|| Error::ContainerUnknown { text: id.to_string() })?;
        change(&mut found.config);
        write_json(&found.dir.join("config.json"), &found.config)
    }

    /// Removes what nobody will: containers that were to go away by themselves
    /// but whose watcher was killed, and directories whose making was cut
    /// short. Returns how many there were.
    ///
    /// It looks at containers that ask for it and is cheap where there are
    /// none; it does nothing to a container that lives or is being made.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read, or something cannot be removed.
    pub fn sweep(&self) -> Result<usize> {
        let mut removed = 0;
        for id in self.ids()? {
            let dir = self.dir.join(id.as_str());
            let is_complete = || dir.join("config.json").exists();
            let is_to_stay = || !Note::read(&dir).remove && is_complete();
            if is_to_stay() {
                continue;
            }
            // An incomplete directory may be about to be locked by its maker.
            let guard = if is_complete() { None } else { Some(self.lock_names()?) };
            let Some(ownership) = own(&dir)? else { continue };
            drop(guard);
            // It may have been completed, and have run, in between.
            if is_to_stay() || Status::read(&dir).is_ok_and(|status| status.is_active()) {
                continue;
            }
            self.remove_dir(&id, &dir)?;
            drop(ownership);
            removed += 1;
        }
        Ok(removed)
    }

    /// Returns the container with this id, if it is there and complete.
    fn load(&self, id: &ContainerId) -> Result<Option<Container>> {
        let dir = self.dir.join(id.as_str());
        let path = dir.join("config.json");
        let Some(version) = state::read_json::<VersionOnly>(&path)? else { return Ok(None) };
        if version.version > VERSION {
            return Err(Error::StateVersion { path, found: version.version, supported: VERSION });
        }
        Ok(state::read_json(&path)?.map(|config| Container { dir, config }))
    }

    fn ids(&self) -> Result<Vec<ContainerId>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.doing("list", &self.dir)?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.doing("list", &self.dir)?;
            // What is not named like a container is not ours.
            if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Returns the id that a name links to.
    fn named(&self, name: &Name) -> Result<Option<ContainerId>> {
        let link = self.names.join(name.as_str());
        match fs::read_link(&link) {
            Ok(target) => Ok(target.to_str().and_then(|id| id.parse().ok())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing("read", &link),
        }
    }

    /// Returns the container that has a name. A link to a directory that is
    /// gone was left by a crash and binds nobody.
    fn holder(&self, name: &Name) -> Result<Option<ContainerId>> {
        Ok(self.named(name)?.filter(|id| self.dir.join(id.as_str()).exists()))
    }

    fn free_name(&self) -> Result<Name> {
        for attempt in 0..NAME_ATTEMPTS {
            let name = Name::random(attempt)?;
            if self.holder(&name)?.is_none() {
                return Ok(name);
            }
        }
        Err(Error::Invalid { what: "no free container name was found; give one".to_owned() })
    }

    fn lock_names(&self) -> Result<File> {
        let path = self.names.join(".lock");
        let open = || OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_private_dir(&self.names)?;
                make_private_dir(&self.dir)?;
                open()
            }
            file => file,
        };
        let file = file.doing("open", &path)?;
        flock(&file, FlockOperation::LockExclusive).doing("lock", &path)?;
        Ok(file)
    }

    /// Removes a container's cgroup, name and directory. The caller owns it.
    ///
    /// The order makes a crash harmless: without `config.json` the rest is
    /// garbage for the next sweep.
    fn remove_dir(&self, id: &ContainerId, dir: &Path) -> Result<()> {
        super::cgroup::destroy(id)?;
        if let Some(name) = Note::read(dir).name {
            self.free(&name, id)?;
        }
        let config = dir.join("config.json");
        ignore_missing(fs::remove_file(&config)).doing("remove", &config)?;
        super::tree::remove(dir)
    }

    /// Takes a name away, if it still is this container's.
    fn free(&self, name: &Name, id: &ContainerId) -> Result<()> {
        let _guard = self.lock_names()?;
        if self.named(name)?.as_ref() == Some(id) {
            let link = self.names.join(name.as_str());
            ignore_missing(fs::remove_file(&link)).doing("remove", &link)?;
        }
        Ok(())
    }
}

/// The part of `config.json` that every version has.
#[derive(serde::Deserialize)]
struct VersionOnly {
    version: u32,
}

impl Claim {
    /// Returns the container's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the container complete: from now on others see it.
    ///
    /// # Errors
    ///
    /// When its files cannot be written.
    pub fn complete(mut self, config: Config) -> Result<(Container, Ownership)> {
        write_json(&self.dir.join("config.json"), &config)?;
        Ok((Container { dir: self.dir.clone(), config }, Ownership(self.take_lock())))
    }

    fn take_lock(&mut self) -> File {
        self.lock.take().expect("completing consumes the claim, and nothing else takes the lock")
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // Whatever cannot be removed now is garbage for the next sweep.
            if let Err(error) = self
                .containers
                .free(&self.name, &self.id)
                .and_then(|()| super::tree::remove(&self.dir))
            {
                tracing::debug!(container = %self.id, %error, "left for the next sweep");
            }
        }
    }
}

impl Container {
    /// Returns its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the file with its output.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Asks what has become of it.
    ///
    /// # Errors
    ///
    /// When its state files cannot be read.
    pub fn status(&self) -> Result<Status> {
        Status::read(&self.dir)
    }

    /// Returns docker's word for its state: that of its status, or `paused`.
    pub fn state_word(&self, status: &Status) -> &'static str {
        match status {
            Status::Running(running) if is_paused(self, running) => "paused",
            status => status.word(),
        }
    }

    /// Takes it in order to start it; `None` if somebody else makes, watches
    /// or removes it.
    ///
    /// # Errors
    ///
    /// When its lock cannot be taken.
    pub fn own(&self) -> Result<Option<Ownership>> {
        own(&self.dir)
    }

    /// Removes it from `containers`. It must have ended.
    ///
    /// # Errors
    ///
    /// [`Error::StillRunning`] if it lives or is being made, and when
    /// something cannot be removed.
    pub fn remove(&self, containers: &Containers) -> Result<()> {
        let still_running = || Error::StillRunning { container: self.config.name.to_string() };
        let ownership = match own(&self.dir)? {
            Some(ownership) => ownership,
            // Somebody else is removing it, or makes it.
            None if !self.dir.exists() => return Ok(()),
            None => return Err(still_running()),
        };
        if self.status()?.is_active() {
            return Err(still_running());
        }
        containers.remove_dir(&self.config.id, &self.dir)?;
        drop(ownership);
        Ok(())
    }

    /// Removes it from `containers` by whoever watched it to its end.
    ///
    /// # Errors
    ///
    /// When something cannot be removed.
    pub fn remove_owned(&self, containers: &Containers, ownership: Ownership) -> Result<()> {
        containers.remove_dir(&self.config.id, &self.dir)?;
        drop(ownership);
        Ok(())
    }
}

/// Makes a directory only its owner may enter; one that is there is fine.
pub(crate) fn make_private_dir(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.doing("create", path),
    }
}

fn replace_link(target: &str, link: &Path) -> io::Result<()> {
    match symlink(target, link) {
        // Left by a crash: the caller has found that it binds nobody.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(link)?;
            symlink(target, link)
        }
        made => made,
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

//! The mounts of one RUN: from what the plan says to what the sandbox mounts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use oci::Digest;
use sandbox::{Mount, MountKind, SecretBytes};
use store::layers::Snapshot;

use super::agent::Forward;
use super::common::{Extracted, make_stubs};
use super::extract::{extract, find};
use super::secret::Mask;
use super::{Place, common::Common};
use crate::context::SharedTree;
use crate::copy::Selected;
use crate::dockerfile::{self, FileOwner};
use crate::error::{Error, IoContext as _, Result};
use crate::plan::{Run, RunMount};
use crate::solve::caches::{self, Identity, InUse};
use crate::solve::view::View;
use crate::tree::{normalize, resolve};

/// Where the files of a mount are.
pub(in crate::solve) enum Source<'a> {
    /// In a build context, found and digested.
    Tree { tree: SharedTree, selected: &'a Selected, content: Digest },
    /// In the layers of a stage or image.
    Layers(Snapshot),
}

/// What a RUN's mounts came to. The caches are held until it is dropped.
#[derive(Default)]
pub(super) struct Mounts {
    pub(super) mounts: Vec<Mount>,
    /// Variables that are secrets.
    pub(super) env: Vec<String>,
    /// A lowest layer in which the mount points exist.
    pub(super) stubs: Option<PathBuf>,
    pub(super) mask: Mask,
    pub(super) forwards: Vec<Forward>,
    /// A file of the context that changed while it was copied.
    pub(super) changed: Option<PathBuf>,
    /// Nobody removes these, or takes them alone, meanwhile.
    caches: Vec<InUse>,
}

impl Mounts {
    /// Gets everything ready that the mounts of a RUN need.
    pub(super) fn prepare(run: &Run, place: &Place<'_>, common: &Common) -> Result<Self> {
        let mut preparing = Preparing {
            place,
            common,
            found: Self::default(),
            points: Vec::new(),
            secrets: Vec::new(),
        };
        for (index, mount) in run.mounts.iter().enumerate() {
            preparing.mount(index, mount)?;
        }
        preparing.make_points()?;
        let Preparing { mut found, secrets, .. } = preparing;
        found.mask = Mask::new(&secrets);
        Ok(found)
    }
}

struct Preparing<'a> {
    place: &'a Place<'a>,
    common: &'a Common,
    found: Mounts,
    /// The mount points, and whether each is a directory.
    points: Vec<(PathBuf, bool)>,
    secrets: Vec<SecretBytes>,
}

impl<'a> Preparing<'a> {
    fn mount(&mut self, index: usize, mount: &RunMount) -> Result<()> {
        let read_only = mount.read_only;
        let (kind, is_directory) = match &mount.kind {
            dockerfile::MountKind::Tmpfs { size_bytes } => {
                let kind =
                    MountKind::Tmpfs { size_bytes: *size_bytes, mode: 0o1777, readonly: read_only };
                (kind, true)
            }
            dockerfile::MountKind::Bind { source, .. } => {
                self.bind(index, source.as_deref(), read_only)?
            }
            dockerfile::MountKind::Cache { id, sharing, source, owner, .. } => {
                let used = self.cache(index, (id, *sharing), source.as_deref(), *owner)?;
                let kind = MountKind::Tree {
                    lowers: vec![used.path.clone()],
                    writable: None,
                    place: used.path.clone(),
                    path: PathBuf::from("/"),
                    readonly: read_only,
                };
                self.found.caches.push(used);
                (kind, true)
            }
            dockerfile::MountKind::Secret { id, env, required, owner } => {
                let Some(content) = self.place.options.secrets.get(id)? else {
                    if *required {
                        return Err(Error::Instruction(format!("secret {id}: not found")));
                    }
                    return Ok(());
                };
                self.secrets.push(content.clone());
                if let Some(name) = env {
                    self.found.env.push(variable(name, &content)?);
                }
                let FileOwner { mode, uid, gid } = *owner;
                let (uid, gid) = (uid.unwrap_or(0), gid.unwrap_or(0));
                (MountKind::File { content, mode: mode.unwrap_or(0o400), uid, gid }, false)
            }
            dockerfile::MountKind::Ssh { id, required, owner } => {
                match self.socket(index, id, *required, *owner)? {
                    Some(kind) => (kind, false),
                    None => return Ok(()),
                }
            }
        };
        if let Some(target) = &mount.target {
            self.points.push((PathBuf::from(target), is_directory));
            self.found.mounts.push(Mount { target: PathBuf::from(target), kind });
        }
        Ok(())
    }

    fn bind(
        &mut self,
        index: usize,
        source: Option<&str>,
        read_only: bool,
    ) -> Result<(MountKind, bool)> {
        let (lowers, path, is_directory) = match self.source(index)? {
            Source::Tree { tree, selected, content } => {
                let key = (*content, index);
                let shared = self.place.shared;
                let Extracted { path, changed } = shared.extracted(key, || {
                    let path = self.common.own(self.place.step, &format!("files-{index}"))?;
                    let changed = extract(&**tree, selected, &path, self.place.cancel)?;
                    Ok(Extracted { path, changed })
                })?;
                if self.found.changed.is_none() {
                    self.found.changed = changed;
                }
                let is_directory = selected.node.is_dir();
                let name = if is_directory { None } else { selected.path.file_name() };
                (vec![path], Path::new("/").join(name.unwrap_or_default()), is_directory)
            }
            Source::Layers(snapshot) => {
                let path = normalize(Path::new(source.unwrap_or("")));
                let node = resolve(&View(snapshot.clone()), &path, true)?.node;
                let Some(node) = node else {
                    return Err(Error::SourceMissing { path, ignored: false });
                };
                (snapshot.lowers().to_vec(), Path::new("/").join(path), node.is_dir())
            }
        };
        let own = |name: &str| self.common.own(self.place.step, &format!("{name}-{index}"));
        // What is written is thrown away with the build.
        let writable = if read_only { None } else { Some((own("upper")?, own("work")?)) };
        let place = own("place")?;
        Ok((MountKind::Tree { lowers, writable, place, path, readonly: read_only }, is_directory))
    }

    fn cache(
        &self,
        index: usize,
        (id, sharing): (&str, dockerfile::Sharing),
        source: Option<&str>,
        owner: FileOwner,
    ) -> Result<InUse> {
        let found = self.place.sources.get(index).and_then(Option::as_ref);
        if found.is_none()
            && source.is_some_and(|source| normalize(Path::new(source)) != Path::new(""))
        {
            let path = normalize(Path::new(source.unwrap_or("")));
            return Err(Error::SourceMissing { path, ignored: false });
        }
        let origin = match found {
            // What its key knows of the files it begins with tells caches apart, too.
            Some(_) => format!("{:?}", self.place.contents.get(index)),
            None => caches::origin(None, owner),
        };
        let fill = |path: &Path| -> Result<()> {
            match found {
                Some(Source::Tree { tree, selected, .. }) => {
                    extract(&**tree, selected, path, self.place.cancel)?;
                }
                Some(Source::Layers(snapshot)) => {
                    let view = View(snapshot.clone());
                    extract(&view, &find(&view, source)?, path, self.place.cancel)?;
                }
                None => {
                    let (uid, gid) = (owner.uid.unwrap_or(0), owner.gid.unwrap_or(0));
                    std::os::unix::fs::chown(path, Some(uid), Some(gid))
                        .doing("change the owner of", path)?;
                    let mode = fs::Permissions::from_mode(owner.mode.unwrap_or(0o755));
                    fs::set_permissions(path, mode).doing("change", path)?;
                }
            }
            Ok(())
        };
        let identity = Identity { id, origin: &origin };
        self.place.caches.take(identity, sharing, &fill, &|| self.place.cancel.check())
    }

    fn socket(
        &mut self,
        index: usize,
        id: &str,
        required: bool,
        owner: FileOwner,
    ) -> Result<Option<MountKind>> {
        let place = self.place;
        let Some(agent) = place.shared.agents.socket(&place.options.agents, id, place.lease)?
        else {
            if required {
                let message = format!("unset ssh forward key {id}: give it with --ssh {id}");
                return Err(Error::Instruction(message));
            }
            return Ok(None);
        };
        let directory = self.common.own(place.step, &format!("ssh-{index}"))?;
        let forward = Forward::create(&directory, agent, owner)?;
        let source = forward.path.clone();
        self.found.forwards.push(forward);
        // A socket is not written to, but a read-only mount would refuse connections.
        Ok(Some(MountKind::Bind { source, readonly: false, recursive: false }))
    }

    fn source(&self, index: usize) -> Result<&'a Source<'a>> {
        let found = self.place.sources.get(index).and_then(Option::as_ref);
        found.ok_or_else(|| Error::Instruction("a bind mount has nothing to mount".to_owned()))
    }

    /// Makes the mount points that the root does not have in a layer below all others:
    /// there they leave no trace, neither in the layer nor in the times of directories.
    fn make_points(&mut self) -> Result<()> {
        let mut missing = Vec::new();
        if self.points.is_empty() {
            return Ok(());
        }
        let base = (self.place.base)()?;
        for ((target, is_directory), mount) in self.points.iter().zip(&mut self.found.mounts) {
            let relative = normalize(target);
            // The sandbox's own file systems are over these.
            if ["dev", "proc", "sys"].iter().any(|name| relative.starts_with(name)) {
                continue;
            }
            let resolved = resolve(&*base, &relative, true)?;
            match (resolved.node, &mut mount.kind) {
                (None, _) => missing.push((resolved.path, *is_directory)),
                // As runc does it: over a directory of the image, it looks like that.
                (Some(node), MountKind::Tmpfs { mode, .. }) if node.is_dir() => *mode = node.mode,
                (Some(_), _) => {}
            }
        }
        if !missing.is_empty() {
            let stubs = self.common.own(self.place.step, "stubs")?;
            make_stubs(&stubs, &missing)?;
            self.found.stubs = Some(stubs);
        }
        Ok(())
    }
}

/// Returns a secret as a variable.
fn variable(name: &str, content: &SecretBytes) -> Result<String> {
    let value = std::str::from_utf8(content.expose()).ok().filter(|text| !text.contains('\0'));
    let refused = || Error::Instruction(format!("the secret for {name} is not a text"));
    Ok(format!("{name}={}", value.ok_or_else(refused)?))
}

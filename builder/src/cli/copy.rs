//! `rbuild copy`: from registry to registry, or to and from layouts, archives and the store.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use oci::{Descriptor, Digest, Platform, Reference};
use store::remote::{self, CopyOptions, PushOptions};
use store::{ImageEntry, Layout, Lease, Listed};

use super::place::{Place, directory_of};
use super::progress::{Mode, Progress};
use super::pull::complete;
use super::push::write_digest;
use super::registry::{RegistryArgs, by_digest};
use super::transfer::Show;

/// Copy an image from one place to another
///
/// Places are `NAME` or `docker://NAME` in a registry, `store:NAME` in the store,
/// `oci:DIRECTORY[:NAME]`, `oci-archive:FILE[:NAME]` and `docker-archive:FILE[:NAME]`. Between
/// registries nothing is kept on this machine: blobs are mounted or pass through.
#[derive(Debug, clap::Args)]
pub(super) struct CopyArgs {
    /// Copy the images of all platforms, and their index as it is
    #[arg(short, long, conflicts_with = "platform")]
    all: bool,
    /// Platform to copy where there are several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Copy what refers to the image as well, such as signatures
    #[arg(long)]
    referrers: bool,
    /// Write the digest of the copy to this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print nothing but the result
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto", value_name = "MODE")]
    progress: Mode,
    /// Where the image is
    source: Place,
    /// Where it is copied to
    destination: Place,
}

pub(super) fn run(args: &CopyArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let lease = store.lease()?;
    let progress = Progress::start(if args.quiet { Mode::Quiet } else { args.progress });
    let result = copy(args, &lease, &progress);
    progress.finish();
    let (digest, result) = result?;
    write_digest(args.digestfile.as_deref(), &digest)?;
    writeln!(std::io::stdout(), "{result}")?;
    Ok(())
}

/// Copies, and returns the digest with what to print.
fn copy(args: &CopyArgs, lease: &Lease, progress: &Progress) -> anyhow::Result<(Digest, String)> {
    if let (Place::Registry(from), Place::Registry(to)) = (&args.source, &args.destination) {
        let name = format!("copy {} to {}", from.familiar(), to.familiar());
        let client = args.registry.client(&[from, to]);
        let copied =
            Show::run(progress, name, |sink| client.copy(lease, from, to, &args.options(), sink))
                .with_context(|| format!("cannot copy {} to {}", from.familiar(), to.familiar()))?;
        return Ok((copied.digest, by_digest(to, &copied.digest)));
    }
    let (image, name) = args.fetch(lease, progress)?;
    let image = args.select(lease, &image)?;
    args.put(lease, progress, &image, name)
}

impl CopyArgs {
    fn options(&self) -> CopyOptions {
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        CopyOptions { platform: (!self.all).then_some(platform), referrers: self.referrers }
    }

    /// Takes the image into the store, where the lease keeps it; returns its name as well.
    fn fetch(
        &self,
        lease: &Lease,
        progress: &Progress,
    ) -> anyhow::Result<(Descriptor, Option<Reference>)> {
        if self.referrers && !matches!(self.source, Place::Registry(_) | Place::Store(_)) {
            bail!("what refers to an image is found in registries and in the store only");
        }
        match &self.source {
            Place::Registry(from) => {
                let client = self.registry.client(&[from]);
                let name = format!("pull {}", from.familiar());
                let taken = Show::run(progress, name, |sink| {
                    client.take(lease, from, &self.options(), sink)
                });
                let taken = taken.with_context(|| format!("cannot copy {}", from.familiar()))?;
                Ok((taken, Some(from.clone())))
            }
            Place::Store(name) => {
                let found = lease.store().images().find(name)?;
                lease.pin(&found.descriptor.digest)?;
                if !matches!(self.destination, Place::Registry(_)) {
                    complete(lease, &self.registry, &found.descriptor, progress)?;
                }
                Ok((found.descriptor, found.reference))
            }
            Place::Layout(path, name) => {
                let context = || format!("cannot read {}", path.display());
                let layout = Layout::open(path).with_context(context)?;
                let listed = layout.find(name.as_deref()).with_context(context)?;
                layout.load(lease, &listed.descriptor).with_context(context)?;
                Ok((listed.descriptor, listed.references.into_iter().next()))
            }
            Place::OciArchive(path, name) | Place::DockerArchive(path, name) => {
                let context = || format!("cannot read {}", path.display());
                let file = File::open(path).with_context(context)?;
                let listed = lease.load_unnamed(file).with_context(context)?;
                let listed = chosen(listed, name.as_deref()).with_context(context)?;
                Ok((listed.descriptor, listed.references.into_iter().next()))
            }
        }
    }

    /// Returns the image for one platform, or all of them.
    fn select(&self, lease: &Lease, image: &Descriptor) -> anyhow::Result<Descriptor> {
        if self.all || !image.media_type.is_index() {
            return Ok(image.clone());
        }
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        Ok(lease.store().image(image, &platform)?.manifest_descriptor)
    }

    /// Writes an image of the store to its place.
    fn put(
        &self,
        lease: &Lease,
        progress: &Progress,
        image: &Descriptor,
        name: Option<Reference>,
    ) -> anyhow::Result<(Digest, String)> {
        let context = |path: &Path| format!("cannot write {}", path.display());
        let digest = image.digest;
        match &self.destination {
            Place::Registry(to) => {
                let client = self.registry.client(&[to]);
                let options = PushOptions {
                    platform: self.platform.clone().unwrap_or_else(Platform::host),
                    referrers: self.referrers,
                    ..PushOptions::default()
                };
                let pushed: remote::Result<Descriptor> =
                    Show::run(progress, format!("push {}", to.familiar()), |sink| {
                        client.push(lease, image, to, &options, sink)
                    });
                let pushed = pushed.with_context(|| format!("cannot push {}", to.familiar()))?;
                Ok((pushed.digest, by_digest(to, &pushed.digest)))
            }
            Place::Store(name) => {
                let name: Reference = name.parse()?;
                lease.store().images().set(lease, &name, image)?;
                Ok((digest, by_digest(&name, &digest)))
            }
            Place::Layout(path, name) => {
                let layout = Layout::create(path).with_context(|| context(path))?;
                layout.save_as(lease, image, name.as_deref()).with_context(|| context(path))?;
                Ok((digest, format!("oci:{}@{digest}", path.display())))
            }
            Place::OciArchive(path, tag) => {
                written(path, |out| lease.save_tagged(image, tag.as_deref(), out))?;
                Ok((digest, format!("oci-archive:{}@{digest}", path.display())))
            }
            Place::DockerArchive(path, chosen) => {
                let reference = match chosen {
                    Some(name) => Some(name.parse()?),
                    None => name,
                };
                let entry = ImageEntry { reference, descriptor: image.clone() };
                written(path, |out| lease.save(&[entry], out))?;
                Ok((digest, format!("docker-archive:{}@{digest}", path.display())))
            }
        }
    }
}

/// Writes a file that nobody finds before it is whole.
fn written(
    path: &Path,
    write: impl FnOnce(&mut dyn std::io::Write) -> store::Result<()>,
) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(directory_of(path)).with_context(context)?;
    write(&mut BufWriter::new(&mut file)).with_context(context)?;
    file.persist(path).with_context(context)?;
    Ok(())
}

/// Returns the image of an archive with a name, or the only one.
fn chosen(listed: Vec<Listed>, name: Option<&str>) -> anyhow::Result<Listed> {
    let Some(name) = name else {
        return match <[Listed; 1]>::try_from(listed) {
            Ok([image]) => Ok(image),
            Err(listed) => bail!("it has {} images: say which", listed.len()),
        };
    };
    let whole = name.parse::<Reference>().ok();
    let fits = |image: &Listed| {
        image.ref_name.as_deref() == Some(name)
            || whole.as_ref().is_some_and(|whole| image.references.contains(whole))
    };
    listed.into_iter().find(fits).with_context(|| format!("it has no image {name}"))
}

//! Writes the outputs of a finished build.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use oci::{Compression, Descriptor, Platform, Reference};
use store::{ArchiveFormat, ImageEntry, Layout, Lease};

use super::output::{Outputs, by_repository};
use super::push::Pushing;
use crate::output::{
    Destination, Finished, Kind, Output, Rootfs, Target, platform_directory, write_local, write_tar,
};

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    /// The image as it was pushed or stored; what to deploy by.
    pub(super) image: Descriptor,
    /// One line for each output that people may look for.
    pub(super) lines: Vec<String>,
}

impl Outputs {
    /// Writes everything, in the order in which it was asked for.
    pub(super) fn write(
        &self,
        lease: &Lease,
        finished: &Finished,
        epoch: Option<i64>,
        pushes: &[Pushing<'_>],
    ) -> anyhow::Result<Written> {
        let mut written = Written { image: finished.image.clone(), lines: Vec::new() };
        let mut pushes = pushes.iter();
        for output in &self.list {
            written.lines.extend(without_effect(output, epoch));
            match output.kind {
                Kind::Image => image(lease, finished, output, &mut pushes, &mut written)?,
                Kind::Oci { tar } => archive(lease, finished, output, tar, &mut written)?,
                Kind::Docker { tar } => archive(lease, finished, output, tar, &mut written)?,
                Kind::Tar => tar(lease, finished, output, epoch)?,
                Kind::Local => local(lease, finished, output, epoch, &mut written)?,
                Kind::CacheOnly => {}
            }
            if let Some(Destination::Path(path)) = &output.destination {
                written.lines.push(format!("wrote {}", path.display()));
            }
        }
        Ok(written)
    }
}

/// Says what of an output was asked for in vain.
fn without_effect(output: &Output, epoch: Option<i64>) -> Option<String> {
    let why = match (output.form.rewrite_timestamp, epoch) {
        (Some(true), None) => "rewrite-timestamp=true needs SOURCE_DATE_EPOCH",
        (Some(false), Some(_)) => {
            "rewrite-timestamp=false has no effect: with SOURCE_DATE_EPOCH, no file of a new layer is later"
        }
        (Some(_) | None, _) => return None,
    };
    Some(format!("warning: {why}"))
}

/// Names an image in the store and publishes it.
fn image<'a>(
    lease: &Lease,
    finished: &Finished,
    output: &Output,
    pushes: &mut impl Iterator<Item = &'a Pushing<'a>>,
    written: &mut Written,
) -> anyhow::Result<()> {
    let form = &output.form;
    if !output.push.skip_store {
        let stored = finished.in_form(lease, form, form.compression)?;
        name(lease, &stored.image, &output.names)?;
        written.image = stored.image;
    }
    if !output.push.wanted {
        return Ok(());
    }
    // The layers are compressed on their way, and were sent when they were finished.
    let annotated = finished.in_form(lease, form, None)?.image;
    for _ in by_repository(&output.names) {
        let push = pushes.next().context("every repository has its push")?;
        let pushed = push.publish(&annotated)?;
        for name in push.names() {
            let name = name.without_digest().familiar();
            written.lines.push(format!("pushed {name}@{}", pushed.digest));
        }
        written.image = Descriptor { annotations: annotated.annotations.clone(), ..pushed };
    }
    Ok(())
}

/// Gives an image its names in the store, writing only what is new.
fn name(lease: &Lease, image: &Descriptor, names: &[Reference]) -> anyhow::Result<()> {
    let images = lease.store().images();
    let plain = Descriptor::new(image.media_type.clone(), image.digest, image.size);
    if names.is_empty() {
        images.set_untagged(lease, &plain)?;
    }
    for name in names {
        if images.get(name)?.as_ref() != Some(&plain) {
            images.set(lease, name, &plain)?;
        }
    }
    Ok(())
}

/// Writes an OCI layout, or what docker loads.
fn archive(
    lease: &Lease,
    finished: &Finished,
    output: &Output,
    is_tar: bool,
    written: &mut Written,
) -> anyhow::Result<()> {
    let format = match output.kind {
        Kind::Docker { .. } => ArchiveFormat::Docker,
        _ => ArchiveFormat::Oci,
    };
    let codec = output.form.compression.unwrap_or(Compression::Gzip);
    let image = finished.in_form(lease, &output.form, Some(codec))?.image;
    written.image = image.clone();
    let entry = |reference| ImageEntry { reference, descriptor: image.clone() };
    let mut entries: Vec<ImageEntry> =
        output.names.iter().map(|name| entry(Some(name.clone()))).collect();
    if entries.is_empty() {
        entries.push(entry(None));
    }
    match &output.destination {
        Some(Destination::Path(path)) if !is_tar => {
            Layout::create(path)?.save(lease, &entries)?;
        }
        Some(destination) => {
            let mut target = Target::create(destination)?;
            lease.save_as(&entries, format, &mut target)?;
            target.finish()?;
        }
        None => {
            load_into_docker(lease, &entries)?;
            written.lines.push("loaded into docker".to_owned());
        }
    }
    Ok(())
}

/// Hands an image to a docker daemon, as `type=docker` without `dest` asks for.
fn load_into_docker(lease: &Lease, entries: &[ImageEntry]) -> anyhow::Result<()> {
    let mut docker = Command::new("docker")
        .args(["load", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("type=docker without dest needs the program docker")?;
    let input = docker.stdin.take().context("docker has an input")?;
    let sent = lease.save_as(entries, ArchiveFormat::Docker, input);
    if !docker.wait().context("cannot wait for docker")?.success() {
        bail!("docker load failed");
    }
    Ok(sent?)
}

/// Opens the root file system of each platform, with the name of its directory.
fn roots(
    lease: &Lease,
    finished: &Finished,
    output: &Output,
) -> anyhow::Result<Vec<(Option<String>, Platform, Rootfs)>> {
    let is_split = output.platform_split.unwrap_or(finished.builds.len() > 1);
    if !is_split && finished.builds.len() > 1 {
        bail!("platform-split=false would mix the files of several platforms");
    }
    let mut roots = Vec::new();
    for built in &finished.builds {
        let name = is_split.then(|| platform_directory(&built.platform));
        roots.push((name, built.platform.clone(), Rootfs::open(lease, built)?));
    }
    Ok(roots)
}

fn tar(
    lease: &Lease,
    finished: &Finished,
    output: &Output,
    epoch: Option<i64>,
) -> anyhow::Result<()> {
    let roots = roots(lease, finished, output)?;
    let roots: Vec<_> = roots.into_iter().map(|(name, _, root)| (name, root)).collect();
    let destination = output.destination.as_ref().unwrap_or(&Destination::Stdout);
    let mut target = Target::create(destination)?;
    write_tar(&roots, epoch, &mut target)?;
    target.flush()?;
    target.finish()?;
    Ok(())
}

fn local(
    lease: &Lease,
    finished: &Finished,
    output: &Output,
    epoch: Option<i64>,
    written: &mut Written,
) -> anyhow::Result<()> {
    let Some(Destination::Path(directory)) = &output.destination else {
        bail!("dest is required for local exporter");
    };
    for (name, platform, root) in roots(lease, finished, output)? {
        let to = name.map_or_else(|| directory.clone(), |name| directory.join(name));
        let left_out = write_local(&root, epoch, &to)?;
        if let Some(first) = left_out.first() {
            let (first, more) = (first.display(), left_out.len() - 1);
            let count = if more == 0 { String::new() } else { format!(" and {more} more") };
            written.lines.push(format!("left out the device /{first}{count} of {platform}"));
        }
    }
    Ok(())
}

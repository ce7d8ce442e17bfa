//! `rbuild tag` and `rbuild rmi`: names of images.

use std::io::Write as _;

use oci::Reference;

use super::failure;

/// Give an image another name
#[derive(Debug, clap::Args)]
pub(super) struct TagArgs {
    /// Name or ID of the image
    image: String,
    /// The new name
    name: Reference,
}

pub(super) fn tag(args: &TagArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let lease = store.lease()?;
    let found = store.images().find(&args.image)?;
    lease.pin(&found.descriptor.digest)?;
    store.images().set(&lease, &args.name, &found.descriptor)?;
    Ok(())
}

/// Remove images
#[derive(Debug, clap::Args)]
pub(super) struct RmiArgs {
    /// Remove images that have several names or that containers use
    #[arg(short, long)]
    force: bool,
    /// Names or IDs of images
    #[arg(required = true)]
    images: Vec<String>,
}

pub(super) fn rmi(args: &RmiArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let mut failed = 0;
    for image in &args.images {
        match store.remove_image(image, args.force) {
            Ok(removal) => {
                let mut out = std::io::stdout().lock();
                for name in removal.untagged {
                    writeln!(out, "Untagged: {}", name.familiar())?;
                }
                if let Some(id) = removal.deleted {
                    writeln!(out, "Deleted: {id}")?;
                }
            }
            Err(error) => {
                failed += 1;
                failure::print(&error.into());
            }
        }
    }
    if failed > 0 {
        anyhow::bail!("{failed} of {} images could not be removed", args.images.len());
    }
    Ok(())
}

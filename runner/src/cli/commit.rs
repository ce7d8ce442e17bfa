//! `rrun commit`.

use std::io::{self, Write as _};

use anyhow::bail;
use oci::Reference;

use crate::engine::Error;
use crate::engine::commit::{Change, CommitRequest};

use super::Context;

/// Make an image of a container, and print its id
///
/// Its layers are those of the container's image, and one with what the
/// container has changed. What is in volumes and other mounts is not part of it.
#[derive(Debug, clap::Args)]
pub(super) struct CommitArgs {
    /// Who made it
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// Change a setting, such as 'ENV DEBUG=1' (can be repeated)
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<Change>,
    /// Remark in the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Hold a running container still meanwhile
    #[arg(
        short,
        long,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_name = "true|false",
        action = clap::ArgAction::Set
    )]
    pause: bool,
    /// Container, by name or id
    container: String,
    /// Name of the image; without one it has only its id
    #[arg(value_name = "NAME[:TAG]")]
    image: Option<String>,
}

pub(super) fn run(args: CommitArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let reference = args
        .image
        .map(|text| {
            text.parse::<Reference>()
                .map_err(|source| Error::ImageReference { reference: text, source })
        })
        .transpose()?;
    if let Some(reference) = &reference
        && reference.digest().is_some()
    {
        bail!("{} names an image by its digest, which nobody chooses", reference.familiar());
    }
    let request = CommitRequest {
        reference,
        author: args.author,
        message: args.message,
        changes: args.change,
        pause: args.pause,
    };
    let id = engine.commit(&engine.containers().find(&args.container)?, &request)?;
    writeln!(io::stdout(), "{id}")?;
    Ok(0)
}

//! `rrun cp`.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::engine::copy::Owner;
use crate::engine::root::ContainerRoot;
use crate::engine::transfer::{Side, transfer};

use super::table::printable;
use super::{Context, report};

/// Copy files between a container and this machine
///
/// The container may run or not. What a directory is copied into must be there,
/// or is made; of a path that ends with `/.`, what is in it is copied. Links
/// are copied as links, and lead nowhere outside of the container.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "rrun cp [OPTIONS] CONTAINER:SOURCE TARGET\n       rrun cp [OPTIONS] SOURCE CONTAINER:TARGET"
)]
pub(super) struct CpArgs {
    /// Keep owners and set-id bits
    #[arg(short, long)]
    archive: bool,
    /// Do not say how much was copied
    #[arg(short, long)]
    quiet: bool,
    /// What is copied
    source: String,
    /// Where it goes
    target: String,
}

pub(super) fn run(args: &CpArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let open = |name: &str| engine.open_root(&engine.containers().find(name)?);
    let (root, from, to): (ContainerRoot, PathBuf, PathBuf);
    let into_container = match (parse(&args.source), parse(&args.target)) {
        (Some((container, source)), None) => {
            (root, from, to) = (open(container)?, source.into(), PathBuf::from(&args.target));
            false
        }
        (None, Some((container, target))) => {
            (root, from, to) = (open(container)?, PathBuf::from(&args.source), target.into());
            true
        }
        (Some(_), Some(_)) => bail!("files cannot be copied from container to container"),
        (None, None) => bail!("one of both must be a path in a container: CONTAINER:PATH"),
    };
    if args.source == "-" || args.target == "-" {
        bail!("archives on standard input and output are not supported yet");
    }
    let owner = match (args.archive, into_container) {
        (true, _) => Owner::Same,
        (false, true) => Owner::Ids(0, 0),
        (false, false) => {
            Owner::Ids(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
        }
    };
    let (inside, outside) = (|path| Side::Container(&root, path), |path| Side::Host(path));
    let copied = if into_container {
        transfer(outside(&from), inside(&to), owner)?
    } else {
        transfer(inside(&from), outside(&to), owner)?
    };
    let left_out = copied
        .left_out
        .iter()
        .map(|name| format!("{} is a device or a socket, and was left out", printable(name)));
    report::warn(&left_out.collect::<Vec<_>>());
    if !args.quiet {
        writeln!(io::stderr(), "copied {} bytes to {}", copied.bytes, args.target)?;
    }
    Ok(0)
}

/// Splits `CONTAINER:PATH`. What begins like a path is one of this machine.
fn parse(text: &str) -> Option<(&str, &Path)> {
    if text.starts_with(['/', '.']) {
        return None;
    }
    let (container, path) = text.split_once(':')?;
    (!container.is_empty() && !container.contains('/')).then_some((container, Path::new(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_containers() {
        for (text, expected) in [
            ("web:/etc", Some(("web", "/etc"))),
            ("web:etc/x:y", Some(("web", "etc/x:y"))),
            ("/a:b", None),
            ("./web:x", None),
            ("dir/web:x", None),
            ("plain", None),
            (":x", None),
        ] {
            assert_eq!(parse(text), expected.map(|(name, path)| (name, Path::new(path))), "{text}");
        }
    }
}

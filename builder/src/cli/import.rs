//! `rbuild import`: an image from a root file system.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write as _};

use anyhow::{Context as _, bail};
use oci::{Descriptor, Digest, History, ImageConfig, Manifest, MediaType, Platform, Reference};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::environment;
use crate::dockerfile;
use crate::plan::{Action, Options, Planned, plan};

/// Make an image of a root file system in a tar
///
/// The tar is what `docker export` or `debootstrap` and tar write, plain or compressed with gzip or
/// zstd. The image has one layer and an empty config, but for what --change says.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// Apply a Dockerfile instruction, such as 'CMD ["sh"]' (can be repeated): CMD, ENTRYPOINT,
    /// ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Say in the history where the image comes from
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Platform of the image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// File to read, `-` for stdin
    file: String,
    /// Name of the image
    name: Option<Reference>,
}

pub(super) fn run(args: &ImportArgs, context: &super::Context) -> anyhow::Result<()> {
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let mut config = changed(&args.change, &platform)?;
    let store = context.store()?;
    let lease = store.lease()?;
    let input: Box<dyn Read + Send> = match args.file.as_str() {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(File::open(path).with_context(|| format!("cannot read {path}"))?),
    };
    let (layer, diff_id) =
        lease.import(input).with_context(|| format!("cannot import {}", args.file))?;
    let created = OffsetDateTime::from(environment::now()).format(&Rfc3339)?;
    let message = args.message.clone().unwrap_or_else(|| format!("Imported from {}", args.file));
    config.created = Some(created.clone());
    config.rootfs_diff_ids = vec![diff_id];
    config.history =
        vec![History { created: Some(created), comment: Some(message), ..History::default() }];
    let placeholder = Descriptor::new(MediaType::OCI_CONFIG, Digest::sha256(b""), 0);
    let image = lease.put_image(&Manifest::new(placeholder, vec![layer]), &config)?;
    match &args.name {
        Some(name) => store.images().set(&lease, name, &image)?,
        None => store.images().set_untagged(&lease, &image)?,
    }
    let id = store.image(&image, &platform)?.config_digest;
    writeln!(std::io::stdout(), "{id}")?;
    Ok(())
}

/// Returns the config that instructions make of an empty one.
fn changed(changes: &[String], platform: &Platform) -> anyhow::Result<ImageConfig> {
    if changes.is_empty() {
        return Ok(ImageConfig::new(platform.clone()));
    }
    let text = format!("FROM scratch\n{}\n", changes.join("\n"));
    let (file, diagnostics) = dockerfile::parse(&text);
    if let Some(problem) =
        diagnostics.iter().find(|d| dockerfile::has_errors(std::slice::from_ref(*d)))
    {
        bail!("--change: {problem}");
    }
    if file.stages.len() != 1 {
        bail!("--change: FROM makes no sense here");
    }
    let options = Options {
        platform: platform.clone(),
        build_platform: platform.clone(),
        ..Options::default()
    };
    let planned = plan(&file, &options, &BTreeMap::new())
        .map_err(|problems| anyhow::anyhow!("--change: {}", first(&problems.0)))?;
    let Planned::Ready(plan) = planned else { bail!("--change: images make no sense here") };
    let stage = plan.stages.get(&plan.target).context("--change: there is no stage")?;
    if stage.steps.iter().any(|step| !matches!(step.action, Action::Workdir(_))) {
        bail!("--change: RUN, COPY and ADD make no sense here: build an image from this one");
    }
    let mut config = stage.config.clone();
    // A Dockerfile's defaults are not this image's.
    let ours = &mut config.config;
    ours.env.retain(|entry| entry != crate::plan::DEFAULT_PATH);
    if ours.working_dir.as_deref() == Some("/") {
        ours.working_dir = None;
    }
    Ok(config)
}

fn first(problems: &[dockerfile::Diagnostic]) -> String {
    problems.first().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(changes: &[&str]) -> anyhow::Result<ImageConfig> {
        let changes: Vec<String> = changes.iter().map(|&text| text.to_owned()).collect();
        changed(&changes, &Platform::new("linux", "amd64", None))
    }

    #[test]
    fn changes_are_those_of_a_dockerfile_and_nothing_else() {
        assert_eq!(config(&[]).unwrap().config, oci::RuntimeConfig::default());
        let changed = config(&[
            "ENV A=1 B=\"x y\"",
            "CMD [\"sh\", \"-c\"]",
            "entrypoint echo",
            "WORKDIR /srv",
            "LABEL one=1",
            "EXPOSE 80",
            "USER nobody",
            "ONBUILD RUN true",
        ]);
        let config = serde_json::to_value(changed.unwrap().config).unwrap();
        let expected = serde_json::json!({
            "User": "nobody",
            "ExposedPorts": {"80/tcp": {}},
            "Env": ["A=1", "B=x y"],
            "Entrypoint": ["/bin/sh", "-c", "echo"],
            "Cmd": ["sh", "-c"],
            "ArgsEscaped": true,
            "WorkingDir": "/srv",
            "Labels": {"one": "1"},
            "OnBuild": ["RUN true"],
        });
        assert_eq!(config, expected);
    }

    #[test]
    fn what_changes_files_is_refused() {
        for (change, expected) in [
            ("RUN true", "--change: RUN, COPY and ADD make no sense here"),
            ("COPY --from=busybox /a /b", "make no sense here"),
            ("FROM busybox", "--change: FROM makes no sense here"),
            ("NONSENSE x", "unknown instruction"),
            ("ENV", "--change: "),
        ] {
            let error = config(&[change]).unwrap_err().to_string();
            assert!(error.contains(expected), "{change}: {error}");
        }
    }
}

//! From a configuration to a [`Bundle`].

use std::path::{Path, PathBuf};

use sandbox::bundle::{Bundle, BundleMount, BundleMountKind, IdMaps, IdRange, NamespaceKind};

use super::super::error::{Error, Result};
use super::config::{Config, Hook, Mount};
use super::options::Options;
use super::{linux, process};

/// Returns what a configuration asks for; `directory` is that of the bundle.
///
/// # Errors
///
/// When something makes no sense or is not supported: nothing is left out
/// silently.
pub fn bundle(config: &Config, directory: &Path) -> Result<Bundle> {
    let linux = &config.linux;
    refuse_unsupported(config)?;
    let root = config.root.as_ref().ok_or_else(|| Error::invalid("config.json has no root"))?;
    let wanted =
        config.process.as_ref().ok_or_else(|| Error::invalid("config.json has no process"))?;
    let namespaces = linux::namespaces(linux)?;
    let is_new = |kind| {
        namespaces.iter().any(|namespace| namespace.kind == kind && namespace.path.is_none())
    };
    let has = |kind| namespaces.iter().any(|namespace| namespace.kind == kind);
    for (name, value) in [("hostname", &config.hostname), ("domainname", &config.domainname)] {
        if value.as_ref().is_some_and(|value| !value.is_empty()) && !has(NamespaceKind::Uts) {
            return Err(Error::invalid(format!("{name} needs a uts namespace")));
        }
    }
    let (uid_map, gid_map) =
        (linux::ranges(&linux.uid_mappings)?, linux::ranges(&linux.gid_mappings)?);
    if is_new(NamespaceKind::User) && (uid_map.is_empty() || gid_map.is_empty()) {
        return Err(Error::invalid("a new user namespace needs linux.uidMappings and gidMappings"));
    }
    let mounts = config
        .mounts
        .iter()
        .map(|wanted| mount(wanted, directory, (&uid_map, &gid_map)))
        .collect::<Result<_>>()?;
    let filled = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    let hooks = &config.hooks;
    // Those that the caller runs: refused now rather than at their moment.
    for list in [&hooks.prestart, &hooks.create_runtime, &hooks.poststart, &hooks.poststop] {
        self::hooks(list)?;
    }
    Ok(Bundle {
        root: directory.join(&root.path),
        readonly: root.readonly,
        propagation: linux::propagation(linux.rootfs_propagation.as_deref())?,
        clocks: linux::clocks(linux, is_new(NamespaceKind::Time))?,
        mounts,
        devices: linux.devices.iter().map(linux::device).collect::<Result<_>>()?,
        masked: absolute(&linux.masked_paths)?,
        protected: absolute(&linux.readonly_paths)?,
        sysctls: linux::sysctls(&linux.sysctl, has)?,
        hostname: filled(&config.hostname),
        domainname: filled(&config.domainname),
        create_container: self::hooks(&hooks.create_container)?,
        start_container: self::hooks(&hooks.start_container)?,
        pauses: !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty(),
        process: process(wanted, linux)?,
        credentials: process::credentials(wanted, linux)?,
        namespaces,
        uid_map,
        gid_map,
    })
}

fn refuse_unsupported(config: &Config) -> Result<()> {
    let linux = &config.linux;
    for (field, asked) in [
        ("mountLabel", linux.mount_label.as_ref().is_some_and(|label| !label.is_empty())),
        ("intelRdt", linux.intel_rdt.is_some()),
        ("netDevices", !linux.net_devices.is_empty()),
        ("memoryPolicy", linux.memory_policy.is_some()),
    ] {
        if asked {
            return Err(Error::invalid(format!("linux.{field} is not supported yet")));
        }
    }
    Ok(())
}

fn absolute(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    match paths.iter().find(|path| !path.is_absolute()) {
        None => Ok(paths.to_vec()),
        Some(path) => Err(Error::invalid(format!(
            "{} is to be masked or read-only, and is not an absolute path",
            path.display()
        ))),
    }
}

/// Returns hooks.
///
/// # Errors
///
/// When a path is not absolute or a timeout is zero.
pub fn hooks(hooks: &[Hook]) -> Result<Vec<sandbox::bundle::Hook>> {
    let hook = |hook: &Hook| {
        if !hook.path.is_absolute() {
            return Err(Error::invalid(format!(
                "the hook {} needs an absolute path",
                hook.path.display()
            )));
        }
        if hook.timeout == Some(0) {
            return Err(Error::invalid(format!("the hook {} has no time", hook.path.display())));
        }
        Ok(sandbox::bundle::Hook {
            path: hook.path.clone(),
            args: hook.args.clone(),
            env: hook.env.clone(),
            timeout_seconds: hook.timeout,
        })
    };
    hooks.iter().map(hook).collect()
}

fn mount(wanted: &Mount, directory: &Path, own: (&[IdRange], &[IdRange])) -> Result<BundleMount> {
    let shown = wanted.destination.display();
    let wrong = |what: String| Error::invalid(format!("the mount {shown}: {what}"));
    let options = Options::parse(&wanted.options).map_err(wrong)?;
    let target = Path::new("/").join(&wanted.destination);
    if target.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(wrong("the destination must not contain ..".into()));
    }
    if target.components().count() < 2 {
        return Err(wrong("cannot mount on the root".into()));
    }
    let kind = wanted.kind.as_deref().unwrap_or("none");
    let is_bind = options.bind || kind == "bind";
    let ids = id_maps(wanted, &options, own).map_err(wrong)?;
    if !is_bind && ids.is_some() {
        return Err(wrong("only bind mounts can map ids".into()));
    }
    if options.copy_up && kind != "tmpfs" {
        return Err(wrong("only a tmpfs can copy what it covers".into()));
    }
    let kind = match kind {
        _ if is_bind => {
            if wanted.source.is_empty() {
                return Err(wrong("a bind mount needs a source".into()));
            }
            if let Some((key, _)) = options.data.first() {
                return Err(wrong(format!("a bind mount has no option {key:?}")));
            }
            let source = directory.join(&wanted.source);
            BundleMountKind::Bind { source, recursive: options.recursive, ids }
        }
        "cgroup" | "cgroup2" => BundleMountKind::Cgroups,
        "" | "none" => return Err(wrong("it has neither a type nor the option bind".into())),
        kind => BundleMountKind::Filesystem {
            kind: kind.to_owned(),
            source: wanted.source.clone(),
            options: options.data,
            copy_up: options.copy_up,
        },
    };
    Ok(BundleMount {
        target,
        kind,
        set: options.set,
        clear: options.clear,
        set_recursive: options.set_recursive,
        clear_recursive: options.clear_recursive,
        propagation: options.propagation,
    })
}

/// Returns how a mount maps ids: as it says itself, or as the container does.
fn id_maps(
    wanted: &Mount,
    options: &Options,
    own: (&[IdRange], &[IdRange]),
) -> Result<Option<IdMaps>, String> {
    let ranges = |mappings| linux::ranges(mappings).map_err(|error| error.to_string());
    let (uids, gids) = (ranges(&wanted.uid_mappings)?, ranges(&wanted.gid_mappings)?);
    let recursive = options.id_map == Some(true);
    match (uids.is_empty(), gids.is_empty()) {
        (true, true) if options.id_map.is_none() => Ok(None),
        (true, true) if own.0.is_empty() || own.1.is_empty() => {
            Err("mapping ids takes maps, of the mount or of a user namespace".into())
        }
        (true, true) => Ok(Some(IdMaps { uids: own.0.to_vec(), gids: own.1.to_vec(), recursive })),
        (false, false) => Ok(Some(IdMaps { uids, gids, recursive })),
        _ => Err("both uidMappings and gidMappings are needed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration with `text` in place of the Linux part and mounts.
    fn read(rest: &str) -> Result<Bundle> {
        let text = format!(
            r#"{{"ociVersion":"1.0.2","root":{{"path":"rootfs"}},"process":{{"args":["x"],"cwd":"/"}},{rest}}}"#
        );
        bundle(&super::super::parse(text.as_bytes())?, Path::new("/bundle"))
    }

    const MOUNT: &str = r#""linux":{"namespaces":[{"type":"mount"}]}"#;

    #[test]
    fn paths_are_taken_from_the_bundle() {
        let bundle = read(&format!(
            r#""mounts":[{{"destination":"data","source":"x","options":["bind"]}},{{"destination":"/etc","type":"bind","source":"/y","options":["rbind"]}}],{MOUNT}"#
        ))
        .unwrap();
        assert_eq!(bundle.root, Path::new("/bundle/rootfs"));
        let bind = |source: &str, recursive| BundleMountKind::Bind {
            source: source.into(),
            recursive,
            ids: None,
        };
        assert_eq!(bundle.mounts[0].target, Path::new("/data"));
        assert_eq!(bundle.mounts[0].kind, bind("/bundle/x", false));
        assert_eq!(bundle.mounts[1].kind, bind("/y", true));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = [
            r#""linux":{"namespaces":[{"type":"pid"}]}"#,
            r#""linux":{"namespaces":[{"type":"mount"},{"type":"mount"}]}"#,
            r#""linux":{"namespaces":[{"type":"mount"},{"type":"moon"}]}"#,
            r#""linux":{"namespaces":[{"type":"mount"},{"type":"net","path":"x"}]}"#,
            r#""linux":{"namespaces":[{"type":"mount"},{"type":"user"}]}"#,
            r#""hostname":"h","linux":{"namespaces":[{"type":"mount"}]}"#,
            r#""linux":{"namespaces":[{"type":"mount"}],"sysctl":{"kernel.core_pattern":"|x"}}"#,
            r#""linux":{"namespaces":[{"type":"mount"}],"timeOffsets":{"monotonic":{"secs":1}}}"#,
            r#""linux":{"namespaces":[{"type":"mount"}],"maskedPaths":["proc/x"]}"#,
            r#""linux":{"namespaces":[{"type":"mount"}],"devices":[{"path":"/dev/x","type":"z"}]}"#,
            r#""linux":{"namespaces":[{"type":"mount"}],"rootfsPropagation":"x"}"#,
            r#""linux":{"namespaces":[{"type":"mount"}],"intelRdt":{}}"#,
            r#""linux":{"namespaces":[{"type":"mount"}],"mountLabel":"x"}"#,
            r#""hooks":{"prestart":[{"path":"x"}]},"linux":{"namespaces":[{"type":"mount"}]}"#,
            r#""hooks":{"prestart":[{"path":"/x","timeout":0}]},"linux":{"namespaces":[{"type":"mount"}]}"#,
            r#""mounts":[{"destination":"/a/../b","type":"tmpfs"}],"linux":{"namespaces":[{"type":"mount"}]}"#,
            r#""mounts":[{"destination":"/","type":"tmpfs"}],"linux":{"namespaces":[{"type":"mount"}]}"#,
            r#""mounts":[{"destination":"/x"}],"linux":{"namespaces":[{"type":"mount"}]}"#,
            r#""mounts":[{"destination":"/x","source":"/y","options":["bind","size=3"]}],"linux":{"namespaces":[{"type":"mount"}]}"#,
            r#""mounts":[{"destination":"/x","source":"/y","options":["bind","idmap"]}],"linux":{"namespaces":[{"type":"mount"}]}"#,
            r#""mounts":[{"destination":"/x","type":"tmpfs","options":["remount"]}],"linux":{"namespaces":[{"type":"mount"}]}"#,
        ];
        for text in refused {
            assert!(read(text).is_err(), "accepted {text}");
        }
        assert!(read(MOUNT).is_ok());
    }
}

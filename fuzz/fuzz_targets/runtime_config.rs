//! The runtime configuration of a bundle: what is accepted leads nowhere outside.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use runner::oci::spec;

fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = spec::parse(bytes) else { return };
    let Ok(bundle) = spec::bundle(&config, Path::new("/bundle")) else { return };
    let targets = bundle.mounts.iter().map(|mount| &mount.target);
    for path in targets.clone() {
        assert!(!path.components().any(|part| part == Component::ParentDir));
        assert!(path.components().count() > 1);
    }
    let devices = bundle.devices.iter().map(|device| &device.path);
    for path in targets.chain(devices).chain(&bundle.masked).chain(&bundle.protected) {
        assert!(path.is_absolute());
    }
    assert!(!bundle.process.args.is_empty() && bundle.process.cwd.is_absolute());
    let sets = bundle.credentials.capabilities;
    assert_eq!(sets.effective & !sets.permitted, 0);
});

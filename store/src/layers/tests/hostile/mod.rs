//! Tars that mean harm: each is refused, or does what it does inside its layer. A canary beside the
//! store shows that nothing outside is ever touched.

mod archives;
mod kinds;
mod paths;

use std::{fs, path::Path};

use oci::{DiffId, Digest};

use super::{laws::store, mounted::dump_directory};

enum Want {
    /// Refused, with a message that contains this.
    Refused(&'static str),
    /// Unpacked; these paths and nothing else are in the layer.
    Holds(&'static [&'static str]),
}
struct Case {
    name: &'static str,
    tar: Vec<u8>,
    want: Want,
}

fn case(name: &'static str, tar: Vec<u8>, want: Want) -> Case {
    Case { name, tar, want }
}

/// Every message of an error and its causes.
fn messages(error: &dyn std::error::Error) -> String {
    let mut all = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        all += &format!(": {error}");
        cause = error.source();
    }
    all
}

fn check(cases: Vec<Case>, outside: &Path) {
    let before = dump_directory(outside);
    for Case { name, tar, want } in cases {
        let (_directory, store, lease) = store();
        let diff_id = DiffId(Digest::sha256(&tar));
        let result = lease.unpack_stream(&tar[..], diff_id);
        let layer = store.root().layer(&diff_id.0);
        match want {
            Want::Refused(message) => {
                let error = result.expect_err(name);
                let text = messages(&error);
                assert!(text.contains(message), "{name}: {text}");
                assert!(!layer.exists(), "{name}");
            }
            Want::Holds(paths) => {
                result.unwrap_or_else(|error| panic!("{name}: {}", messages(&error)));
                let found: Vec<_> = dump_directory(&layer.join("fs")).into_keys().collect();
                let want: Vec<_> = [""].iter().chain(paths).map(ToString::to_string).collect();
                assert_eq!(found, want, "{name}");
            }
        }
        drop(lease);
        assert_eq!(fs::read_dir(store.root().leases()).unwrap().count(), 0, "{name}");
        assert_eq!(fs::read_dir(store.root().trash()).unwrap().count(), 0, "{name}");
        assert_eq!(dump_directory(outside), before, "{name}: something outside changed");
    }
}

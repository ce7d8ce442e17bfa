//! Paths and links that point elsewhere.

use std::{fs, os::unix::fs::MetadataExt as _};

use super::{
    super::build::{dir, file, hard_link, item, symlink, tar},
    Want::{Holds, Refused},
    case, check,
};
use crate::layers::entry::Kind;

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn privileged_paths_never_leave_the_layer() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "canary").unwrap();
    let canary = outside.path().to_str().unwrap();
    let up = format!("../../../../../../..{canary}");
    let inside = |names: &[&'static str]| {
        // The canary's own path, inside the layer, and its parents.
        let mut all: Vec<String> =
            canary[1..].match_indices('/').map(|(end, _)| canary[1..=end].to_owned()).collect();
        all.push(canary[1..].to_owned());
        all.extend(names.iter().map(ToString::to_string));
        all.sort_unstable();
        let leaked: Vec<&'static str> = all.into_iter().map(|path| &*path.leak()).collect();
        Holds(leaked.leak())
    };
    let secret = |name: &str| -> &'static str { format!("{}/{name}", &canary[1..]).leak() };
    let through = |target: &str, last| tar(&[symlink("link", target), last]);
    check(
        vec![
            case("up", tar(&[file("../x", "")]), Refused("leaves the root")),
            case("up later", tar(&[file("a/../../x", "")]), Refused("leaves the root")),
            case("absolute and up", tar(&[file("/../x", "")]), Refused("leaves the root")),
            case("up by directory", tar(&[dir("../x/", 0o755)]), Refused("leaves the root")),
            case("up by whiteout", tar(&[file("../.wh.x", "")]), Refused("leaves the root")),
            case("up by opaque", tar(&[file("../.wh..wh..opq", "")]), Refused("leaves the root")),
            case("up and down again", tar(&[file("a/../b", "")]), Holds(&["b"])),
            case("absolute", tar(&[file("/x", "")]), Holds(&["x"])),
            case(
                "absolute link",
                through(canary, file("link/x", "")),
                inside(&["link", secret("x")]),
            ),
            case("upward link", through(&up, file("link/x", "")), inside(&["link", secret("x")])),
            case(
                "link to a link",
                tar(&[symlink("a", "b"), symlink("b", canary), file("a/x", "")]),
                inside(&["a", "b", secret("x")]),
            ),
            case("file over link", through(canary, file("link", "x")), Holds(&["link"])),
            case(
                "file over link to a file",
                through(&format!("{canary}/secret"), file("link", "x")),
                Holds(&["link"]),
            ),
            case("directory over link", through(canary, dir("link/", 0o777)), Holds(&["link"])),
            case(
                "directory over link, then into it",
                tar(&[symlink("link", canary), dir("link/", 0o755), file("link/x", "")]),
                Holds(&["link", "link/x"]),
            ),
            case(
                "directory that becomes a link",
                tar(&[file("d/x", ""), symlink("d", canary), file("d/y", "")]),
                inside(&["d", secret("y")]),
            ),
            case(
                "whiteout through a link",
                through(canary, file("link/.wh.secret", "")),
                inside(&["link", secret("secret")]),
            ),
            case(
                "opaque through a link",
                through(canary, file("link/.wh..wh..opq", "")),
                inside(&["link"]),
            ),
            case(
                "hard link through a link",
                tar(&[symlink("link", canary), hard_link("stolen", "link/secret")]),
                Holds(&["link"]),
            ),
            case(
                "hard link to an absolute path",
                tar(&[hard_link("stolen", &format!("{canary}/secret"))]),
                Holds(&[]),
            ),
            case(
                "hard link to a link, then over it",
                tar(&[
                    symlink("a", &format!("{canary}/secret")),
                    hard_link("b", "a"),
                    file("b", "x"),
                ]),
                Holds(&["a", "b"]),
            ),
            case("hard link up", tar(&[hard_link("a", &up)]), Refused("leaves the root")),
            case(
                "hard link up from the root",
                tar(&[hard_link("a", "/../x")]),
                Refused("leaves the root"),
            ),
            case(
                "loop of links",
                tar(&[symlink("a", "b"), symlink("b", "a"), file("a/x", "")]),
                Refused("too many symbolic links"),
            ),
            case(
                "link to itself",
                tar(&[symlink("a", "a"), file("a/x", "")]),
                Refused("too many symbolic links"),
            ),
            case(
                "device under a link",
                through(canary, item("link/dev", Kind::CharDevice { major: 1, minor: 3 })),
                inside(&["link", secret("dev")]),
            ),
            case(
                "fifo under a link",
                through(canary, item("link/f", Kind::Fifo)),
                inside(&["link", secret("f")]),
            ),
            case(
                "link under a link",
                through(canary, symlink("link/l", "/")),
                inside(&["link", secret("l")]),
            ),
            case(
                "metadata through a link",
                through(canary, dir("link/./", 0o000)),
                Holds(&["link"]),
            ),
        ],
        outside.path(),
    );
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"canary");
    assert_eq!(fs::metadata(outside.path().join("secret")).unwrap().nlink(), 1);
}

//! Names and kinds of entries that a layer must not have, and bombs.

use oci::{DiffId, Digest};

use super::{
    super::{
        build::{Raw, archive, dir, file, hard_link, item, pax, symlink, tar},
        laws::store,
    },
    Want::{Holds, Refused},
    case, check,
};
use crate::layers::entry::Kind;

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn privileged_names_and_kinds_that_mean_harm() {
    let outside = tempfile::tempdir().unwrap();
    let long = "n".repeat(256);
    let endless = "d/".repeat(2500);
    let target = "t".repeat(5000);
    let deep = format!("{}f", "d/".repeat(1000));
    let unsupported = |flag| archive(&[Raw::new(flag, "x", 0).with(&[])]);
    let link =
        |path: &str, target: &str| archive(&[Raw::new(b'2', path, 0).link(target).with(&[])]);
    let (_directory, store, lease) = store();
    drop(lease);
    // Deep enough to matter, shallow enough for the rest of this test to walk.
    let tar_of_deep = tar(&[file(&deep, "")]);
    let lease = store.lease().unwrap();
    lease.unpack_stream(&tar_of_deep[..], DiffId(Digest::sha256(&tar_of_deep))).unwrap();
    drop(lease);
    check(
        vec![
            case("file as root", tar(&[file("./", "")]), Refused("must be a directory")),
            case("nameless file", tar(&[file("", "")]), Refused("must be a directory")),
            case("link as root", tar(&[symlink(".", "/etc")]), Refused("must be a directory")),
            case("long name", tar(&[file(&long, "")]), Refused("255 bytes")),
            case("long path", tar(&[file(&endless, "")]), Refused("4095 bytes")),
            case(
                "NUL in a name",
                archive(&[pax(&[("path", b"a\0b")]), Raw::new(b'0', "x", 0).with(&[])]),
                Refused("NUL"),
            ),
            case("long target", tar(&[symlink("l", &target)]), Refused("cannot create the link l")),
            case("no target", link("l", ""), Refused("points nowhere")),
            case("whiteout of nothing", tar(&[file("a/.wh.", "")]), Refused("names nothing")),
            case("whiteout of .", tar(&[file("a/.wh..", "")]), Refused("names nothing")),
            case("whiteout of ..", tar(&[file("a/.wh...", "")]), Refused("names nothing")),
            case(
                "whiteout as a directory above",
                tar(&[file(".wh.a/b", "")]),
                Refused("reserved for whiteouts"),
            ),
            case(
                "hard link to a whiteout",
                tar(&[hard_link("a", ".wh.b")]),
                Refused("no file can have that name"),
            ),
            case(
                "hard link to a directory",
                tar(&[dir("d/", 0o755), hard_link("a", "d")]),
                Refused("it is a directory"),
            ),
            case(
                "hard link to the root",
                tar(&[hard_link("a", "/")]),
                Refused("no file can have that name"),
            ),
            case("hard link to itself", tar(&[hard_link("a", "a")]), Refused("its own target")),
            case(
                "file above a file",
                tar(&[file("a", ""), file("a/b", "")]),
                Refused("in the place of a directory"),
            ),
            case(
                "fifo above a file",
                tar(&[item("a", Kind::Fifo), file("a/b", "")]),
                Refused("in the place of a directory"),
            ),
            case(
                "downward link above a file",
                tar(&[hard_link("a", "z"), file("a/b", "")]),
                Refused("in the place of a directory"),
            ),
            case(
                "overlay's whiteout",
                tar(&[item("a", Kind::CharDevice { major: 0, minor: 0 })]),
                Refused("marks a deletion"),
            ),
            case("volume label", unsupported(b'V'), Refused("type 'V'")),
            case("multi-volume", unsupported(b'M'), Refused("type 'M'")),
            case("dump directory", unsupported(b'D'), Refused("type 'D'")),
            case("unknown kind", unsupported(b'Z'), Refused("type 'Z'")),
            case(
                "AUFS bookkeeping",
                tar(&[file(".wh..wh.aufs", ""), file(".wh..wh.plnk/1", "")]),
                Holds(&[]),
            ),
            case("file with a final slash", tar(&[file("x/", "1")]), Holds(&["x"])),
            case("v7 directory", archive(&[Raw::new(0, "d/", 0).with(&[])]), Holds(&["d"])),
            case(
                "every change of type",
                tar(&[
                    file("a", "1"),
                    dir("a/", 0o755),
                    file("a/x", ""),
                    symlink("a", "z"),
                    item("a", Kind::Fifo),
                    dir("a/", 0o700),
                    file("a/y", ""),
                    file("b", ""),
                    hard_link("a", "b"),
                    file("a", "2"),
                ]),
                Holds(&["a", "b"]),
            ),
            case(
                "whiteout and file of one name",
                tar(&[file(".wh.a", ""), file("a", ""), file("b", ""), file(".wh.b", "")]),
                Holds(&["a", "b"]),
            ),
        ],
        outside.path(),
    );
}

#[test]
fn privileged_a_bomb_of_directories_is_bounded() {
    let outside = tempfile::tempdir().unwrap();
    // Each entry implies two thousand directories with long paths.
    let items: Vec<_> = (0..40).map(|n| file(&format!("{n}/{}f", "d/".repeat(2000)), "")).collect();
    check(
        vec![case("implied directories", tar(&items), Refused("exceeds the limit"))],
        outside.path(),
    );
}

#[test]
fn privileged_attributes_of_overlayfs_are_stripped_and_those_of_the_image_kept() {
    let (_directory, store, lease) = store();
    let header = pax(&[
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.whiteout", b""),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.note", b"kept"),
        ("SCHILY.xattr.user.empty", b""),
    ]);
    let tar = archive(&[
        header.clone(),
        Raw::new(b'5', "d", 0).with(&[]),
        header,
        Raw::new(b'0', "f", 0).with(&[]),
    ]);
    let diff_id = DiffId(Digest::sha256(&tar));
    lease.unpack_stream(&tar[..], diff_id).unwrap();
    let tree = crate::layers::dir::Dir::open(&store.root().layer(&diff_id.0).join("fs")).unwrap();
    for name in [&b"d"[..], b"f"] {
        let names: Vec<_> = tree.xattrs(name).unwrap().into_iter().collect();
        assert_eq!(
            names,
            [(b"user.empty".to_vec(), Vec::new()), (b"user.note".to_vec(), b"kept".to_vec())]
        );
    }
}

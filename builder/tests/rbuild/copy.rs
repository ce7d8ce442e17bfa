//! What COPY and ADD put where.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixListener;

use crate::world::{Built, World};

/// The context of most tests.
fn world() -> World {
    let world = World::new();
    world.write("a.txt", "a");
    world.write("b.txt", "b");
    world.write("dir/one", "1");
    world.write("dir/sub/two", "2");
    world.chmod("dir/sub", 0o700);
    world.chmod("dir/one", 0o755);
    world.link("dir/link", "one");
    world.link("abs", "/dir");
    world.link("up", "../../dir/sub");
    world
}

const DIR: &str =
    "d/ 755 dir\nd/link 777 -> one\nd/one 755 \"1\"\nd/sub/ 700 dir\nd/sub/two 644 \"2\"\n";

#[test]
fn sources_go_where_docker_puts_them() {
    let world = world();
    let table = [
        ("COPY a.txt /x", "x 644 \"a\"\n"),
        ("COPY a.txt /x/", "x/ 755 dir\nx/a.txt 644 \"a\"\n"),
        ("COPY a.txt /x/y/z", "x/ 755 dir\nx/y/ 755 dir\nx/y/z 644 \"a\"\n"),
        ("COPY a.txt b.txt /d/", "d/ 755 dir\nd/a.txt 644 \"a\"\nd/b.txt 644 \"b\"\n"),
        ("COPY [\"a.txt\", \"/x y\"]", "x y 644 \"a\"\n"),
        ("COPY *.txt /d/", "d/ 755 dir\nd/a.txt 644 \"a\"\nd/b.txt 644 \"b\"\n"),
        ("COPY [ab].tx? d/", "d/ 755 dir\nd/a.txt 644 \"a\"\nd/b.txt 644 \"b\"\n"),
        ("COPY dir /d", DIR),
        ("COPY dir/ /d/", DIR),
        ("COPY dir/. /d", DIR),
        ("COPY d* /d", DIR),
        ("COPY abs /d", DIR),
        ("COPY dir/* /d/", "d/ 755 dir\nd/link 755 \"1\"\nd/one 755 \"1\"\nd/two 644 \"2\"\n"),
        ("COPY abs/one up/two /d/", "d/ 755 dir\nd/one 755 \"1\"\nd/two 644 \"2\"\n"),
        ("COPY ../../a.txt /../x", "x 644 \"a\"\n"),
        ("COPY none* /d/", ""),
        ("WORKDIR /w\nCOPY a.txt .", "w/ 755 dir\nw/a.txt 644 \"a\"\n"),
        ("WORKDIR /w\nCOPY a.txt b", "w/ 755 dir\nw/b 644 \"a\"\n"),
        ("COPY dir/sub /d\nCOPY a.txt /d", "d/ 755 dir\nd/a.txt 644 \"a\"\nd/two 644 \"2\"\n"),
        ("COPY a.txt /x\nCOPY b.txt /x", "x 644 \"b\"\n"),
        ("COPY --chmod=600 a.txt /x/", "x/ 600 dir\nx/a.txt 600 \"a\"\n"),
        ("COPY --chmod=u=rwX,go= dir/sub /d", "d/ 755 dir\nd/two 600 \"2\"\n"),
        ("COPY --exclude=sub --exclude=l* dir /d", "d/ 755 dir\nd/one 755 \"1\"\n"),
        (
            "COPY --parents dir/sub/two /d/",
            "d/ 755 dir\nd/dir/ 755 dir\nd/dir/sub/ 700 dir\nd/dir/sub/two 644 \"2\"\n",
        ),
        ("COPY --parents dir/./sub/t* /d/", "d/ 755 dir\nd/sub/ 700 dir\nd/sub/two 644 \"2\"\n"),
        ("ENV D=dir E=/d\nCOPY $D/sub ${E}", "d/ 755 dir\nd/two 644 \"2\"\n"),
        (
            "COPY <<A <<\"B\" /d/\n$PATH$x\nA\n$x\nB",
            "d/ 755 dir\nd/A 644 \"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\\n\"\nd/B 644 \"$x\\n\"\n",
        ),
        ("ADD a.txt /x", "x 644 \"a\"\n"),
    ];
    for (lines, expected) in table {
        world.build(&format!("FROM scratch\n{lines}\n"));
        assert_eq!(world.listing(), *expected, "{lines}");
    }
}

#[test]
fn links_of_the_image_are_followed_inside_it() {
    let world = world();
    fs::create_dir(world.context().join("base")).unwrap();
    world.write("base/real/old", "old");
    world.link("base/var", "/real");
    world.link("base/file", "real/old");
    let base = "FROM scratch AS base\nCOPY base /\nFROM base\n";
    world.build(&format!("{base}COPY a.txt /var/new\nCOPY b.txt /file\n"));
    let files = world.files();
    assert_eq!(files["real/new"], "644 \"a\"");
    assert_eq!(files["real/old"], "644 \"b\"", "a link as destination is followed");
    assert_eq!(files["var"], "777 -> /real");
    assert_eq!(files["file"], "777 -> real/old");
    // With --link nothing below is looked at.
    world.build(&format!("{base}COPY --link a.txt /var/new\n"));
    assert_eq!(world.files()["var/new"], "644 \"a\"");
}

#[test]
fn clashes_of_types_are_errors() {
    let world = world();
    world.write(".wh.x", "");
    let table = [
        (
            "COPY dir /d\nCOPY a.txt /one\nCOPY dir /one",
            "error: cannot copy to non-directory: /one",
        ),
        (
            "COPY dir /d/a.txt\nCOPY *.txt /d/",
            "error: cannot replace to directory /d/a.txt with file",
        ),
        ("COPY a.txt /f\nCOPY b.txt /f/x", "error: cannot copy to non-directory: /f"),
        ("COPY missing/x /d", "error: failed to compute cache key: \"/missing/x\": not found"),
        (
            "COPY .wh.x /d/",
            "error: d/.wh.x has a reserved name: a layer would read it as the deletion of another file",
        ),
        (
            "COPY --chown=1:x:2 a.txt /\nCOPY --chmod=8 a.txt /",
            "3:1: error: invalid chmod parameter: '8'",
        ),
    ];
    for (lines, expected) in table {
        let said = world.fail(&format!("FROM scratch\n{lines}\n"));
        assert!(said.contains(expected), "{lines}\n{said}");
    }
}

#[test]
fn ignored_files_are_not_there_and_the_hint_says_why() {
    let world = world();
    world.write(".dockerignore", "*.txt\n!b.txt\ndir/sub\n");
    world.build("FROM scratch\nCOPY . /\n");
    assert_eq!(
        world.files().into_keys().collect::<Vec<_>>(),
        [".dockerignore", "abs", "b.txt", "dir/", "dir/link", "dir/one", "up"]
    );
    let said = world.fail("FROM scratch\nCOPY a.txt /\n");
    assert!(said.contains("hint: /a.txt exists, but .dockerignore excludes it"), "{said}");
}

#[test]
fn names_of_one_file_stay_one_file() {
    let world = World::new();
    let first = world.write("d/b", "same");
    fs::hard_link(&first, world.context().join("d/a")).unwrap();
    world.write("d/c", "same");
    world.build("FROM scratch\nCOPY d /\n");
    assert_eq!(world.listing(), "a 644 \"same\"\nb 644 = a\nc 644 \"same\"\n");
}

#[test]
fn special_files_do_not_stop_a_copy() {
    let world = World::new();
    world.write("x", "x");
    let _listener = UnixListener::bind(world.context().join("socket")).unwrap();
    let fifo = world.context().join("fifo");
    assert!(
        std::process::Command::new("mkfifo").arg("-m644").arg(&fifo).status().unwrap().success()
    );
    world.build("FROM scratch\nCOPY . /d\n");
    let files = world.files();
    assert_eq!(files["d/fifo"], "644 Fifo");
    assert!(files["d/socket"].ends_with("\"\""), "{files:?}");
}

/// A tar with directories, links of both kinds and owners.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, path: &str, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind == tar::EntryType::Directory { 0o750 } else { 0o640 });
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        builder.append_data(&mut header, path, content).unwrap();
    };
    let long = "l".repeat(120);
    add(tar::EntryType::Directory, "./", "", b"");
    add(tar::EntryType::Directory, "./t/", "", b"");
    add(tar::EntryType::Regular, "./t/z", "", b"zed");
    add(tar::EntryType::Link, "./t/a", "./t/z", b"");
    add(tar::EntryType::Symlink, "./s", "t", b"");
    add(tar::EntryType::Regular, "./s/through", "", b"link");
    add(tar::EntryType::Regular, "implied/x", "", b"x");
    add(tar::EntryType::Regular, &format!("t/{long}"), "", b"long");
    add(tar::EntryType::Regular, "xx/xx/escape", "", b"no");
    let mut tar = builder.into_inner().unwrap();
    // No decent tool writes such a name, so it is put in place of another, sum and all.
    let at = tar.windows(12).position(|window| window == b"xx/xx/escape").unwrap();
    tar[at..at + 5].copy_from_slice(b"../..");
    let header = &mut tar[at..at + 512];
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar
}

const UNPACKED: &str = "d/ 755 dir\nd/escape 640 \"no\"\nd/implied/ 755 dir\nd/implied/x 640 \"x\"\n\
                        d/s 640 -> t\nd/t/ 750 dir\nd/t/a 640 \"zed\"\n";

#[test]
fn add_unpacks_archives_by_their_content() {
    let world = World::new();
    let plain = archive();
    world.write("plain", &plain);
    let pack = |program: &str, name: &str| {
        let mut child = std::process::Command::new(program)
            .arg("-c")
            .stdin(std::process::Stdio::piped())
            .stdout(fs::File::create(world.context().join(name)).unwrap())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&plain).unwrap();
        assert!(child.wait().unwrap().success());
    };
    pack("gzip", "gz");
    pack("xz", "xz");
    pack("bzip2", "bz");
    pack("zstd", "zst");
    for name in ["plain", "gz", "xz", "bz", "zst", "p*n"] {
        // No program is needed to unpack them.
        let mut command = world.build_command(&format!("FROM scratch\nADD {name} /d\n"), &[]);
        let built = Built::of(command.env("PATH", "/nonexistent").output().unwrap());
        assert_eq!(built.status, 0, "{name}\n{}", built.stderr);
        let listing = world.listing();
        assert!(listing.starts_with(UNPACKED), "{name}\n{listing}");
        assert!(listing.contains("d/t/through 640 \"link\"\n"), "{listing}");
        assert!(listing.contains("d/t/z 640 = d/t/a\n"), "{listing}");
        assert!(listing.contains(&format!("{} 640 \"long\"", "l".repeat(120))), "{listing}");
    }
}

#[test]
fn an_archive_that_needs_gigabytes_to_unpack_is_refused() {
    let world = World::new();
    let tar = world.write("t", archive());
    assert!(std::process::Command::new("xz").arg("-0").arg(&tar).status().unwrap().success());
    let mut bytes = fs::read(world.context().join("t.xz")).unwrap();
    // The block header (12 bytes after the stream's 12) says 4 GiB of dictionary: byte 4 of it.
    bytes[16] = 40;
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
            })
        })
    };
    let sum = crc(&bytes[12..20]).to_le_bytes();
    bytes[20..24].copy_from_slice(&sum);
    world.write("bomb.xz", bytes);
    let said = world.fail("FROM scratch\nADD bomb.xz /d\n");
    let expected =
        "error: cannot unpack bomb.xz: it takes more than 262144 KiB of memory to unpack";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn an_archive_takes_the_place_of_what_is_there() {
    let world = World::new();
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["file", "link", "was_dir"] {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_size(0);
        if name == "was_dir" {
            header.set_entry_type(tar::EntryType::Regular);
        } else {
            header.set_entry_type(tar::EntryType::Directory);
        }
        tar.append_data(&mut header, name, std::io::empty()).unwrap();
    }
    world.write("t.tar", tar.into_inner().unwrap());
    world.link("t", "t.tar");
    world.write("base/file", "old");
    world.write("base/real/kept", "kept");
    world.link("base/link", "real");
    world.write("base/was_dir/gone", "gone");
    // A link to an archive is one, and --chmod is not for what is in it.
    world.build("FROM scratch AS base\nCOPY base /\nFROM base\nADD --chmod=700 t /\n");
    let files = world.files();
    assert_eq!(files["file/"], "755 dir");
    assert_eq!(files["link/"], "755 dir");
    assert_eq!(files["real/kept"], "644 \"kept\"");
    assert_eq!(files["was_dir"], "755 \"\"");
}

#[test]
fn what_only_looks_like_an_archive_is_copied() {
    let world = World::new();
    world.write("x.tar", "no tar");
    world.write("empty.tar", "");
    let mut cut = archive();
    cut.truncate(700);
    world.write("cut", &cut);
    world.build("FROM scratch\nADD x.tar empty.tar /d/\n");
    assert_eq!(world.listing(), "d/ 755 dir\nd/empty.tar 644 \"\"\nd/x.tar 644 \"no tar\"\n");
    let said = world.fail("FROM scratch\nADD cut /d\n");
    assert!(said.contains("cannot unpack cut"), "{said}");
    world.write("plain", archive());
    world.build("FROM scratch\nADD --unpack=false plain /d/\n");
    assert_eq!(world.files().into_keys().collect::<Vec<_>>(), ["d/", "d/plain"]);
    world.build("FROM scratch\nCOPY plain /d/\n");
    assert_eq!(world.files().into_keys().collect::<Vec<_>>(), ["d/", "d/plain"]);
}

#[test]
fn copies_from_stages_take_what_is_there() {
    let world = world();
    world.build(
        "FROM scratch AS one\nCOPY dir /d\nCOPY a.txt /d/sub/\nFROM scratch AS unused\nCOPY missing /\n\
         FROM scratch\nCOPY --from=one /d/sub /x\nCOPY --from=0 /d/l* /y/\n",
    );
    assert_eq!(
        world.listing(),
        "x/ 755 dir\nx/a.txt 644 \"a\"\nx/two 644 \"2\"\ny/ 755 dir\ny/link 755 \"1\"\n"
    );
}

#[test]
fn copies_on_copies_unpack_nothing() {
    let world = world();
    world.build(
        "FROM scratch\nCOPY dir /d\nWORKDIR /w\nCOPY a.txt /d/link\nCOPY b.txt /d/sub\nCOPY dir /d/\n",
    );
    assert_eq!(fs::read_dir(world.root().join("layers/sha256")).map_or(0, Iterator::count), 0);
    let files = world.files();
    assert_eq!(files["d/one"], "755 \"1\"");
    assert_eq!(files["d/link"], "777 -> one");
    assert_eq!(files["d/sub/b.txt"], "644 \"b\"");
    assert_eq!(files["d/sub/"], "700 dir", "a directory that is there stays as it is");
    let said = world.fail("FROM scratch\nCOPY a.txt /d\nCOPY dir /d\n");
    assert!(said.contains("cannot copy to non-directory: /d"), "{said}");
}

//! The seeds of the fuzz target `layer_tar`, and many small damages to each.

use std::{fs, path::Path};

use crate::layers::tar::check;

fn seeds() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/layer_tar");
    let mut seeds: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
        })
        .collect();
    seeds.sort_unstable();
    seeds
}

#[test]
fn seeds_are_read_or_refused_as_they_should() {
    let result: String = seeds()
        .into_iter()
        .map(|(name, tar)| match check(&tar) {
            Ok(contents) => {
                format!("{name}: {} entries, {} bytes\n", contents.entries, contents.stored_bytes)
            }
            Err(error) => format!("{name}: {error}\n"),
        })
        .collect();
    insta::assert_snapshot!(result, @"
    cut.tar: tar ends at byte 1300, in the middle of a file's data
    empty.tar: 0 entries, 0 bytes
    gnu-long.tar: 2 entries, 1 bytes
    gnu.tar: 6 entries, 5 bytes
    hard-link-up.tar: 1 entries, 0 bytes
    pax-size-against-header.tar: 1 entries, 1024 bytes
    pax-xattr.tar: 1 entries, 1 bytes
    pax.tar: 6 entries, 5 bytes
    sparse-0.0.tar: 1 entries, 24576 bytes
    sparse-0.1.tar: 1 entries, 24576 bytes
    sparse-1.0.tar: 1 entries, 24576 bytes
    sparse-gnu.tar: 1 entries, 24576 bytes
    up.tar: ../x: the path leaves the root
    ustar.tar: 6 entries, 5 bytes
    whiteouts.tar: 4 entries, 0 bytes
    ");
}

#[test]
fn damaged_seeds_never_break_the_reader() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for (name, tar) in seeds() {
        for round in 0..400 {
            let mut tar = tar.clone();
            for _ in 0..=round % 4 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let [place @ .., byte, _] = random.to_le_bytes();
                let place = place.iter().fold(0_usize, |sum, byte| sum * 256 + usize::from(*byte));
                let length = tar.len();
                tar[place % length] = byte;
                // Without this, nearly every damage ends at the checksum.
                repair_checksums(&mut tar);
            }
            // Refusing is fine. A panic names the seed and the round.
            let _refused = check(&tar);
        }
        assert!(!name.is_empty());
    }
}

fn repair_checksums(tar: &mut [u8]) {
    for header in tar.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

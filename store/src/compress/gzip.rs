//! gzip: one member, made of independently compressed blocks.
//!
//! libdeflate compresses a whole buffer into a complete deflate stream. [`deflate::open_end`] turns
//! such a stream into a piece that another can follow: it clears the mark of the last deflate block
//! and adds an empty stored block, which ends at a byte border (zlib calls that a full flush). So
//! even readers that stop after the first member read all of it.

use std::io::{self, Read, Write};

use libdeflater::{CompressionLvl, Compressor, Crc};

use super::{deflate, parallel};

/// Large enough that starting anew costs half a percent, small enough for many at once.
const BLOCK_BYTES: usize = 1024 * 1024;

/// RFC 1952: deflate, no name, no time, an unknown file system, so that nothing varies.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Compresses `input` into one gzip member.
pub(super) fn encode(
    input: &mut (impl Read + Send),
    output: &mut impl Write,
    level: u32,
    workers: usize,
) -> io::Result<()> {
    let level = i32::try_from(level).expect("levels are small");
    let level = CompressionLvl::new(level).expect("levels are in libdeflate's range");
    output.write_all(&HEADER)?;
    let mut crc = Crc::new();
    let mut length = 0_u32;
    let observe = |bytes: &[u8]| {
        crc.update(bytes);
        // The trailer has the length modulo 2³², as RFC 1952 wants.
        length = length.wrapping_add(u32::try_from(bytes.len()).expect("a block is small"));
    };
    let encoder = || {
        let mut compressor = Compressor::new(level);
        move |block: &parallel::Block| {
            let mut piece = vec![0; compressor.deflate_compress_bound(block.bytes.len())];
            let size = compressor
                .deflate_compress(&block.bytes, &mut piece)
                .expect("the bound is libdeflate's own");
            piece.truncate(size);
            if !block.is_last {
                deflate::open_end(&mut piece);
            }
            Ok(piece)
        }
    };
    parallel::encode(input, BLOCK_BYTES, workers, observe, encoder, |piece| {
        output.write_all(piece)
    })?;
    output.write_all(&crc.sum().to_le_bytes())?;
    output.write_all(&length.to_le_bytes())
}

//! zstd: one frame for each block.

use std::io::{self, Read, Write};

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::parallel;

/// The window of the default level: larger blocks would hardly be smaller compressed, and hold more
/// memory.
const BLOCK_BYTES: usize = 2 * 1024 * 1024;

/// Compresses `input` into frames that decoders read as one stream.
pub(super) fn encode(
    input: &mut (impl Read + Send),
    output: &mut impl Write,
    level: u32,
    workers: usize,
) -> io::Result<()> {
    let level = i32::try_from(level).expect("levels are small");
    let encoder = || {
        let mut compressor: Option<Compressor<'_>> = None;
        move |block: &parallel::Block| {
            if compressor.is_none() {
                let mut new = Compressor::new(level)?;
                new.set_parameter(CParameter::ChecksumFlag(true))?;
                compressor = Some(new);
            }
            compressor.as_mut().expect("made above").compress(&block.bytes)
        }
    };
    parallel::encode(input, BLOCK_BYTES, workers, |_| {}, encoder, |bytes| output.write_all(bytes))
}

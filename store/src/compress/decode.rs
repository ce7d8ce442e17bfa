//! Reading what any encoder made.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use oci::Compression;

/// How much compressed input is read at once.
const INPUT_BYTES: usize = 128 * 1024;

/// The largest zstd window that is accepted, as a power of two: 128 MiB, zstd's own limit. What
/// needs more is made to fill memory.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// Returns a reader of what `input` holds uncompressed.
///
/// gzip may have several members and zstd several frames, one after the other.
///
/// # Errors
///
/// If there is no memory for the decoder. Damage shows while reading.
pub fn decoder<'a>(
    input: impl Read + Send + 'a,
    compression: Compression,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let input = BufReader::with_capacity(INPUT_BYTES, input);
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::decoder;
    use oci::Compression;
    use std::io::{Read as _, Write as _};

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(bytes: &[u8], compression: Compression) -> std::io::Result<Vec<u8>> {
        let mut output = Vec::new();
        decoder(bytes, compression)?.read_to_end(&mut output)?;
        Ok(output)
    }

    #[test]
    fn members_and_frames_are_read_to_the_last() {
        let members = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        assert_eq!(decode(&members, Compression::Gzip).unwrap(), b"one two");
        let frame = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).unwrap();
        let frames = [frame(b"one "), frame(b""), frame(b"two")].concat();
        assert_eq!(decode(&frames, Compression::Zstd).unwrap(), b"one two");
        assert_eq!(decode(b"plain", Compression::None).unwrap(), b"plain");
    }

    #[test]
    fn truncated_input_is_an_error_wherever_it_ends() {
        let bytes: Vec<u8> = (0..4000_u32).flat_map(|n| (n * n).to_le_bytes()).collect();
        let packed = [
            (Compression::Gzip, gzip(&bytes)),
            (Compression::Zstd, zstd::bulk::compress(&bytes, 1).unwrap()),
        ];
        for (compression, packed) in packed {
            for length in (1..packed.len()).step_by(97) {
                assert!(
                    decode(&packed[..length], compression).is_err(),
                    "{compression:?} {length}"
                );
            }
        }
    }
}

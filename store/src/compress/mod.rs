//! Compressed forms of layers, made when something leaves the machine.
//!
//! A layer is cut into blocks of a fixed size, which are compressed independently and in parallel
//! and put together again in their order. So the bytes depend on the layer, the codec, the level
//! and the version of the encoder, and never on the number of threads. They are remembered by
//! exactly these, in `compressed/<algorithm>-<hex of diff id>.<codec>-<level>-<encoder>`, a file
//! that holds the blob's descriptor. Memory is bounded whatever the size of the layer.
//!
//! - `parallel`: blocks in, blocks out, in order
//! - `gzip` (on `deflate`), `zstd`: one block at a time
//! - `notes`: what is remembered

mod deflate;
mod gzip;
mod notes;
mod parallel;
mod zstd;

pub(crate) use notes::notes;

use std::io::{Read, Write as _};

use oci::{Compression, Descriptor, DiffId, Digest, Hasher, MediaType};

use self::notes::Note;
use crate::error::{Error, IoContext as _, Result};
use crate::layers::decoder;
use crate::lease::Lease;

/// The gzip level where none is asked for: as small as zlib's usual 6, at twice the speed.
pub const DEFAULT_GZIP_LEVEL: u32 = 4;

/// The zstd level where none is asked for, which is also zstd's own.
pub const DEFAULT_ZSTD_LEVEL: u32 = 3;

/// The highest gzip level of libdeflate.
const MAX_GZIP_LEVEL: u32 = 12;

/// The highest zstd level whose window a decoder accepts without being told to.
const MAX_ZSTD_LEVEL: u32 = 19;

/// Changes whenever the same layer, codec and level would give other bytes: block sizes, how
/// blocks are put together, a new libdeflate or zstd.
const ENCODER_VERSION: u32 = 1;

/// How many threads compress at most. More would hold more blocks in memory than a push may use.
const MAX_WORKERS: usize = 6;

/// Above this level, zstd's tables for one block take 10 to 30 MiB.
const MODEST_ZSTD_LEVEL: u32 = 12;

/// How many threads compress at these levels.
const MAX_GREEDY_WORKERS: usize = 2;

impl Lease {
    /// Returns a layer's blob in a certain compression, making it if there is none yet.
    ///
    /// `source` is a blob that holds the layer, in any compression. `level` is the codec's, or its
    /// default where `None`; levels out of range are brought into it.
    ///
    /// # Errors
    ///
    /// [`Error::BlobUnknown`] if the source is not stored, [`Error::DigestMismatch`] if it is not
    /// the layer that the diff id says.
    pub fn compressed(
        &self,
        diff_id: &DiffId,
        source: &Descriptor,
        codec: Compression,
        level: Option<u32>,
    ) -> Result<Descriptor> {
        self.pin(&source.digest)?;
        let source_codec = source.media_type.layer_compression().unwrap_or(Compression::None);
        if source_codec == codec {
            return Ok(source.clone());
        }
        let level = match codec {
            Compression::None => 0,
            Compression::Gzip => level.unwrap_or(DEFAULT_GZIP_LEVEL).clamp(1, MAX_GZIP_LEVEL),
            Compression::Zstd => level.unwrap_or(DEFAULT_ZSTD_LEVEL).clamp(1, MAX_ZSTD_LEVEL),
        };
        let note = Note::new(self.store(), diff_id, codec, level);
        if let Some(known) = note.get(self)? {
            return Ok(known);
        }
        let blob = self.store().blobs().open(&source.digest)?;
        let reader =
            decoder(blob, source_codec).doing("read", self.store().root().blob(&source.digest))?;
        let mut reader = Verified::new(reader, diff_id.0);
        if source_codec == Compression::None && source.digest == diff_id.0 {
            // A plain tar is named by its diff id, and what is in the store hashes to its name.
            reader.hasher = None;
        }
        let descriptor = self.encode(&mut reader, codec, level)?;
        note.set(self, &descriptor)?;
        Ok(descriptor)
    }

    fn encode(
        &self,
        reader: &mut Verified<'_>,
        codec: Compression,
        level: u32,
    ) -> Result<Descriptor> {
        let mut ingest = self.ingest()?;
        let doing = "compress a layer into";
        let path = self.store().root().ingest();
        let workers = workers(codec, level);
        let media_type = match codec {
            Compression::None => {
                std::io::copy(reader, &mut ingest).doing(doing, &path)?;
                MediaType::OCI_LAYER_TAR
            }
            Compression::Gzip => {
                gzip::encode(reader, &mut ingest, level, workers).doing(doing, &path)?;
                MediaType::OCI_LAYER_GZIP
            }
            Compression::Zstd => {
                zstd::encode(reader, &mut ingest, level, workers).doing(doing, &path)?;
                MediaType::OCI_LAYER_ZSTD
            }
        };
        // Whoever reads to the end has had the layer checked; the encoders do.
        ingest.flush().doing(doing, &path)?;
        let committed = ingest.commit(None)?;
        Ok(Descriptor::new(media_type, committed.digest, committed.size))
    }
}

/// Returns how many threads compress; their number does not show in the bytes.
fn workers(codec: Compression, level: u32) -> usize {
    let most = match codec {
        Compression::Zstd if level > MODEST_ZSTD_LEVEL => MAX_GREEDY_WORKERS,
        Compression::None | Compression::Gzip | Compression::Zstd => MAX_WORKERS,
    };
    std::thread::available_parallelism().map_or(1, usize::from).min(most)
}

/// A reader that fails at the end if what it read is not what its name says.
struct Verified<'a> {
    reader: Box<dyn Read + Send + 'a>,
    hasher: Option<Hasher>,
    expected: Digest,
}

impl<'a> Verified<'a> {
    fn new(reader: Box<dyn Read + Send + 'a>, expected: Digest) -> Self {
        Self { reader, hasher: Some(Hasher::new(expected.algorithm())), expected }
    }
}

impl Read for Verified<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..count]);
            }
        } else if !buffer.is_empty()
            && let Some(hasher) = self.hasher.take()
        {
            let (expected, actual) = (self.expected, hasher.finish());
            if actual != expected {
                return Err(Error::DigestMismatch { expected, actual }.into());
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::{Verified, gzip, zstd};
    use crate::error::Error;
    use crate::layers::decoder;
    use crate::testing::{blob, store};
    use oci::{Compression, Descriptor, DiffId, Digest, MediaType};
    use std::io::Read as _;

    /// More than two gzip and zstd blocks, compressible here and not there.
    fn layer() -> Vec<u8> {
        let words = (0..700_000_u32).flat_map(|n| (n / 7 * 31).to_le_bytes());
        let noise =
            (0..50_000_u32).flat_map(|n| Digest::sha256(&n.to_le_bytes()).as_bytes().to_vec());
        words.chain(noise).collect()
    }

    #[test]
    fn bytes_do_not_depend_on_the_number_of_threads() {
        let layer = layer();
        let encode = |workers| {
            let (mut packed, mut frames) = (Vec::new(), Vec::new());
            gzip::encode(&mut &*layer, &mut packed, 6, workers).unwrap();
            zstd::encode(&mut &*layer, &mut frames, 3, workers).unwrap();
            (packed, frames)
        };
        let one = encode(1);
        assert!(one == encode(2) && one == encode(5));
        assert!(one.0.len() < layer.len() * 3 / 4 && one.1.len() < layer.len() * 3 / 4);
    }

    #[test]
    fn gzip_is_a_single_member() {
        for layer in [layer(), Vec::new(), vec![0; 1024], vec![5; 1024 * 1024]] {
            let mut packed = Vec::new();
            gzip::encode(&mut &*layer, &mut packed, 4, 2).unwrap();
            let mut single = flate2::bufread::GzDecoder::new(&*packed);
            let mut unpacked = Vec::new();
            single.read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == layer);
            assert_eq!(single.into_inner().len(), 0, "nothing follows the member");
        }
    }

    #[test]
    fn compressed_forms_are_made_once_and_lead_back() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let layer = layer();
        let digest = blob(&lease, &layer).unwrap();
        let plain = Descriptor::new(MediaType::OCI_LAYER_TAR, digest, layer.len() as u64);
        let diff_id = DiffId(digest);
        for codec in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let made = lease.compressed(&diff_id, &plain, codec, None).unwrap();
            assert_eq!(made.media_type.layer_compression(), Some(codec));
            assert_eq!(store.blobs().size(&made.digest).unwrap(), Some(made.size));
            let again = store.lease().unwrap().compressed(&diff_id, &plain, codec, None).unwrap();
            assert_eq!(made, again);
            let mut unpacked = Vec::new();
            let blob = store.blobs().open(&made.digest).unwrap();
            decoder(blob, codec).unwrap().read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == layer);
            for other in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let converted = lease.compressed(&diff_id, &made, other, Some(99)).unwrap();
                assert_eq!(converted.media_type.layer_compression(), Some(other));
            }
        }
        assert_eq!(std::fs::read_dir(store.root().compressed()).unwrap().count(), 5);
        let small = lease.compressed(&diff_id, &plain, Compression::Gzip, Some(9)).unwrap();
        let fast = lease.compressed(&diff_id, &plain, Compression::Gzip, Some(1)).unwrap();
        assert!(small.size < fast.size);
    }

    #[test]
    fn note_about_a_blob_that_is_gone_is_no_use() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let digest = blob(&lease, b"layer").unwrap();
        let plain = Descriptor::new(MediaType::OCI_LAYER_TAR, digest, 5);
        let made = lease.compressed(&DiffId(digest), &plain, Compression::Gzip, None).unwrap();
        std::fs::remove_file(store.root().blob(&made.digest)).unwrap();
        let again = lease.compressed(&DiffId(digest), &plain, Compression::Gzip, None).unwrap();
        assert_eq!(made, again);
        assert!(store.blobs().contains(&again.digest).unwrap());
    }

    #[test]
    fn layer_that_is_not_what_its_diff_id_says_is_refused() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let digest = blob(&lease, b"layer").unwrap();
        let plain = Descriptor::new(MediaType::OCI_LAYER_TAR, digest, 5);
        let other = DiffId(Digest::sha256(b"other"));
        let error = lease.compressed(&other, &plain, Compression::Gzip, None).unwrap_err();
        assert!(
            matches!(error, Error::DigestMismatch { expected, actual } if expected == other.0 && actual == digest),
            "{error}"
        );
    }

    #[test]
    fn verified_reader_tells_at_the_end() {
        let mut output = Vec::new();
        let mut right = Verified::new(Box::new(&b"abc"[..]), Digest::sha512(b"abc"));
        assert_eq!(right.read_to_end(&mut output).unwrap(), 3);
        let mut wrong = Verified::new(Box::new(&b"abd"[..]), Digest::sha512(b"abc"));
        assert!(wrong.read_to_end(&mut output).is_err());
    }
}

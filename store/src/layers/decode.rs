//! From a blob to the bytes of its tar: decompression and hashing in a thread of their own.

use std::{
    io::{self, BufRead, Read},
    sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    thread,
};

use oci::{Algorithm, Compression, Digest, Hasher};

use super::error::{LayerError, LayerResult};

/// How many bytes travel from the decompressing thread to the writing one at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// How many such chunks may wait; with those in use they bound the memory to about 2 MiB.
const CHUNKS_WAITING: usize = 6;

/// Returns a reader of what a stream holds uncompressed.
///
/// Files that consist of several gzip members or zstd frames are read to their end.
///
/// # Errors
///
/// Fails if the decompressor cannot be made.
pub fn decoder<'a>(
    input: impl Read + Send + 'a,
    compression: Compression,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => {
            let input = io::BufReader::with_capacity(CHUNK_BYTES, input);
            Box::new(flate2::bufread::MultiGzDecoder::new(input))
        }
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(input)?),
    })
}

/// Tells how a stream is compressed from its first bytes, as docker and containerd do: media types
/// in the wild are sometimes wrong, the first bytes cannot be.
#[must_use]
pub fn detect(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A zstd frame, or a frame for others to skip in front of one.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Returns a reader of what a stream holds uncompressed, whatever its compression is.
///
/// # Errors
///
/// Fails if the stream cannot be read.
pub fn detecting_decoder<'a>(
    mut input: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = Vec::new();
    input.by_ref().take(4).read_to_end(&mut start)?;
    let compression = detect(&start);
    decoder(io::Cursor::new(start).chain(input), compression)
}

/// Decompresses and hashes `input` in one thread while `work` uses the bytes in this one. Returns
/// what `work` made, and the digest of the uncompressed bytes, if an algorithm is given.
///
/// Whatever `work` leaves is still hashed, so that the digest is that of the whole stream.
pub(crate) fn decode<T>(
    input: impl Read + Send,
    algorithm: Option<Algorithm>,
    work: impl FnOnce(&mut Chunks) -> LayerResult<T>,
) -> LayerResult<(T, Option<Digest>)> {
    thread::scope(|scope| {
        let (send, receive) = sync_channel(CHUNKS_WAITING);
        let (give_back, used) = sync_channel(CHUNKS_WAITING + 2);
        let decoding = thread::Builder::new()
            .name("decode".to_owned())
            .spawn_scoped(scope, move || produce(input, algorithm, &send, &used))
            .map_err(LayerError::Read)?;
        let mut chunks = Chunks { receive, give_back, current: Vec::new(), start: 0 };
        let result = work(&mut chunks).and_then(|result| {
            chunks.drain()?;
            Ok(result)
        });
        // Without a receiver the thread ends at its next chunk.
        drop(chunks);
        let digest = decoding.join().expect("decoding does not panic");
        result.map(|result| (result, digest))
    })
}

fn produce(
    input: impl Read + Send,
    algorithm: Option<Algorithm>,
    send: &SyncSender<io::Result<Vec<u8>>>,
    used: &Receiver<Vec<u8>>,
) -> Option<Digest> {
    let mut hasher = algorithm.map(Hasher::new);
    let copy = || -> io::Result<()> {
        let mut input = detecting_decoder(input)?;
        loop {
            let mut chunk = match used.try_recv() {
                Ok(chunk) => chunk,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => vec![0; CHUNK_BYTES],
            };
            chunk.resize(CHUNK_BYTES, 0);
            let bytes = read_full(&mut input, &mut chunk)?;
            if bytes == 0 {
                return Ok(());
            }
            chunk.truncate(bytes);
            if let Some(hasher) = &mut hasher {
                hasher.update(&chunk);
            }
            if send.send(Ok(chunk)).is_err() {
                return Ok(());
            }
        }
    };
    if let Err(error) = copy() {
        // Nobody waits for it where the other side has failed already.
        let _nobody_waits = send.send(Err(error));
    }
    hasher.map(Hasher::finish)
}

/// Reads until the buffer is full or the stream ends.
fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The uncompressed bytes, in the thread that uses them.
#[derive(Debug)]
pub(crate) struct Chunks {
    receive: Receiver<io::Result<Vec<u8>>>,
    give_back: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    start: usize,
}

impl Chunks {
    fn drain(&mut self) -> LayerResult<()> {
        loop {
            let bytes = self.fill_buf().map_err(LayerError::Read)?.len();
            if bytes == 0 {
                return Ok(());
            }
            self.consume(bytes);
        }
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.current.len() {
            let next = match self.receive.recv() {
                Ok(chunk) => chunk?,
                // The thread has sent everything and ended.
                Err(_) => Vec::new(),
            };
            let used = std::mem::replace(&mut self.current, next);
            self.start = 0;
            // Where enough buffers are on their way back, this one is not needed.
            let _dropped = self.give_back.try_send(used);
        }
        Ok(&self.current[self.start..])
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let bytes = available.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&available[..bytes]);
        self.consume(bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn whole(stream: &[u8]) -> LayerResult<(Vec<u8>, Option<Digest>)> {
        decode(stream, Some(Algorithm::Sha256), |chunks| {
            let mut out = Vec::new();
            chunks.read_to_end(&mut out).map_err(LayerError::Read)?;
            Ok(out)
        })
    }

    #[test]
    fn every_compression_gives_the_same_bytes() {
        let content: Vec<u8> = (0..900_000_u32).map(|n| (n / 7).to_le_bytes()[0]).collect();
        let (first, second) = content.split_at(123_456);
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let skippable =
            [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(&content)].concat();
        for (name, stream) in [
            ("plain", content.clone()),
            ("gzip", gzip(&content)),
            ("two gzip members", [gzip(first), gzip(second)].concat()),
            ("zstd", zstd(&content)),
            ("two zstd frames", [zstd(first), zstd(second)].concat()),
            ("a skippable frame first", skippable),
        ] {
            let (bytes, digest) = whole(&stream).unwrap();
            assert!(bytes == content, "{name}");
            assert_eq!(digest, Some(Digest::sha256(&content)), "{name}");
        }
    }

    #[test]
    fn what_is_not_used_is_hashed_all_the_same() {
        let content = vec![7; 5_000_000];
        let ((), digest) = decode(&content[..], Some(Algorithm::Sha256), |_| Ok(())).unwrap();
        assert_eq!(digest, Some(Digest::sha256(&content)));
    }

    #[test]
    fn truncated_streams_are_errors() {
        let content: Vec<u8> = (0..60_000_u32).map(|n| (n * n).to_be_bytes()[2]).collect();
        for stream in [gzip(&content), zstd::encode_all(&content[..], 1).unwrap()] {
            for cut in [stream.len() / 2, stream.len() - 1] {
                assert!(matches!(whole(&stream[..cut]), Err(LayerError::Read(_))));
            }
        }
        assert!(whole(&[gzip(&content), b"garbage".to_vec()].concat()).is_err());
    }

    #[test]
    fn failing_work_ends_the_thread() {
        let refuse = |_: &mut Chunks| -> LayerResult<()> {
            Err(LayerError::Limit { what: "this", limit: 0 })
        };
        let result = decode(io::repeat(1), Some(Algorithm::Sha256), refuse);
        assert!(matches!(result, Err(LayerError::Limit { .. })));
    }
}

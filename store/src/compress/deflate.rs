//! Making a finished deflate stream continuable (RFC 1951).
//!
//! Two things about a stream are not on its surface: where its last block begins, since that
//! block's first bit says "last", and at which bit it ends. To find both, the stream is followed
//! symbol by symbol, without producing what it stands for. The streams are libdeflate's own, made
//! a moment ago, so whatever cannot be in a stream is a broken invariant here.

/// The two kinds of symbols that a code stands for, and the end.
const LITERAL: u8 = 0;
const MATCH: u8 = 1;
const END: u8 = 2;
/// What the next bits begin with is longer than they are, or nothing.
const UNKNOWN: u8 = u8::MAX;

/// How many bits are looked at to find several symbols at once: two or three literals fit, and the
/// table stays small enough to be built for each block.
const RUN_BITS: u32 = 11;

/// How many bits of a table entry say how much input it takes; the rest is its kind.
const TAKE_BITS: u8 = 5;
const TAKE_MASK: u8 = (1 << TAKE_BITS) - 1;

/// The order in which a dynamic block gives the lengths of the code for lengths.
const LENGTH_ORDER: [usize; 19] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Removes the end of a deflate stream: another stream can be appended to make one.
///
/// The result ends at a byte border, and everything in it can be decompressed at once.
pub(super) fn open_end(stream: &mut Vec<u8>) {
    let Borders { last_block, end } = borders(stream);
    stream[last_block / 8] &= !(1 << (last_block % 8));
    stream.truncate(end.div_ceil(8));
    if !end.is_multiple_of(8) {
        let used = (1 << (end % 8)) - 1;
        *stream.last_mut().expect("a stream has a block") &= used;
    }
    // An empty stored block: not last, kind 0, zeros up to a byte, length 0 and its complement.
    stream.resize((end + 3).div_ceil(8), 0);
    stream.extend([0, 0, 0xff, 0xff]);
}

/// Bit positions in a stream.
#[derive(Debug, PartialEq)]
struct Borders {
    /// Of the first bit of the last block.
    last_block: usize,
    /// Of the first bit after it.
    end: usize,
}

/// Follows a whole stream.
fn borders(stream: &[u8]) -> Borders {
    let mut bits = Bits { bytes: stream, position: 0, buffer: 0, available: 0 };
    let mut symbols = Table::default();
    let mut distances = Table::default();
    let mut runs = Runs::default();
    loop {
        let last_block = bits.bit_position();
        let is_last = bits.take(1) == 1;
        match bits.take(2) {
            0 => bits.skip_stored(),
            kind @ (1 | 2) => {
                let mut lengths = [0; 288 + 32];
                let count = if kind == 1 {
                    fixed_lengths(&mut lengths)
                } else {
                    dynamic_lengths(&mut bits, &mut lengths)
                };
                symbols.fill(&lengths[..count], symbol_entry);
                distances.fill(&lengths[count..], distance_entry);
                runs.fill(&lengths[..count]);
                follow(&mut bits, &runs, &symbols, &distances);
            }
            kind => unreachable!("libdeflate makes no block of kind {kind}"),
        }
        if is_last {
            return Borders { last_block, end: bits.bit_position() };
        }
    }
}

/// Follows the symbols of one block up to its end.
///
/// Whether a match comes next nobody can foresee, a processor least of all: so a distance is looked
/// up after everything, and counts only after a match.
fn follow(bits: &mut Bits<'_>, runs: &Runs, symbols: &Table, distances: &Table) {
    loop {
        // 56 bits are enough for a run or a symbol, and a distance after it.
        bits.refill();
        let mut entry = runs.peek(bits);
        if entry == UNKNOWN {
            entry = symbols.peek(bits);
        }
        bits.skip(u32::from(entry & TAKE_MASK));
        let kind = entry >> TAKE_BITS;
        if kind >= END {
            assert!(kind == END, "libdeflate uses no code without a symbol");
            return;
        }
        let is_match = kind & MATCH;
        bits.skip(u32::from((distances.peek(bits) & TAKE_MASK) * is_match));
    }
}

/// The lengths of block kind 1; returns how many belong to literals and lengths.
fn fixed_lengths(lengths: &mut [u8; 320]) -> usize {
    lengths[..144].fill(8);
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    lengths[280..288].fill(8);
    lengths[288..].fill(5);
    288
}

/// Reads the lengths that a block of kind 2 begins with; returns how many belong to literals and
/// lengths.
fn dynamic_lengths(bits: &mut Bits<'_>, lengths: &mut [u8; 320]) -> usize {
    let symbol_count = bits.take(5) + 257;
    let distance_count = bits.take(5) + 1;
    let length_count = bits.take(4) + 4;
    let mut code = [0; 19];
    for place in &LENGTH_ORDER[..length_count] {
        code[*place] = u8::try_from(bits.take(3)).expect("three bits");
    }
    let mut table = Table::default();
    // Symbols of this code are their own entries; what they take is looked up in `code`.
    table.fill(&code, |symbol, _| u8::try_from(symbol).expect("below 19"));
    let mut filled = 0;
    while filled < symbol_count + distance_count {
        bits.refill();
        let symbol = table.peek(bits);
        bits.skip(u32::from(code[usize::from(symbol)]));
        let (value, times) = match symbol {
            16 => (lengths[filled - 1], bits.take(2) + 3),
            17 => (0, bits.take(3) + 3),
            18 => (0, bits.take(7) + 11),
            length => (length, 1),
        };
        lengths[filled..filled + times].fill(value);
        filled += times;
    }
    symbol_count
}

/// The entry of a literal or length symbol: its kind, and how many bits it takes in all.
fn symbol_entry(symbol: usize, length: u8) -> u8 {
    match symbol {
        0..256 => LITERAL << TAKE_BITS | length,
        256 => END << TAKE_BITS | length,
        257..265 | 285.. => MATCH << TAKE_BITS | length,
        265..285 => {
            let extra = u8::try_from((symbol - 261) / 4).expect("at most 5");
            MATCH << TAKE_BITS | (length + extra)
        }
    }
}

/// The entry of a distance symbol: how many bits it takes in all.
fn distance_entry(symbol: usize, length: u8) -> u8 {
    length + u8::try_from((symbol / 2).saturating_sub(1)).expect("at most 14")
}

/// A code: for each possible next bits, the entry of the symbol they begin with.
#[derive(Default)]
struct Table {
    entries: Vec<u8>,
    /// The longest code, in bits; the table has two to this power entries.
    bits: u32,
}

impl Table {
    fn fill(&mut self, lengths: &[u8], entry: impl Fn(usize, u8) -> u8) {
        self.bits = lengths.iter().copied().max().map_or(0, u32::from);
        self.entries.clear();
        self.entries.resize(1 << self.bits, UNKNOWN);
        each_code(lengths, self.bits, |symbol, length, first| {
            for place in (first..self.entries.len()).step_by(1 << length) {
                self.entries[place] = entry(symbol, length);
            }
        });
    }

    fn peek(&self, bits: &Bits<'_>) -> u8 {
        self.entries[bits.peek(self.bits)]
    }
}

/// What the next few bits begin with: as many literals as they hold, and whatever follows them, as
/// if it were one symbol.
struct Runs([u8; 1 << RUN_BITS]);

impl Default for Runs {
    fn default() -> Self {
        Self([UNKNOWN; 1 << RUN_BITS])
    }
}

impl Runs {
    fn fill(&mut self, lengths: &[u8]) {
        // The symbol that these bits begin with, and the length of its code, if that is all there.
        let mut first_symbols = [(UNKNOWN, 0); 1 << RUN_BITS];
        each_code(lengths, RUN_BITS, |symbol, length, first| {
            for place in (first..first_symbols.len()).step_by(1 << length) {
                first_symbols[place] = (symbol_entry(symbol, length), length);
            }
        });
        for (bits, run) in self.0.iter_mut().enumerate() {
            *run = UNKNOWN;
            let mut taken = 0;
            while u32::from(taken) < RUN_BITS {
                let (entry, length) = first_symbols[bits >> taken];
                if entry == UNKNOWN || u32::from(taken + length) > RUN_BITS {
                    break;
                }
                *run = entry + taken;
                taken += length;
                if entry >> TAKE_BITS != LITERAL {
                    break;
                }
            }
        }
    }

    fn peek(&self, bits: &Bits<'_>) -> u8 {
        self.0[bits.peek(RUN_BITS)]
    }
}

/// Goes through the canonical code for the lengths, as far as its codes have no more than `max_bits`
/// (RFC 1951, section 3.2.2): a symbol, the length of its code, and the code with its first bit
/// lowest, which is how codes are written.
fn each_code(lengths: &[u8], max_bits: u32, mut each: impl FnMut(usize, u8, usize)) {
    let mut code = 0_u32;
    for length in 1..=u8::try_from(max_bits).expect("at most 15") {
        for (symbol, _) in lengths.iter().enumerate().filter(|(_, of)| **of == length) {
            each(symbol, length, (code.reverse_bits() >> (32 - u32::from(length))) as usize);
            code += 1;
        }
        code <<= 1;
    }
}

/// Bits, lowest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    /// How many bytes went into the buffer.
    position: usize,
    buffer: u64,
    /// How many bits of the buffer are yet to be read.
    available: u32,
}

impl Bits<'_> {
    fn bit_position(&self) -> usize {
        self.position * 8 - self.available as usize
    }

    /// Makes 56 bits available, or all there are: enough for a symbol and its distance.
    fn refill(&mut self) {
        if let Some(Ok(eight)) =
            self.bytes.get(self.position..self.position + 8).map(<[u8; 8]>::try_from)
        {
            self.buffer |= u64::from_le_bytes(eight) << self.available;
            self.position += (63 - self.available as usize) / 8;
            self.available |= 56;
        } else {
            while self.available <= 56
                && let Some(byte) = self.bytes.get(self.position)
            {
                self.buffer |= u64::from(*byte) << self.available;
                self.position += 1;
                self.available += 8;
            }
        }
    }

    fn peek(&self, count: u32) -> usize {
        let bits = self.buffer & ((1 << count) - 1);
        usize::try_from(bits).expect("no more than 16 bits are looked at")
    }

    fn skip(&mut self, count: u32) {
        assert!(count <= self.available, "libdeflate's streams are whole");
        self.buffer >>= count;
        self.available -= count;
    }

    fn take(&mut self, count: u32) -> usize {
        self.refill();
        let value = self.peek(count);
        self.skip(count);
        value
    }

    /// Skips the rest of a byte, a length, its complement, and as many bytes.
    fn skip_stored(&mut self) {
        self.skip(self.available % 8);
        let length = self.take(16);
        let _complement = self.take(16);
        self.position = self.bit_position() / 8 + length;
        self.buffer = 0;
        self.available = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{borders, open_end};
    use flate2::{Decompress, FlushDecompress, Status};
    use libdeflater::{CompressionLvl, Compressor};
    use proptest::prelude::*;

    fn compress(bytes: &[u8], level: i32) -> Vec<u8> {
        let mut compressor = Compressor::new(CompressionLvl::new(level).unwrap());
        let mut stream = vec![0; compressor.deflate_compress_bound(bytes.len())];
        let size = compressor.deflate_compress(bytes, &mut stream).unwrap();
        stream.truncate(size);
        stream
    }

    /// Joins pieces as gzip does, and lets another implementation read them.
    fn check(pieces: &[&[u8]], level: i32) {
        let mut stream = Vec::new();
        for (n, piece) in pieces.iter().enumerate() {
            let mut part = compress(piece, level);
            let found = borders(&part);
            assert_eq!(found.end.div_ceil(8), part.len(), "a stream ends where it ends");
            if n + 1 < pieces.len() {
                open_end(&mut part);
            }
            stream.extend(part);
        }
        let all = pieces.concat();
        let mut output = vec![0; all.len() + 1];
        let mut decompress = Decompress::new(false);
        let status = decompress.decompress(&stream, &mut output, FlushDecompress::Finish).unwrap();
        assert_eq!(status, Status::StreamEnd);
        assert_eq!(decompress.total_in(), stream.len() as u64);
        output.truncate(usize::try_from(decompress.total_out()).unwrap());
        assert!(output == all, "level {level}: content differs");
    }

    /// Bytes that are neither random nor all the same: words from a small vocabulary.
    fn text(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut bytes = Vec::new();
        while bytes.len() < length {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.extend(format!("{:x} ", (state >> 33) % 4096).into_bytes());
        }
        bytes
    }

    #[test]
    fn streams_of_every_kind_of_block_can_be_joined() {
        let noise: Vec<u8> = (0..200_000_u32)
            .flat_map(|n| oci::Digest::sha256(&n.to_le_bytes()).as_bytes()[..2].to_vec())
            .collect();
        let words = text(1, 900_000);
        let zeros = vec![0; 500_000];
        for level in 0..=12 {
            check(&[b"", b"", b""], level);
            check(&[b"a", b"abc", b""], level);
            check(&[&noise, &words, &zeros], level);
            check(&[&zeros, &noise[..70_000], b"x", &words], level);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn joined_streams_stand_for_the_joined_bytes(
            seeds in proptest::collection::vec((any::<u64>(), 0..40_000_usize), 1..5),
            random in proptest::collection::vec(any::<u8>(), 0..3000),
            level in 1..=12_i32,
        ) {
            let mut pieces: Vec<Vec<u8>> = seeds.iter().map(|(seed, n)| text(*seed, *n)).collect();
            pieces.push(random);
            check(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>(), level);
        }
    }
}

//! Names of content: digests, and the two identities built from them.
//!
//! image-spec, `descriptor.md` ("Digests") and `config.md` ("Layer DiffID",
//! "Layer ChainID").

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

use crate::error::{Error, Result, excerpt};

/// A hash function that names content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, which every implementation must support.
    #[default]
    Sha256,
    /// SHA-512, which registries may accept.
    Sha512,
}

impl Algorithm {
    /// Returns the name as digests spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Returns how many hexadecimal digits a digest of this algorithm has.
    #[must_use]
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(Error::Digest {
                text: excerpt(text),
                reason: "the algorithm must be sha256 or sha512",
            }),
        }
    }
}

/// The name of some content, printed as `<algorithm>:<lower-case hex>`.
///
/// Algorithm and length cannot disagree: each variant holds exactly the bytes
/// its algorithm produces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// SHA-256, which every implementation must support.
    Sha256([u8; 32]),
    /// SHA-512, which registries may accept.
    Sha512([u8; 64]),
}

impl Digest {
    /// Returns the SHA-256 digest of `bytes`.
    #[must_use]
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::Sha256(sha2::Sha256::digest(bytes).into())
    }

    /// Returns the SHA-512 digest of `bytes`.
    #[must_use]
    pub fn sha512(bytes: &[u8]) -> Self {
        Self::Sha512(sha2::Sha512::digest(bytes).into())
    }

    /// Returns the digest of `bytes` by `algorithm`.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::sha256(bytes),
            Algorithm::Sha512 => Self::sha512(bytes),
        }
    }

    /// Returns the algorithm that made this digest.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Returns the raw bytes: 32 or 64 of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// Returns the lower-case hexadecimal digits, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        let mut hex = String::with_capacity(self.algorithm().hex_len());
        for byte in self.as_bytes() {
            hex.push(char::from(HEX_DIGITS[usize::from(byte >> 4)]));
            hex.push(char::from(HEX_DIGITS[usize::from(byte & 15)]));
        }
        hex
    }

    /// Returns the first twelve digits, which is how docker shows an id.
    #[must_use]
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm().as_str())?;
        f.write_str(":")?;
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason| Error::Digest { text: excerpt(text), reason };
        let (algorithm, hex) =
            text.split_once(':').ok_or_else(|| refuse("it must be <algorithm>:<hex>"))?;
        let algorithm: Algorithm =
            algorithm.parse().map_err(|_| refuse("the algorithm must be sha256 or sha512"))?;
        if hex.len() != algorithm.hex_len() {
            return Err(refuse(match algorithm {
                Algorithm::Sha256 => "sha256 has 64 hexadecimal digits",
                Algorithm::Sha512 => "sha512 has 128 hexadecimal digits",
            }));
        }
        let decoded = match algorithm {
            Algorithm::Sha256 => decode_hex(hex).map(Self::Sha256),
            Algorithm::Sha512 => decode_hex(hex).map(Self::Sha512),
        };
        decoded.ok_or_else(|| refuse("the digits must be 0-9 and a-f"))
    }
}

/// Returns the bytes that lower-case `hex` stands for, if it is exactly `N` bytes long.
fn decode_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A digest in the making: bytes go in piece by piece.
///
/// Uses the processor's SHA instructions where it has them.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Starts a digest of no bytes.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Appends `bytes` to what is hashed.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// Returns the digest of everything appended.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest::Sha256(state.finalize().into()),
            State::Sha512(state) => Digest::Sha512(state.finalize().into()),
        }
    }

    /// Returns which algorithm is at work.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hasher").field(&self.algorithm()).finish()
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The digest of a layer's *uncompressed* tar, as listed in an image config.
///
/// image-spec, `config.md`, "Layer DiffID".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for DiffId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self)
    }
}

/// The identity of a stack of layers: names the file system they add up to.
///
/// image-spec, `config.md`, "Layer ChainID".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(Digest);

impl ChainId {
    /// Returns the chain of a single bottom layer, which equals its diff id.
    #[must_use]
    pub fn base(layer: DiffId) -> Self {
        Self(layer.0)
    }

    /// Returns the chain of `layer` applied on top of `self`.
    #[must_use]
    pub fn child(self, layer: DiffId) -> Self {
        Self(Digest::sha256(format!("{} {}", self.0, layer.0).as_bytes()))
    }

    /// Returns the chain of `layers`, bottom first, or `None` where there are none.
    #[must_use]
    pub fn of(layers: &[DiffId]) -> Option<Self> {
        let (bottom, rest) = layers.split_first()?;
        Some(rest.iter().fold(Self::base(*bottom), |chain, layer| chain.child(*layer)))
    }

    /// Returns the digest that stands for this chain.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(
            Digest::sha256(b"abc").to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            Digest::sha512(b"").to_string(),
            "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
             47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
        );
        assert_eq!(Digest::sha256(b"abc").short(), "ba7816bf8f01");
    }

    #[test]
    fn refuses_what_the_grammar_forbids() {
        let good = Digest::sha256(b"").hex();
        let short = format!("sha256:{}", &good[..63]);
        let long = format!("sha256:{good}0");
        let upper = format!("sha256:{}", good.to_uppercase());
        let not_hex = format!("sha256:g{}", &good[1..]);
        let other_size = format!("sha512:{good}");
        let spaced = format!(" sha256:{good}");
        let wide = format!("sha256:{}é", &good[..62]);
        for text in [
            "",
            "sha256",
            "sha256:",
            ":abc",
            "md5:abcd",
            "SHA256:",
            &good,
            &short,
            &long,
            &upper,
            &not_hex,
            &other_size,
            &spaced,
            &wide,
        ] {
            assert!(text.parse::<Digest>().is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn refusal_says_what_is_wrong() {
        let error = "sha256:abc".parse::<Digest>().unwrap_err();
        insta::assert_snapshot!(error, @r#"invalid digest "sha256:abc": sha256 has 64 hexadecimal digits"#);
    }

    /// The example of the specification's text, computed by hand there.
    #[test]
    fn chain_of_two_layers_hashes_both_names() {
        let (bottom, top) = (DiffId(Digest::sha256(b"a")), DiffId(Digest::sha256(b"b")));
        let expected = Digest::sha256(format!("{bottom} {top}").as_bytes());
        assert_eq!(ChainId::of(&[bottom, top]).unwrap().digest(), expected);
        assert_eq!(ChainId::of(&[bottom]).unwrap().digest(), bottom.0);
        assert_eq!(ChainId::of(&[]), None);
    }

    proptest! {
        #[test]
        fn display_then_parse_is_identity(short: [u8; 32], half: [u8; 32]) {
            let mut long = [0; 64];
            long[..32].copy_from_slice(&short);
            long[32..].copy_from_slice(&half);
            for digest in [Digest::Sha256(short), Digest::Sha512(long)] {
                prop_assert_eq!(digest.to_string().parse(), Ok(digest));
                let json = serde_json::to_string(&digest).unwrap();
                prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
            }
        }

        #[test]
        fn pieces_hash_like_the_whole(bytes: Vec<u8>, cut: prop::sample::Index) {
            let (left, right) = bytes.split_at(cut.index(bytes.len() + 1));
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(left);
                hasher.update(right);
                prop_assert_eq!(hasher.finish(), Digest::of(algorithm, &bytes));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}

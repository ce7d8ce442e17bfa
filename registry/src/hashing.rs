//! A digest in the making that can be put down and taken up again.
//!
//! An upload may arrive in many requests, on many replicas, across restarts.
//! Its hash state is stored with it (`sha2` can write its state out), so that no
//! byte is read again to be hashed.

use oci::{Algorithm, Digest};
use sha2::Digest as _;
use sha2::digest::common::hazmat::{SerializableState as _, SerializedState};

/// The state of a hash function somewhere in an upload.
#[derive(Clone, Debug)]
pub(crate) enum Hashing {
    /// SHA-256.
    Sha256(sha2::Sha256),
    /// SHA-512.
    Sha512(sha2::Sha512),
}

impl Hashing {
    /// Starts before the first byte.
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    /// Returns which function this is.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Appends `bytes`.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    /// Returns the digest of everything appended.
    pub(crate) fn finish(self) -> Digest {
        match self {
            Self::Sha256(state) => Digest::Sha256(state.finalize().into()),
            Self::Sha512(state) => Digest::Sha512(state.finalize().into()),
        }
    }

    /// Writes the state out as hexadecimal digits.
    pub(crate) fn save(&self) -> String {
        match self {
            Self::Sha256(state) => to_hex(&state.serialize()),
            Self::Sha512(state) => to_hex(&state.serialize()),
        }
    }

    /// Reads what [`Hashing::save`] wrote, or returns `None` for anything else.
    pub(crate) fn restore(algorithm: Algorithm, saved: &str) -> Option<Self> {
        let bytes = from_hex(saved)?;
        match algorithm {
            Algorithm::Sha256 => {
                let state = SerializedState::<sha2::Sha256>::try_from(bytes.as_slice()).ok()?;
                sha2::Sha256::deserialize(&state).ok().map(Self::Sha256)
            }
            Algorithm::Sha512 => {
                let state = SerializedState::<sha2::Sha512>::try_from(bytes.as_slice()).ok()?;
                sha2::Sha512::deserialize(&state).ok().map(Self::Sha512)
            }
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match rest {
        [] => pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn putting_a_hash_down_changes_nothing(bytes: Vec<u8>, cut in 0usize..300) {
            let cut = cut.min(bytes.len());
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let mut hashing = Hashing::new(algorithm);
                hashing.update(&bytes[..cut]);
                let mut resumed = Hashing::restore(algorithm, &hashing.save()).unwrap();
                resumed.update(&bytes[cut..]);
                prop_assert_eq!(resumed.finish(), Digest::of(algorithm, &bytes));
            }
        }

        #[test]
        fn restoring_anything_does_not_panic(text in "[0-9a-fg]{0,300}") {
            Hashing::restore(Algorithm::Sha256, &text);
            Hashing::restore(Algorithm::Sha512, &text);
        }
    }
}

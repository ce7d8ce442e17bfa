//! The signatures of tokens: `jsonwebtoken` with ring underneath.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::{hmac, signature as asymmetric};

/// Makes `jsonwebtoken` use ring; harmless when done again.
pub(super) fn install() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: signer,
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(),
    };
    // Whoever came first installed the same.
    PROVIDER.install_default().unwrap_or_default();
}

/// We sign by HS256 only.
struct Secret(hmac::Key);

impl Signer<Vec<u8>> for Secret {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl Verifier<Vec<u8>> for Secret {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        hmac::verify(&self.0, message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtSigner for Secret {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Secret {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => {
            Ok(Box::new(Secret(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()))))
        }
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

/// A public key and the one algorithm it is used with.
struct Public {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Public {
    fn is_valid(&self, message: &[u8], signature: &[u8]) -> bool {
        use asymmetric as by;
        let rsa: &by::RsaParameters = match self.algorithm {
            Algorithm::RS256 => &by::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RS384 => &by::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RS512 => &by::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::PS256 => &by::RSA_PSS_2048_8192_SHA256,
            Algorithm::PS384 => &by::RSA_PSS_2048_8192_SHA384,
            Algorithm::PS512 => &by::RSA_PSS_2048_8192_SHA512,
            _ => return self.is_valid_by_curve(message, signature),
        };
        match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                by::RsaPublicKeyComponents { n, e }.verify(rsa, message, signature).is_ok()
            }
            DecodingKeyKind::SecretOrDer(_) => false,
        }
    }

    fn is_valid_by_curve(&self, message: &[u8], signature: &[u8]) -> bool {
        let curve: &'static dyn asymmetric::VerificationAlgorithm = match self.algorithm {
            Algorithm::ES256 => &asymmetric::ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &asymmetric::ECDSA_P384_SHA384_FIXED,
            Algorithm::EdDSA => &asymmetric::ED25519,
            _ => return false,
        };
        self.key.try_get_as_bytes().is_ok_and(|key| {
            asymmetric::UnparsedPublicKey::new(curve, key).verify(message, signature).is_ok()
        })
    }
}

impl Verifier<Vec<u8>> for Public {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        match self.is_valid(message, signature) {
            true => Ok(()),
            false => Err(signature::Error::new()),
        }
    }
}

impl JwtVerifier for Public {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => {
            Ok(Box::new(Secret(hmac::Key::new(hmac::HMAC_SHA256, key.try_get_as_bytes()?))))
        }
        // A public key must never become the secret of a symmetric signature.
        (_, AlgorithmFamily::Hmac) => Err(ErrorKind::InvalidAlgorithm.into()),
        (algorithm, family) if algorithm.family() == family => {
            Ok(Box::new(Public { algorithm: *algorithm, key: key.clone() }))
        }
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

//! By what an answer is known.

use deltaic_checkpoint::{Error, Result};
use sha2::{Digest, Sha256};

use crate::Request;

/// SHA-256 of a backend's identity and a request.
pub(super) type Key = [u8; 32];

/// The keys of one backend's requests.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    identity: Sha256,
}

impl Keys {
    pub(super) fn new(identity: &serde_json::Value) -> Self {
        let identity = identity.to_string();
        // The length keeps identity and request apart.
        Self { identity: Sha256::new().chain_update(format!("deltaic answers 1\n{}\n{identity}", identity.len())) }
    }

    /// SHA-256 of the identity's and the request's JSON.
    ///
    /// # Errors
    /// A request that is no JSON.
    pub(super) fn key(&self, request: &Request) -> Result<Key> {
        let request = serde_json::to_vec(request).map_err(|error| Error::new(format!("a request cannot be written as JSON: {error}")))?;
        Ok(self.identity.clone().chain_update(request).finalize().into())
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A key out of its 64 digits.
pub(super) fn from_hex(text: &str) -> Option<Key> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut key = Key::default();
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(key)
}

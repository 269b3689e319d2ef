//! A frame of the shim's door: `u32` length, little endian, then JSON. The limits are ours, not the peer's.

use serde::{Serialize, de::DeserializeOwned};

/// The largest request, in bytes of JSON.
pub const REQUEST_BYTES_MAX: u32 = 64 << 10;
/// The largest reply, in bytes of JSON: a listing of a full node.
pub const REPLY_BYTES_MAX: u32 = 8 << 20;

/// A frame that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length word says more than is allowed.
    #[error("a frame of {claimed} bytes, the limit is {limit}")]
    TooLong {
        /// What the length word says.
        claimed: u32,
        /// Our limit.
        limit: u32,
    },
    /// Not the JSON of a message.
    #[error("a frame that is no message of the zone protocol")]
    Json(#[source] serde_json::Error),
}

/// The whole frame of `message`, length word included.
///
/// # Errors
/// [`FrameError`] if it would be longer than `limit` bytes.
pub fn encode<T: Serialize>(message: &T, limit: u32) -> Result<Vec<u8>, FrameError> {
    let json = serde_json::to_vec(message).map_err(FrameError::Json)?;
    let len = u32::try_from(json.len()).unwrap_or(u32::MAX);
    if len > limit {
        return Err(FrameError::TooLong { claimed: len, limit });
    }
    let mut frame = Vec::with_capacity(4 + json.len());
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(&json);
    Ok(frame)
}

/// Checks a length word against `limit`, so that it may be allocated.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn frame_len(word: [u8; 4], limit: u32) -> Result<usize, FrameError> {
    let claimed = u32::from_le_bytes(word);
    if claimed > limit {
        return Err(FrameError::TooLong { claimed, limit });
    }
    Ok(claimed as usize)
}

/// Parses the body of a frame.
///
/// # Errors
/// [`FrameError::Json`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(body).map_err(FrameError::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_past_the_limit_is_refused_before_it_is_allocated() {
        assert!(matches!(
            frame_len([0xff; 4], 64),
            Err(FrameError::TooLong { claimed: u32::MAX, limit: 64 })
        ));
        assert!(encode(&"x".repeat(100), 64).is_err());
    }
}

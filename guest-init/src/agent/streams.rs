//! The stdio streams that the shim asked for and no process has taken yet.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
};

use vgpu_agent_api::{agent::StreamOffer, stream::StreamName};

use crate::{
    error::{GuestError, Result},
    stdio::{ByteStream, StreamSource},
};

/// Makes one end of a new stream and says how the shim reaches the other.
pub trait MakeStream: Send + Sync {
    /// A new stream.
    /// # Errors
    /// Grants or event channels are used up.
    fn make(&self) -> Result<(Box<dyn ByteStream>, Vec<u32>, u32)>;
}

/// More than a pod of the allowed size uses: each stream costs grants.
const WAITING_MAX: usize = 1024;

/// See the module.
pub struct StdioStreams {
    maker: Box<dyn MakeStream>,
    waiting: Mutex<HashMap<NonZeroU32, Box<dyn ByteStream>>>,
}

impl std::fmt::Debug for StdioStreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdioStreams").finish_non_exhaustive()
    }
}

impl StdioStreams {
    /// Without streams.
    pub fn new(maker: Box<dyn MakeStream>) -> Self {
        Self { maker, waiting: Mutex::new(HashMap::new()) }
    }

    /// Makes the stream `id`.
    /// # Errors
    /// The id is 0 or taken, or there are too many.
    pub fn open(&self, id: u32) -> Result<StreamOffer> {
        let key = key(id)?;
        let mut waiting = self.lock();
        if waiting.contains_key(&key) {
            return Err(GuestError::Taken(StreamName(key).to_string()));
        }
        if waiting.len() >= WAITING_MAX {
            return Err(GuestError::Invalid {
                field: "id",
                why: format!("{WAITING_MAX} streams wait already"),
            });
        }
        let (stream, offer) = self.make(key)?;
        waiting.insert(key, stream);
        Ok(offer)
    }

    /// Makes a stream that no process is to take.
    /// # Errors
    /// As [`MakeStream::make`].
    pub fn make(&self, id: NonZeroU32) -> Result<(Box<dyn ByteStream>, StreamOffer)> {
        let (stream, grant_refs, port) = self.maker.make()?;
        Ok((stream, StreamOffer { id: id.get(), grant_refs, port, ..Default::default() }))
    }

    /// Drops a stream that nobody took. One that is taken ends with its process; none is no error.
    pub fn close(&self, id: u32) {
        if let Some(key) = NonZeroU32::new(id) {
            self.lock().remove(&key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NonZeroU32, Box<dyn ByteStream>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's id.
/// # Errors
/// It is 0.
pub fn key(id: u32) -> Result<NonZeroU32> {
    NonZeroU32::new(id)
        .ok_or_else(|| GuestError::Invalid { field: "id", why: "a stream's id is above 0".into() })
}

impl StreamSource for StdioStreams {
    fn take(&self, name: &str) -> Result<Box<dyn ByteStream>> {
        let StreamName(id) = name
            .parse()
            .map_err(|why| GuestError::Invalid { field: "stdio", why: format!("{name:?}: {why}") })?;
        self.lock().remove(&id).ok_or_else(|| GuestError::NotFound(format!("stream {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Halves;
    impl MakeStream for Halves {
        fn make(&self) -> Result<(Box<dyn ByteStream>, Vec<u32>, u32)> {
            Ok((Box::new(tokio::io::duplex(10).0), vec![3, 4], 9))
        }
    }

    #[test]
    fn a_stream_is_taken_once() {
        let streams = StdioStreams::new(Box::new(Halves));
        let offer = streams.open(5).unwrap();
        assert_eq!((offer.id, offer.grant_refs, offer.port), (5, vec![3, 4], 9));
        assert!(matches!(streams.open(5), Err(GuestError::Taken(_))));
        assert!(streams.take("idm://5").is_ok());
        assert!(matches!(streams.take("idm://5"), Err(GuestError::NotFound(_))));
        assert!(matches!(streams.take("/run/fifo"), Err(GuestError::Invalid { .. })));
        assert!(streams.open(0).is_err());
    }
}

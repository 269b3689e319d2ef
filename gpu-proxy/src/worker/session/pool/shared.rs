//! Pools that processes of one zone share. Who has made one gives out its allocations one by one: the chunk that an allocation lies in goes
//! to the others as any memory does (`session/shared.rs`), and is mapped there while they have something of it. They allocate nothing there.
//!
//! A chunk counts against the grant of its maker, and against that of who has it longest once the maker has given it back.

use vgpu_api::{Call, CuError, CuResult, DevicePtr, PoolHandle, PooledPiece, Token};

use super::{Chunk, POOLED_MAX, Pool, PoolOwner};
use crate::device::Shareable;
use crate::exchange::Question;
use crate::pool_space::PoolSpace;
use crate::worker::ranges::Origin;
use crate::worker::session::Session;
use crate::worker::session::shared::Got;

impl Session {
    pub(in crate::worker::session) fn pool_export(
        &mut self,
        call: Call,
        handle: PoolHandle,
    ) -> CuResult<Token> {
        self.whole(call)?;
        let pool = self.pool(handle)?;
        let device = pool.device;
        match pool.owner {
            PoolOwner::Ours | PoolOwner::Others(_) => Err(CuError::INVALID_VALUE),
            PoolOwner::Shareable(Some(token)) => Ok(token),
            PoolOwner::Shareable(None) => {
                let (answer, _) = self.ask(Question::PutPool(device))?;
                self.pool(handle)?.owner = PoolOwner::Shareable(Some(answer.token));
                Ok(answer.token)
            }
        }
    }

    pub(in crate::worker::session) fn pool_import(
        &mut self,
        call: Call,
        handle: PoolHandle,
        token: Token,
    ) -> CuResult<u32> {
        self.whole(call)?;
        self.pools.check_free(handle)?;
        let (answer, _) = self.ask(Question::GetPool(token))?;
        let mut pool = Pool::new(answer.device, 0, PoolOwner::Others(token));
        // Each chunk brings addresses of its own.
        pool.space = Some((0, 0, PoolSpace::new(0, u64::MAX).apart()));
        self.pools.insert(handle, pool)?;
        Ok(answer.device)
    }

    pub(in crate::worker::session) fn export_pooled(
        &mut self,
        call: Call,
        at: DevicePtr,
    ) -> CuResult<PooledPiece> {
        self.whole(call)?;
        let Origin::Pooled(number) = self.ranges.freeable(at)? else { return Err(CuError::INVALID_VALUE) };
        let known = self.pools.by_number.get_mut(&number).ok_or(CuError::INVALID_VALUE)?;
        let (device, PoolOwner::Shareable(Some(pool))) = (known.device, known.owner) else {
            return Err(CuError::INVALID_VALUE);
        };
        let start = known.space()?.chunk_of(at.0).ok_or(CuError::INVALID_VALUE)?;
        let chunk = *known.chunks.get(&start).ok_or(CuError::INVALID_VALUE)?;
        let token = match chunk.token {
            Some(token) => token,
            None => {
                // Where memory is moved no work may be on its way.
                self.all_must_be_done()?;
                self.put(Shareable::Memory(chunk.memory), chunk.bytes, device)?
            }
        };
        let pools = &mut self.pools.by_number;
        if let Some(chunk) = pools.get_mut(&number).and_then(|known| known.chunks.get_mut(&start)) {
            chunk.token = Some(token);
        }
        Ok(PooledPiece { pool, chunk: token, offset: at.0 - start, bytes: self.ranges.length(at) })
    }

    pub(in crate::worker::session) fn import_pooled(
        &mut self,
        call: Call,
        handle: PoolHandle,
        piece: PooledPiece,
    ) -> CuResult<DevicePtr> {
        self.whole(call)?;
        let granule = self.device.granule_bytes();
        let number = *self.pools.named.get(handle)?;
        let rounded = piece.bytes.checked_next_multiple_of(granule).filter(|rounded| *rounded > 0);
        let rounded = rounded.filter(|_| piece.offset.is_multiple_of(granule));
        let rounded = rounded.ok_or(CuError::INVALID_VALUE)?;
        if self.pool(handle)?.owner != PoolOwner::Others(piece.pool) {
            return Err(CuError::INVALID_VALUE);
        }
        if self.pools.allocations >= POOLED_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let start = self.others_chunk(number, piece.chunk)?;
        let taken = self.take_others(number, start, &piece, rounded);
        if taken.is_err() {
            self.trim(number, 0);
        }
        taken
    }

    fn take_others(
        &mut self,
        number: u64,
        start: u64,
        piece: &PooledPiece,
        rounded: u64,
    ) -> CuResult<DevicePtr> {
        let at = DevicePtr(start.checked_add(piece.offset).ok_or(CuError::INVALID_VALUE)?);
        let is_here = self.ranges.freeable(at).is_ok();
        let space = self.pools.by_number.get_mut(&number).ok_or(CuError::INVALID_VALUE)?.space()?;
        // Within its chunk: the neighbours in the space are strangers.
        if space.chunk_of(at.0) != Some(start) || !space.take_at(at.0, rounded) {
            return Err(CuError::INVALID_VALUE);
        }
        if !is_here {
            self.ranges.insert(at.0, piece.bytes, 0, Origin::Pooled(number));
            self.pools.allocations += 1;
        }
        Ok(at)
    }

    /// Where a chunk of another process's is mapped. It is, from now on, as long as something of it is taken.
    fn others_chunk(&mut self, number: u64, token: Token) -> CuResult<u64> {
        let pool = self.pools.by_number.get(&number).ok_or(CuError::INVALID_VALUE)?;
        let known = pool.chunks.iter().find(|(_, chunk)| chunk.token == Some(token));
        if let Some((start, _)) = known {
            return Ok(*start);
        }
        let (device, access) = (pool.device, pool.all_access());
        let Got { raw, bytes, device: on } = self.get(token)?;
        let addresses =
            if on == device { self.take_addresses(bytes, 0, 0) } else { Err(CuError::INVALID_VALUE) };
        let at = match addresses {
            Ok(at) => at,
            Err(error) => {
                if self.device.release(raw).is_ok() {
                    self.tell(Question::Close(token));
                }
                return Err(error);
            }
        };
        if let Err((error, gone)) = self.show_chunk(at, bytes, raw, access) {
            if gone {
                self.end_others_chunk(at, bytes, Some(token));
            }
            return Err(error);
        }
        let pool = self.pools.by_number.get_mut(&number).ok_or(CuError::INVALID_VALUE)?;
        pool.chunks.insert(at, Chunk { memory: raw, bytes, token: Some(token) });
        pool.space()?.grown(at, bytes);
        Ok(at)
    }

    /// What was mapped of another process's is so no more.
    pub(super) fn end_others_chunk(&mut self, at: u64, bytes: u64, token: Option<Token>) {
        token.into_iter().for_each(|token| self.tell(Question::Close(token)));
        // If the device keeps them, they go on counting.
        let _ = self.give_addresses(at, bytes);
    }
}

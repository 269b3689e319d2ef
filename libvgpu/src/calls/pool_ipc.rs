//! Pools between processes of a pod: a descriptor stands for a pool, 64 bytes for an allocation of it. Both hold tokens (`core/ipc.rs`);
//! which memory they name, and whether it is there, the worker and the supervisor know.

use vgpu_api::wire::{from_slice, to_vec};
use vgpu_api::{ContextId, CuError, CuResult, DevicePtr, PoolHandle, PooledPiece, ask};

use super::ipc::{MemHandle, bytes_of, checked_type, file_of};
use super::virtual_memory::{POSIX_FD, ready};
use crate::abi::{In, Out, Raw, Span, export};
use crate::core::contexts::current;
use crate::core::ipc::{HANDLE_BYTES, Handle, Kind};
use crate::core::ranges::{Home, POOLED};

/// The first 8 bytes of a `CUmemPoolPtrExportData`, which [`PooledPiece`] follows.
const MARK: &[u8; 8] = b"vgpu ptr";

fn encode(piece: &PooledPiece) -> [u8; HANDLE_BYTES] {
    let mut data = [0; HANDLE_BYTES];
    data[..8].copy_from_slice(MARK);
    data[8..8 + PooledPiece::BYTES].copy_from_slice(&to_vec(piece));
    data
}

fn decode(data: &[u8; HANDLE_BYTES]) -> CuResult<PooledPiece> {
    let piece = from_slice(&data[8..8 + PooledPiece::BYTES]).ok();
    piece.filter(|_| data.starts_with(MARK)).ok_or(CuError::INVALID_VALUE)
}

export! {
    /// As with `cuMemExportToShareableHandle` the descriptor does not keep the pool.
    fn cuMemPoolExportToShareableHandle(out: Out<i32>, pool: Raw, handle_type: u32, flags: u64) {
        let process = ready()?;
        let (out, pool) = (out.wanted()?, PoolHandle::check(pool.0)?);
        checked_type(handle_type)?;
        let known = process.pools.get(pool)?.allocates()?;
        if flags != 0 || known.handle_types & POSIX_FD == 0 {
            return Err(CuError::INVALID_VALUE);
        }
        let token = ask::vgpuPoolExport(&process.channel, current(), pool)?;
        let device = process.contexts.number(known.device)?;
        out.set(file_of(Handle { token, bytes: 1, device, offset: 0, id: 0 }.encode(Kind::Pool))?)
    }

    fn cuMemPoolImportFromShareableHandle(out: Out<u64>, os_handle: Span, handle_type: u32, flags: u64) {
        let process = ready()?;
        let out = out.wanted()?;
        checked_type(handle_type)?;
        let fd = i32::try_from(os_handle.address()).ok().filter(|_| flags == 0);
        let handle = bytes_of(fd.ok_or(CuError::INVALID_VALUE)?)?;
        let Handle { token, device, .. } = Handle::decode(Kind::Pool, &handle)?;
        // Memory of a device that this process does not see.
        let device =
            process.contexts.device_of(ContextId::primary(device)).map_err(|_| CuError::NOT_SUPPORTED)?;
        let ask = |new| ask::vgpuPoolImport(&process.channel, current(), new, token);
        out.set(process.pools.import(process, device, POSIX_FD, ask)?.raw())
    }

    fn cuMemPoolExportPointer(out: Out<MemHandle>, address: DevicePtr) {
        let process = ready()?;
        let out = out.wanted()?;
        let range = process.device_memory.find(address.0).ok_or(CuError::INVALID_VALUE)?;
        if range.flags != POOLED || range.start != address.0 {
            return Err(CuError::INVALID_VALUE);
        }
        let piece = ask::cuMemPoolExportPointer(&process.channel, current(), address)?;
        out.set(MemHandle(encode(&piece)))
    }

    fn cuMemPoolImportPointer(out: Out<DevicePtr>, pool: Raw, data: In<MemHandle>) {
        let process = ready()?;
        let (out, pool) = (out.wanted()?, PoolHandle::check(pool.0)?);
        let piece = decode(&data.get()?.0)?;
        let home = Home { device: process.pools.get(pool)?.device, handle: pool.raw() };
        let at = ask::cuMemPoolImportPointer(&process.channel, current(), pool, piece)?;
        process.device_memory.insert_home(at.0, piece.bytes, POOLED, home);
        out.set(at)
    }
}

#[cfg(test)]
mod tests {
    use vgpu_api::Token;

    use super::*;

    #[test]
    fn a_pieces_bytes_come_back_and_others_are_none() {
        let piece = PooledPiece { pool: Token([1; 16]), chunk: Token([2; 16]), offset: 512, bytes: 1 << 33 };
        let data = encode(&piece);
        assert_eq!(decode(&data), Ok(piece));
        assert_eq!(decode(&[0; HANDLE_BYTES]), Err(CuError::INVALID_VALUE));
        let mut other = data;
        other[7] ^= 1;
        assert_eq!(decode(&other), Err(CuError::INVALID_VALUE));
    }
}

//! Requests about an object's attributes and its file system.

use rustix::fs::{AtFlags, FileType, OFlags, StatxFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::Session;
use crate::make::{chmod, group, own, user};
use crate::message::{Attributes, Changes, FileSystem, Reply};
use crate::node::Node;
use crate::wire::Text;

/// Rgetattr's `valid`: all that `stat(2)` has, and the time of birth. Source: Linux `include/net/9p/9p.h`, `P9_STATS_*`.
const BASIC: u64 = 0x7ff;
const BIRTH: u64 = 0x800;
/// Tsetattr's `valid`. Source: Linux `fs/9p/vfs_inode_dotl.c`, `P9_ATTR_*`.
const MODE: u32 = 1;
const USER: u32 = 1 << 1;
const GROUP: u32 = 1 << 2;
const SIZE: u32 = 1 << 3;
const ATIME: u32 = 1 << 4;
const MTIME: u32 = 1 << 5;
const ATIME_SET: u32 = 1 << 7;
const MTIME_SET: u32 = 1 << 8;
const NANOSECONDS: u64 = 1_000_000_000;
/// Source: `utimensat(2)`.
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
const AS_IT_IS: Timespec = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };

impl Session {
    pub(super) fn attributes<'c>(&self, fid: u32) -> Result<Reply<'c>, Errno> {
        let node = self.fids.node(fid)?;
        let stat = node.stat()?;
        let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        Ok(Reply::Getattr {
            of: Attributes {
                valid: if has_birth { BASIC | BIRTH } else { BASIC },
                qid: self.qid(&node),
                mode: stat.stx_mode.into(),
                uid: stat.stx_uid,
                gid: stat.stx_gid,
                links: stat.stx_nlink.into(),
                device: rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
                size: stat.stx_size,
                block_size: stat.stx_blksize.into(),
                blocks: stat.stx_blocks,
                atime_s: stat.stx_atime.tv_sec.cast_unsigned(),
                atime_ns: stat.stx_atime.tv_nsec.into(),
                mtime_s: stat.stx_mtime.tv_sec.cast_unsigned(),
                mtime_ns: stat.stx_mtime.tv_nsec.into(),
                ctime_s: stat.stx_ctime.tv_sec.cast_unsigned(),
                ctime_ns: stat.stx_ctime.tv_nsec.into(),
                btime_s: stat.stx_btime.tv_sec.cast_unsigned(),
                btime_ns: stat.stx_btime.tv_nsec.into(),
                generation: 0,
                data_version: 0,
            },
        })
    }

    /// Size and owner first, since both take away set-user-id, which the mode may give again. The time of change follows by itself.
    pub(super) fn change<'c>(&self, fid: u32, changes: &Changes) -> Result<Reply<'c>, Errno> {
        let node = self.fids.node(fid)?;
        let has = |bit| changes.valid & bit != 0;
        let new_user = if has(USER) { Some(user(changes.uid).ok_or(Errno::INVAL)?) } else { None };
        let new_group = if has(GROUP) { Some(group(changes.gid).ok_or(Errno::INVAL)?) } else { None };
        let times = Timestamps {
            last_access: time((ATIME, ATIME_SET), changes.valid, (changes.atime_s, changes.atime_ns))?,
            last_modification: time((MTIME, MTIME_SET), changes.valid, (changes.mtime_s, changes.mtime_ns))?,
        };
        if has(SIZE) {
            resize(&node, changes.size)?;
        }
        if has(USER | GROUP) {
            own(&node, new_user, new_group)?;
        }
        if has(MODE) {
            chmod(&node, changes.mode)?;
        }
        if has(ATIME | MTIME) {
            rustix::fs::utimensat(node.fd(), c"", &times, AtFlags::EMPTY_PATH)?;
        }
        Ok(Reply::Setattr {})
    }

    pub(super) fn file_system<'c>(&self, fid: u32) -> Result<Reply<'c>, Errno> {
        let node = self.fids.node(fid)?;
        let told = rustix::fs::fstatfs(node.fd())?;
        let low = |number: i64| u32::try_from(number & 0xffff_ffff).unwrap_or_default();
        Ok(Reply::Statfs {
            of: FileSystem {
                kind: low(told.f_type),
                block_size: low(told.f_bsize),
                blocks: told.f_blocks,
                blocks_free: told.f_bfree,
                blocks_available: told.f_bavail,
                files: told.f_files,
                files_free: told.f_ffree,
                id: self.qids.device(node.id()),
                name_bytes_max: low(told.f_namelen),
            },
        })
    }

    pub(super) fn read_link<'c>(&self, fid: u32, contents: &'c mut Vec<u8>) -> Result<Reply<'c>, Errno> {
        let node = self.fids.node(fid)?;
        if node.kind() != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        *contents = rustix::fs::readlinkat(node.fd(), c"", std::mem::take(contents))?.into_bytes();
        Ok(Reply::Readlink { target: Text(contents) })
    }
}

fn time((change, set): (u32, u32), valid: u32, (s, ns): (u64, u64)) -> Result<Timespec, Errno> {
    if valid & change == 0 {
        return Ok(AS_IT_IS);
    }
    if valid & set == 0 {
        return Ok(NOW);
    }
    // Else it might be one of the kernel's words.
    let tv_nsec = i64::try_from(ns).ok().filter(|_| ns < NANOSECONDS).ok_or(Errno::INVAL)?;
    Ok(Timespec { tv_sec: s.cast_signed(), tv_nsec })
}

fn resize(node: &Node, bytes: u64) -> Result<(), Errno> {
    match node.kind() {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR),
        _ => return Err(Errno::INVAL),
    }
    rustix::fs::ftruncate(node.open(OFlags::WRONLY)?, bytes)
}

//! What the workers of one zone share, as plain state: who made it, who has it, against whose grant it counts. Start at [`Shared`].
//!
//! ```text
//! put by its maker ─► anybody of the zone may get it ─► let go of by its maker, or the maker has ended ─► nobody may any more
//!                                                       counts against the maker's grant, then against that of who has it longest
//! ```
//! A worker counts what it made in its own slot of its grant's page. What others still have when it is gone stands in a word of the page
//! that is ours ([`Grant::add_left`]), from before the maker's slot says less: so it counts once, at any time. Where a worker lies about
//! what it has, only its own zone's grants are counted wrong, which a worker that was taken over need not heed anyhow.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use idm::region::sealed_memory;
use rustix::fs::{FileType, fstat, major, minor};
use vgpu_api::{CuError, CuResult, Token};

use super::foreign::Foreign;
use super::shared_events::Events;
use super::shared_pools::Pools;
use super::token::random_token;
use super::worker_id::WorkerId;
use crate::device::DeviceKind;
use crate::exchange::{Answer, Question};
use crate::worker::quota::Grant;

/// What one zone shares at once. Each costs the supervisor a descriptor.
pub const PER_ZONE_MAX: usize = 1024;
/// How often all of that is had by those who got it.
const USES_MAX: usize = 16 << 10;
/// NVIDIA's device nodes. Source: open-gpu-kernel-modules, `NV_MAJOR_DEVICE_NUMBER`.
const NVIDIA_MAJOR: u32 = 195;
/// `/dev/nvidiactl` of them: nvidia.ko exports memory to open files of it and imports it from no others. Source:
/// open-gpu-kernel-modules, `NV_MINOR_DEVICE_NUMBER_CONTROL_DEVICE`, `cliresCtrlCmdOsUnixExportObjectToFd_IMPL`.
const CONTROL_MINOR: u32 = 255;

/// What a zone shares.
#[derive(Debug, Default)]
pub struct Shared {
    memories: BTreeMap<Token, Memory>,
    /// Of all memories.
    uses: usize,
    /// Memories that a maker has.
    descriptors: usize,
    /// What nobody gets any more. Memory is free when its last descriptor is closed, which takes its time.
    gone: Vec<Foreign>,
    events: Events,
    pools: Pools,
}

#[derive(Debug)]
struct Memory {
    bytes: u64,
    /// The number of the node's device that it lies on.
    device: u32,
    /// Whose it is, and what others get: until it is let go of.
    maker: Option<(WorkerId, Foreign)>,
    /// The maker's, which those of its container share.
    grant: Grant,
    /// A worker stands here as often as it got it. One of another container has it counted against its own grant from the first: else the
    /// makers of a pod could hand it more than its containers were granted.
    users: Vec<(WorkerId, Option<Grant>)>,
    /// Where it counts since its maker has it no more: with another one of its container.
    counted: Option<(WorkerId, Grant)>,
}

impl Memory {
    /// Lets it count where it has to, now that who has it has changed.
    fn recount(&mut self, grant_of: &impl Fn(WorkerId, u32) -> Option<Grant>) {
        let mut uncounted = self.users.iter().filter(|(_, own)| own.is_none()).map(|(worker, _)| *worker);
        let wanted = if self.maker.is_some() { None } else { uncounted.next() };
        if self.counted.as_ref().map(|(worker, _)| *worker) == wanted {
            return;
        }
        let counted = wanted.and_then(|worker| Some((worker, grant_of(worker, self.device)?)));
        if let Some((_, grant)) = &counted {
            grant.add_left(self.bytes);
        }
        if let Some((_, grant)) = std::mem::replace(&mut self.counted, counted) {
            grant.remove_left(self.bytes);
        }
    }
}

impl Shared {
    /// Of those that cost a descriptor, how many there are.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// Descriptors to be closed by who holds no lock.
    pub fn take_gone(&mut self) -> Vec<Foreign> {
        std::mem::take(&mut self.gone)
    }

    /// Answers a living worker of those of the node's devices, in its own order. `grant_of` tells a worker's grant of one of the node's
    /// devices, `room` how many descriptors more there may be, `bytes_max` how large memory can be.
    ///
    /// # Errors
    /// 1 for what is not shared here, 2 beyond a limit, 801 for memory of another device, or what else the worker tells its program.
    pub fn answer(
        &mut self,
        worker: WorkerId,
        (question, given): (Question, Option<Given>),
        ((kind, devices), bytes_max, room): ((DeviceKind, &[u32]), u64, usize),
        grant_of: impl Fn(WorkerId, u32) -> Option<Grant>,
    ) -> CuResult<(Answer, Option<Foreign>)> {
        let is_given = given.is_some();
        // Only memory of the device that a worker drives is kept for others: nothing else that it may have open.
        let fd = match given {
            Some(Given { fd, is_memory: true })
                if matches!(question, Question::Put { .. }) && needs_fd(kind) =>
            {
                Some(fd)
            }
            other => {
                self.gone.extend(other.map(|given| given.fd));
                None
            }
        };
        match question {
            Question::Put { bytes, device } => {
                let on = devices.get(device as usize).copied();
                let is_full = room == 0 || self.memories.len() >= PER_ZONE_MAX;
                let is_right = is_given == needs_fd(kind) && is_given == fd.is_some();
                let checked = match on {
                    Some(_) if bytes == 0 || bytes > bytes_max || !is_right => Err(CuError::INVALID_VALUE),
                    Some(_) if is_full => Err(CuError::OUT_OF_MEMORY),
                    Some(on) => Ok(on),
                    None => Err(CuError::INVALID_VALUE),
                };
                match checked {
                    Ok(on) => {
                        let grant = grant_of(worker, on).ok_or(CuError::INVALID_VALUE)?;
                        let (answer, fd) = self.put(worker, (on, bytes), grant, fd)?;
                        Ok((Answer { device, ..answer }, fd))
                    }
                    Err(error) => {
                        self.gone.extend(fd);
                        Err(error)
                    }
                }
            }
            Question::Get(token) => self.get(worker, devices, token, &grant_of),
            Question::PutEvent => self.events.put(worker),
            Question::GetEvent(token) => self.events.get(worker, token),
            Question::Board => self.events.board(),
            Question::CloseEvent(token, seat) => self.events.close(worker, token, seat),
            Question::PutPool(device) => {
                let on = *devices.get(device as usize).ok_or(CuError::INVALID_VALUE)?;
                let token = self.pools.put(worker, on)?;
                Ok((Answer { device, token, ..Answer::default() }, None))
            }
            Question::GetPool(token) => {
                let device = number_of(self.pools.device_of(token)?, devices)?;
                Ok((Answer { device, token, ..Answer::default() }, None))
            }
            Question::LetGoPool(token) => self.pools.let_go(worker, token).map(|()| Default::default()),
            Question::LetGo(token) => {
                let memory = self.memories.get_mut(&token);
                let memory = memory.filter(|memory| memory.is_of(worker)).ok_or(CuError::INVALID_VALUE)?;
                self.gone.extend(memory.maker.take().map(|(_, fd)| fd));
                self.descriptors -= 1;
                self.settle(token, &grant_of);
                Ok(Default::default())
            }
            Question::Close(token) => {
                let Memory { users, bytes: memory_bytes, .. } =
                    self.memories.get_mut(&token).ok_or(CuError::INVALID_VALUE)?;
                let memory_bytes = *memory_bytes;
                let place = users.iter().position(|(user, _)| *user == worker);
                let (_, own) = users.remove(place.ok_or(CuError::INVALID_VALUE)?);
                if let Some(grant) = own {
                    grant.remove_left(memory_bytes);
                }
                self.uses -= 1;
                self.settle(token, &grant_of);
                Ok(Default::default())
            }
        }
    }

    fn put(
        &mut self,
        worker: WorkerId,
        (device, bytes): (u32, u64),
        grant: Grant,
        given: Option<Foreign>,
    ) -> CuResult<(Answer, Option<Foreign>)> {
        let full = |_: io::Error| CuError::OUT_OF_MEMORY;
        let (kept, back) = match given {
            Some(fd) => (fd, None),
            None => {
                let length = usize::try_from(bytes).map_err(|_| CuError::INVALID_VALUE)?;
                let memory = sealed_memory("vgpu-shared", length).map_err(full)?;
                let back = memory.try_clone().map_err(full)?;
                (Foreign::new(memory), Some(Foreign::new(back)))
            }
        };
        let token = random_token().map_err(full)?;
        let maker = Some((worker, kept));
        let memory = Memory { bytes, device, maker, grant, users: Vec::new(), counted: None };
        self.memories.insert(token, memory);
        self.descriptors += 1;
        Ok((Answer { bytes, token, ..Answer::default() }, back))
    }

    fn get(
        &mut self,
        worker: WorkerId,
        devices: &[u32],
        token: Token,
        grant_of: &impl Fn(WorkerId, u32) -> Option<Grant>,
    ) -> CuResult<(Answer, Option<Foreign>)> {
        let memory = self.memories.get_mut(&token).ok_or(CuError::INVALID_VALUE)?;
        let (_, fd) = memory.maker.as_ref().ok_or(CuError::INVALID_VALUE)?;
        let device = number_of(memory.device, devices)?;
        if self.uses >= USES_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let fd = Foreign::new(fd.try_clone().map_err(|_| CuError::OUT_OF_MEMORY)?);
        let grant = grant_of(worker, memory.device).ok_or(CuError::INVALID_VALUE)?;
        let own = (!grant.is_of(&memory.grant)).then_some(grant);
        if let Some(grant) = &own {
            grant.add_left_within(memory.bytes)?;
        }
        memory.users.push((worker, own));
        self.uses += 1;
        Ok((Answer { bytes: memory.bytes, device, token }, Some(fd)))
    }

    /// A worker has ended, and has nothing any more.
    pub fn ended(&mut self, worker: WorkerId, grant_of: impl Fn(WorkerId, u32) -> Option<Grant>) {
        self.events.ended(worker);
        self.pools.ended(worker);
        let tokens: Vec<_> = self.memories.keys().copied().collect();
        for token in tokens {
            let Some(memory) = self.memories.get_mut(&token) else { continue };
            if memory.is_of(worker) {
                self.gone.extend(memory.maker.take().map(|(_, fd)| fd));
                self.descriptors -= 1;
            }
            let before = memory.users.len();
            let bytes = memory.bytes;
            for (_, own) in memory.users.extract_if(.., |(user, _)| *user == worker) {
                if let Some(grant) = own {
                    grant.remove_left(bytes);
                }
            }
            self.uses -= before - memory.users.len();
            self.settle(token, &grant_of);
        }
    }

    /// After a change of who has it: it counts where it has to, and is forgotten when nobody has it.
    fn settle(&mut self, token: Token, grant_of: &impl Fn(WorkerId, u32) -> Option<Grant>) {
        let Some(memory) = self.memories.get_mut(&token) else { return };
        memory.recount(grant_of);
        if memory.maker.is_none() && memory.users.is_empty() {
            self.memories.remove(&token);
        }
    }
}

impl Memory {
    fn is_of(&self, worker: WorkerId) -> bool {
        self.maker.as_ref().is_some_and(|(maker, _)| *maker == worker)
    }
}

/// A worker's own number of a device of the node; 801 where it has no such.
fn number_of(device: u32, devices: &[u32]) -> CuResult<u32> {
    let place = devices.iter().position(|own| *own == device);
    place.and_then(|place| u32::try_from(place).ok()).ok_or(CuError::NOT_SUPPORTED)
}

/// Whether who exports memory of a device has a descriptor of it. Else it is made here.
fn needs_fd(device: DeviceKind) -> bool {
    device == DeviceKind::Cuda
}

/// What came with a question.
#[derive(Debug)]
pub struct Given {
    fd: Foreign,
    /// It is what memory of NVIDIA's driver is exported as.
    is_memory: bool,
}

impl Given {
    /// Looks at what it is. That may take as long as its file likes: no lock is held here.
    #[must_use]
    pub fn look_at(fd: OwnedFd) -> Self {
        let is_memory = fstat(&fd).is_ok_and(|stat| is_exported(stat.st_mode, stat.st_rdev));
        Self { fd: Foreign::new(fd), is_memory }
    }

    /// For who has no answer to the question any more.
    #[must_use]
    pub fn into_descriptor(self) -> Foreign {
        self.fd
    }
}

/// Whether a file of this kind may be exported memory. An open GPU, or another driver's device of the same minor number, is none.
fn is_exported(mode: u32, of: u64) -> bool {
    FileType::from_raw_mode(mode) == FileType::CharacterDevice
        && (major(of), minor(of)) == (NVIDIA_MAJOR, CONTROL_MINOR)
}

#[cfg(test)]
mod tests;

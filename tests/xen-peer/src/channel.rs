//! A GPU channel's memory: granted here, mapped by a process that opens no device.

use std::time::Instant;

use idm::Region;
use idm::xen::evtchn::EventChannel;
use idm::xen::gntalloc::GrantedPages;
use idm::xen::offer::{AcceptedChannel, bells};
use idm::xen::{Access, DomId, Offer, PAGE_BYTES};

use crate::check::{LIMIT, Outcome, pattern, same};
use crate::child::Child;

/// Where libvgpu's arena will be, on both sides.
const FIXED: usize = 0x7e00_0000_0000;
pub const PAGES: u32 = 64;
pub const LEN_BYTES: usize = PAGES as usize * PAGE_BYTES;
/// The byte that the kernel clears when the mapping goes.
pub const LIFE_AT: usize = 192;

pub fn in_a_worker() -> Outcome {
    let pages = GrantedPages::allocate(DomId::DOM0, &[(PAGES, Access::ReadWrite)])?;
    let bell = EventChannel::offer(DomId::DOM0)?;
    let offer = Offer { refs: pages.refs().to_vec(), port: bell.port() };
    let channel = AcceptedChannel::accept(DomId::DOM0, &offer, LEN_BYTES)?;
    let base = pages.span().base();
    let len_bytes = pages.span().len();
    // SAFETY: `pages` keeps the span mapped until the region drops it; nobody else was given its address.
    let region = unsafe { Region::from_raw_parts(base, len_bytes, Box::new(pages)) };
    let (waiter, doorbell) = bells(bell);

    let sent = pattern(3, LEN_BYTES - PAGE_BYTES);
    region.write(PAGE_BYTES, &sent);
    region.write(LIFE_AT, &[1]);
    let child = Child::worker(channel)?;
    // The worker answers by the complement of each byte, rings, and waits to be rung before it ends.
    await_word(&region, 0, &waiter, 1)?;
    let mut back = vec![0; sent.len()];
    region.read(PAGE_BYTES, &mut back);
    same("the worker's answer", back == sent.iter().map(|byte| !byte).collect::<Vec<_>>(), true)?;
    let mut life = [0];
    region.read(LIFE_AT, &mut life);
    same("the life byte while it lives", life, [1])?;
    region.word(4).store(1, std::sync::atomic::Ordering::Release);
    doorbell.ring()?;
    same("the worker's exit code", child.exit_code()?, Some(0))?;
    let deadline = Instant::now() + LIMIT;
    while life != [0] && Instant::now() < deadline {
        waiter.wait(None, Some(Instant::now() + std::time::Duration::from_millis(50)))?;
        region.read(LIFE_AT, &mut life);
    }
    same("the life byte after its end", life, [0])
}

pub fn worker(channel: AcceptedChannel) -> Outcome {
    let (region, waiter, doorbell) = channel.attach(Some(FIXED), LIFE_AT)?;
    same("address", region.base().as_ptr().addr(), FIXED)?;
    let mut bytes = vec![0; region.len() - PAGE_BYTES];
    region.read(PAGE_BYTES, &mut bytes);
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    region.write(PAGE_BYTES, &bytes);
    region.word(0).store(1, std::sync::atomic::Ordering::Release);
    doorbell.ring()?;
    await_word(&region, 4, &waiter, 1)
}

/// Sleeps on the doorbell until the word at `offset` is `value`.
pub fn await_word(region: &Region, offset: usize, waiter: &idm::Waiter, value: u32) -> Outcome {
    let deadline = Instant::now() + LIMIT;
    while region.word(offset).load(std::sync::atomic::Ordering::Acquire) != value {
        if Instant::now() > deadline {
            return Err(format!("word {offset} never became {value}").into());
        }
        waiter.wait(None, Some(deadline))?;
    }
    Ok(())
}

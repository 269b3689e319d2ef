//! The canary: does memory that one process left reach the next one? One worker of nobody fills most of the device's free memory with a
//! mark and ends ([`fill`]); a second one takes as much and looks for it, on the device itself ([`search`]). A search that finds nothing
//! proves nothing unless it can find: so the second worker then puts the mark into a part of its own memory and looks again.

use serde::{Deserialize, Serialize};
use vgpu_api::launch::LaunchAttributes;
use vgpu_api::memory::Memset;
use vgpu_api::{CuError, CuResult, DevicePtr, ImageKind};

use crate::device::{Device, DeviceKind, DeviceLaunch, LoadError, Place, Raw};

/// The same at every start: what an earlier one left is found, too.
const MARK: u32 = 0xc0de_cafe;
/// Of free memory so much is left to others, which take and give it back meanwhile.
const LEFT_TENTHS: u64 = 1;
/// Memory is taken in pieces of this, in bytes: free memory is seldom in one.
const PIECE_BYTES: u64 = 256 << 20;
/// What a thread of `canary.ptx` reads at once, in bytes; it counts words of half of that.
const PAIR_BYTES: u64 = 16;
const WORD_BYTES: u64 = 8;
const THREADS: u32 = 256;
/// Of all GPUs there are: some waves of blocks on the largest.
const BLOCKS_MAX: u64 = 4096;
const COUNTING: &[u8] = include_bytes!("canary.ptx");

/// What the second worker found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Memory that it was given and looked at, in bytes.
    pub bytes: u64,
    /// 8-byte words there that are not zero.
    pub words: u64,
    /// Those of them that hold the mark.
    pub marked: u64,
    /// Words that it marked itself.
    pub control_words: u64,
    /// Those of them that the same search found afterwards.
    pub control_marked: u64,
}

/// Memory that is looked at, in bytes, at most. That of `soft` is its worker's own, which the kernel has zeroed: there it is the canary
/// itself that is tried.
#[must_use]
pub const fn bytes_max(device: DeviceKind) -> u64 {
    match device {
        DeviceKind::Cuda => u64::MAX,
        DeviceKind::Soft | DeviceKind::Null => 32 << 10,
    }
}

/// Fills free memory of a device, `bytes_max` at most, with the mark. How many bytes: they hold it until the process ends.
///
/// # Errors
/// One sentence.
pub fn fill(device: &mut dyn Device, number: u32, bytes_max: u64) -> Result<u64, String> {
    let held = Held::take(device, number, bytes_max).map_err(said("memory for a mark"))?;
    let marked = held.pieces.iter().try_for_each(|piece| held.mark(device, piece));
    marked.and_then(|()| held.wait(device)).map_err(said("memory cannot be marked"))?;
    Ok(held.bytes())
}

/// Looks for the mark in free memory of a device, `bytes_max` at most.
///
/// # Errors
/// One sentence.
pub fn search(device: &mut dyn Device, number: u32, bytes_max: u64) -> Result<Found, String> {
    let held = Held::take(device, number, bytes_max).map_err(said("memory to search"))?;
    held.search(device)
}

fn said(what: &str) -> impl Fn(CuError) -> String + '_ {
    move |error| format!("{what}: {error:?}")
}

/// A piece of memory: address and bytes, a multiple of [`PAIR_BYTES`].
type Piece = (u64, u64);

/// Memory that was taken. It is given back with the process.
struct Held {
    place: Place,
    pieces: Vec<Piece>,
}

impl Held {
    fn take(device: &mut dyn Device, number: u32, bytes_max: u64) -> CuResult<Self> {
        let context = device.context_create(number, 0, true)?;
        let free = device.memory(context)?.free;
        let mut left = (free - free / 10 * LEFT_TENTHS).min(bytes_max);
        let mut pieces = Vec::new();
        while left >= PAIR_BYTES {
            let bytes = left.min(PIECE_BYTES) / PAIR_BYTES * PAIR_BYTES;
            match device.alloc(context, bytes) {
                Ok(address) => pieces.push((address, bytes)),
                Err(CuError::OUT_OF_MEMORY) if !pieces.is_empty() => break,
                Err(error) => return Err(error),
            }
            left -= bytes;
        }
        if pieces.is_empty() {
            return Err(CuError::OUT_OF_MEMORY);
        }
        Ok(Self { place: Place { context, stream: None }, pieces })
    }

    fn bytes(&self) -> u64 {
        self.pieces.iter().map(|(_, bytes)| bytes).sum()
    }

    fn mark(&self, device: &mut dyn Device, &(address, bytes): &Piece) -> CuResult<()> {
        let element_bytes = 4;
        let width = bytes / u64::from(element_bytes);
        let all =
            Memset { dst: DevicePtr(address), pitch: bytes, element_bytes, value: MARK, width, rows: 1 };
        device.fill(self.place, &all)
    }

    fn wait(&self, device: &mut dyn Device) -> CuResult<()> {
        device.context_synchronize(self.place.context)
    }

    fn search(&self, device: &mut dyn Device) -> Result<Found, String> {
        let count = self.counting(device)?;
        let counted = |pieces: &[Piece], device: &mut dyn Device| {
            self.count(device, count, pieces).map_err(said("memory cannot be searched"))
        };
        let (words, marked) = counted(&self.pieces, device)?;
        let last = &self.pieces[self.pieces.len() - 1..];
        self.mark(device, &last[0]).map_err(said("memory cannot be marked"))?;
        let (_, control_marked) = counted(last, device)?;
        let control_words = last[0].1 / WORD_BYTES;
        Ok(Found { bytes: self.bytes(), words, marked, control_words, control_marked })
    }

    /// After the memory is taken: what loading leaves behind in this process is not looked at.
    fn counting(&self, device: &mut dyn Device) -> Result<Raw, String> {
        let survey = device.survey(COUNTING).map_err(said("the search is no image"))?;
        let loaded = device.load(Some(self.place.context), ImageKind::Module, COUNTING, survey);
        let loaded = loaded.map_err(|LoadError { code, log }| format!("the search: {code:?}: {log}"))?;
        loaded.functions.first().map(|(_, raw)| *raw).ok_or_else(|| "the search has no kernel".into())
    }

    /// Words that are not zero, and those of them that are marked.
    fn count(&self, device: &mut dyn Device, function: Raw, pieces: &[Piece]) -> CuResult<(u64, u64)> {
        let mut found = [0; 16];
        let at = device.alloc(self.place.context, found.len() as u64)?;
        device.write(self.place, at, &found)?;
        let word = u64::from(MARK) << 32 | u64::from(MARK);
        for &(address, bytes) in pieces {
            let pairs = bytes / PAIR_BYTES;
            let params = [address, pairs, word, at].map(u64::to_le_bytes).concat();
            let blocks = pairs.div_ceil(THREADS.into()).min(BLOCKS_MAX);
            let launch = DeviceLaunch {
                function,
                grid: [u32::try_from(blocks).unwrap_or(1), 1, 1],
                block: [THREADS, 1, 1],
                shared_bytes: 0,
                attributes: LaunchAttributes::default(),
                params: &params,
            };
            device.launch(self.place, &launch)?;
        }
        device.read(self.place, at, &mut found)?;
        let [words, marked] = [0, 8].map(|offset| {
            let bytes = found[offset..].first_chunk().copied().unwrap_or_default();
            u64::from_le_bytes(bytes)
        });
        Ok((words, marked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Contexts, Memory, Null, Soft};

    const BYTES: u64 = 1 << 20;

    fn soft() -> Soft {
        Soft::new(4 * BYTES).unwrap()
    }

    #[test]
    fn clean_memory_is_clean_and_the_search_can_find() {
        let bytes = bytes_max(DeviceKind::Soft);
        assert_eq!(fill(&mut soft(), 0, bytes), Ok(bytes));
        let words = bytes / 8;
        let clean = Found { bytes, words: 0, marked: 0, control_words: words, control_marked: words };
        assert_eq!(search(&mut soft(), 0, bytes), Ok(clean));
    }

    #[test]
    fn what_is_left_behind_is_counted_to_the_word() {
        let mut device = soft();
        let held = Held::take(&mut device, 0, BYTES).unwrap();
        // As by a device that does not scrub: a run of the mark, half a mark, something else, and the last word of all.
        let (at, place) = (held.pieces[0].0, held.place);
        held.mark(&mut device, &(at + 64, 800)).unwrap();
        for (offset, word) in [(1024, MARK.into()), (BYTES - 24, 7_u64), (BYTES - 8, 1 << 63)] {
            device.write(place, at + offset, &word.to_le_bytes()).unwrap();
        }
        let found = held.search(&mut device).unwrap();
        assert_eq!((found.bytes, found.words, found.marked), (BYTES, 103, 100));
        assert_eq!((found.control_words, found.control_marked), (BYTES / 8, BYTES / 8));
    }

    /// It keeps nothing, so its memory looks clean to every search.
    #[test]
    fn a_search_that_cannot_find_says_so() {
        let found = search(&mut Null::default(), 0, BYTES).unwrap();
        assert_eq!((found.words, found.marked, found.control_marked), (0, 0, 0));
        assert!(found.control_words > 0);
    }

    #[test]
    fn each_device_is_looked_at() {
        let mut device = Soft::with_devices(2, 4 * BYTES).unwrap();
        for number in [0, 1] {
            assert_eq!(fill(&mut device, number, BYTES), Ok(BYTES));
        }
        let free = |device: &mut Soft, number| {
            let context = device.context_create(number, 0, true).unwrap();
            device.memory(context).unwrap().free
        };
        assert_eq!([0, 1].map(|number| free(&mut device, number)), [3 * BYTES; 2]);
        assert_eq!(search(&mut device, 1, BYTES).unwrap().words, 0);
    }

    #[test]
    fn memory_is_taken_in_pieces_and_some_is_left_to_others() {
        let mut device = Soft::new(1 << 30).unwrap();
        let held = Held::take(&mut device, 0, u64::MAX).unwrap();
        let nine_tenths = (1 << 30) - (1 << 30) / 10;
        assert_eq!((held.pieces.len(), held.bytes()), (4, nine_tenths / 16 * 16));
        assert!(fill(&mut device, 0, 0).is_err(), "nothing is filled");
    }
}

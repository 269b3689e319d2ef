//! Where a device is near: to every processor and all memory of the guest, which is what the guest can know.

use std::ffi::c_ulong;
use std::fs;

use crate::abi::{Device, Out, exports};
use crate::result::{NvmlError, NvmlResult};
use crate::session::session;

const CPUS: &str = "/sys/devices/system/cpu/online";
const NODES: &str = "/sys/devices/system/node/online";
/// `nvmlAffinityScope_t`: node and socket; all of a guest is in both.
const SCOPES: u32 = 2;

/// The numbers of a list of the kernel's: `0-3,8`. Source: Linux, Documentation/admin-guide/cputopology.rst.
fn numbers(list: &str) -> impl Iterator<Item = usize> {
    list.trim().split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => first..last.saturating_add(1),
            _ => 0..0,
        }
    })
}

/// Sets the bits of the list in `path`, in an array of `words` words; those beyond it are left out.
fn set_bits(path: &str, words: u32, place: Out<c_ulong>) -> NvmlResult<()> {
    place.wanted()?;
    if words == 0 {
        return Err(NvmlError::INVALID_ARGUMENT);
    }
    let list = fs::read_to_string(path).map_err(|_| NvmlError::NOT_SUPPORTED)?;
    let bits = c_ulong::BITS as usize;
    let word = |index: usize| {
        numbers(&list)
            .filter(|number| number / bits == index)
            .fold(0, |word, number| word | (1 as c_ulong) << (number % bits))
    };
    place.set_all((0..words as usize).map(word))
}

exports! {
    fn nvmlDeviceGetCpuAffinity(device: Device, words: u32, place: Out<c_ulong>) {
        session()?.device(device)?;
        set_bits(CPUS, words, place)
    }

    fn nvmlDeviceGetCpuAffinityWithinScope(device: Device, words: u32, place: Out<c_ulong>, scope: u32) {
        session()?.device(device)?;
        if scope >= SCOPES {
            return Err(NvmlError::INVALID_ARGUMENT);
        }
        set_bits(CPUS, words, place)
    }

    fn nvmlDeviceGetMemoryAffinity(device: Device, words: u32, place: Out<c_ulong>, scope: u32) {
        session()?.device(device)?;
        if scope >= SCOPES {
            return Err(NvmlError::INVALID_ARGUMENT);
        }
        set_bits(NODES, words, place)
    }
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn a_list_of_the_kernel_is_read() {
        assert_eq!(numbers("0-3,8\n").collect::<Vec<_>>(), [0, 1, 2, 3, 8]);
        assert_eq!(numbers("0\n").collect::<Vec<_>>(), [0]);
        assert_eq!(numbers("").count() + numbers("x-2,y").count(), 0);
    }
}

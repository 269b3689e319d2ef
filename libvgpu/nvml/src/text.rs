//! PCI addresses as programs write them.

/// `domain:bus:device.function` in hex, as address and function; domain and function may be missing. `None`: that is no address.
pub fn pci(text: &str) -> Option<([u32; 3], u32)> {
    let hex = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        plain.then(|| u32::from_str_radix(digits, 16).ok())?
    };
    let (address, function) = text.split_once('.').unwrap_or((text, "0"));
    let parts: Option<Vec<u32>> = address.split(':').map(hex).collect();
    let address = match parts?[..] {
        [domain, bus, device] => [domain, bus, device],
        [bus, device] => [0, bus, device],
        _ => return None,
    };
    Some((address, hex(function)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_each_form_that_they_are_written_in() {
        let address = [0x1a, 0xb3, 0x1f];
        // NVML's two, CUDA's, and without a function.
        for text in ["0000001A:B3:1F.0", "001A:B3:1F.0", "001a:b3:1f.0", "1a:b3:1f"] {
            assert_eq!(pci(text), Some((address, 0)), "{text}");
        }
        assert_eq!(pci("b3:1f.2"), Some(([0, 0xb3, 0x1f], 2)));
        for text in ["", ":", "1", "1:2:3:4", "g:0:0", "+1:0:0", "0:1:0.", "100000000:0:0.0", "GPU-0"] {
            assert_eq!(pci(text), None, "{text}");
        }
    }
}

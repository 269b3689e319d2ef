//! The hash of the wire: two ends whose declarations differ never speak.

/// FNV-1a, 64 bits, of `bytes` continued from `state`. It tells builds apart; it guards nothing against forgery.
#[must_use]
pub const fn fnv1a(mut state: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        state = (state ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    state
}

/// Where FNV-1a starts.
pub const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

#[cfg(test)]
mod tests {
    #[test]
    fn agrees_with_the_published_value() {
        assert_eq!(super::fnv1a(super::FNV_START, b"foobar"), 0x8594_4171_f739_67e8);
    }
}

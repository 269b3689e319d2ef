//! Ways for the fuzzer (`tests/fuzz`) to parsers that are nobody else's business. Not compiled otherwise.

/// Whatever xenstored sends, in pieces whose length the first byte says.
#[cfg(feature = "xen")]
pub fn xenstore_messages(bytes: &[u8]) {
    crate::xen::xenstore::fuzz_messages(bytes);
}

/// Whatever a guest writes where its references and its port should be.
#[cfg(feature = "xen")]
pub fn offer_nodes(bytes: &[u8]) {
    crate::xen::device::fuzz_refs(bytes);
}

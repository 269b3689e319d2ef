//! What kernels print: `printf` and failed asserts.

use crate::wire::wire_struct;

/// Set beside the `CUresult` of a reply: kernels have printed something that the guest has not asked for yet.
pub const PRINTED: u32 = 1 << 31;
/// Most bytes of one [`Printed`]: it fits a reply.
pub const PRINTED_BYTES_MAX: usize = 4000;
const _: () = assert!(PRINTED_BYTES_MAX + 8 <= crate::wire::REPLY_BYTES_MAX);

wire_struct! {
    /// A piece of what kernels have printed.
    #[derive(Clone, Debug, PartialEq, Eq, Default)]
    pub struct Printed {
        /// The program's stream: 1 standard output (`printf`), 2 standard error (asserts).
        pub to: u32,
        /// At most [`PRINTED_BYTES_MAX`]; none when all has been told.
        pub bytes: Vec<u8>,
    }
}

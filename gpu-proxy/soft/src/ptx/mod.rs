//! From PTX text to a tree. Source: the PTX ISA manual, version 9.0, chapters 4 (syntax), 5 (state spaces, types), 11.
//!
//! Start at [`parse`]. `lex.rs` cuts the text into tokens, `parse.rs` knows directives and statements, `scan.rs` only variables, `managed.rs`
//! changes a text, `tree.rs` is what comes
//! out. The meaning of an instruction is not known here: its opcode and operands stay words until `code/` resolves them.

mod lex;
mod managed;
mod operand;
mod parse;
mod scan;
mod tree;

pub use managed::ManagedVariable;
pub(crate) use managed::{placed, variables as managed_variables};
pub(crate) use parse::parse;
pub(crate) use scan::variables;
pub(crate) use tree::*;

//! From PTX text to a tree. Source: the PTX ISA manual, version 9.0, chapters 4 (syntax), 5 (state spaces, types), 11.
//!
//! Start at [`parse`]. `lex.rs` cuts the text into tokens, `parse.rs` knows directives and statements, `scan.rs` only variables, `tree.rs` is what comes
//! out. The meaning of an instruction is not known here: its opcode and operands stay words until `code/` resolves them.

mod lex;
mod operand;
mod parse;
mod scan;
mod tree;

pub(crate) use parse::parse;
pub(crate) use scan::variables;
pub(crate) use tree::*;

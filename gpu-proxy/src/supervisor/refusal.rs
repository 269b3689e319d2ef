//! Refusals: what the supervisor does not do, and why.

use vgpu_codes::Code;

/// Why something was not done: a code for machines, a sentence for people.
#[derive(Debug, thiserror::Error)]
#[error("{text} ({code})")]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// The sentence.
    pub text: String,
}

impl Refusal {
    /// With its sentence.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

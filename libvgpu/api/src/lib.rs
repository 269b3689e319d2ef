//! The one declaration of the CUDA calls.

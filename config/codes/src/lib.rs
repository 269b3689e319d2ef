//! The stable error codes.

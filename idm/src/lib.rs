//! Inter-domain messaging.

#[cfg(feature = "xen")]
pub mod xen;

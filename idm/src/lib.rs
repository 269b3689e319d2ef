//! Inter-domain messaging.

//! What the shim asks of guest-init, beyond containerd's Task API.

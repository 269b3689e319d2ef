//! What the shim asks of gpu-proxy.

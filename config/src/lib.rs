//! The one parser of /etc/vgpu/config.toml.

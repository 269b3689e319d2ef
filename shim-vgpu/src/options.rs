//! The runtime options of containerd's configuration: `runtimeoptions.v1.Options`, of which we use `ConfigPath`.

use std::path::PathBuf;

use protobuf::{CodedInputStream, well_known_types::any::Any};
use vgpu_codes::Code;

use crate::error::{OrFail, Result};

/// The message's name, behind any host. Source: containerd `api/types/runtimeoptions/v1/api.proto`.
const NAME: &str = "runtimeoptions.v1.Options";
/// The tag of `string config_path = 2`.
const CONFIG_PATH: u32 = 2 << 3 | 2;

/// The configuration file that containerd's runtime handler names, if it does.
///
/// # Errors
/// [`Code::SpecInvalid`] if the options can't be read.
pub fn config_path(options: &Any) -> Result<Option<PathBuf>> {
    if options.type_url.rsplit('/').next() != Some(NAME) {
        return Ok(None);
    }
    let read = || -> protobuf::Result<Option<PathBuf>> {
        let mut input = CodedInputStream::from_bytes(&options.value);
        let mut path = None;
        while let Some(tag) = input.read_raw_tag_or_eof()? {
            match tag {
                CONFIG_PATH => {
                    path = Some(input.read_string()?).filter(|path| !path.is_empty()).map(PathBuf::from)
                }
                other => protobuf::rt::skip_field_for_tag(other, &mut input)?,
            }
        }
        Ok(path)
    };
    read().or_fail(Code::SpecInvalid, || format!("the runtime options ({NAME}) can't be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(name: &str, value: &[u8]) -> Any {
        Any { type_url: name.into(), value: value.into(), ..Any::default() }
    }

    #[test]
    fn the_config_path_is_found_among_the_other_fields() {
        let value = b"\x0a\x03url\x12\x05/a/b!\x1a\x02xx";
        assert_eq!(
            config_path(&options("types.containerd.io/runtimeoptions.v1.Options", value)).unwrap(),
            Some("/a/b!".into())
        );
        assert_eq!(config_path(&options("containerd.runc.v1.Options", value)).unwrap(), None);
        assert_eq!(config_path(&Any::default()).unwrap(), None);
        assert!(config_path(&options(NAME, b"\x12\x40/a")).is_err());
    }
}

//! The annotations `vgpu.dev/…` of a container: what GPU it was granted.
//!
//! They come from kubelet's allocation or from `ctr run --annotation`. A pod's own annotations grant nothing, nor does the
//! environment: both are written by the pod's author.

use serde::{Deserialize, Serialize};
use vgpu_codes::Code;

use super::{Role, Spec};
use crate::error::{Error, Result};

/// Keys of ours.
const PREFIX: &str = "vgpu.dev/";
/// How many GPUs: 1 to [`COUNT_MAX`].
pub const GPU: &str = "vgpu.dev/gpu";
/// GPU memory in MiB.
const MEMORY_MIB: &str = "vgpu.dev/memory-mib";
/// Share of the GPU's time in thousandths.
const SHARE: &str = "vgpu.dev/share";

/// GPUs of a container at most.
const COUNT_MAX: u32 = 16;

/// What a container asks of gpu-proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuRequest {
    /// How many GPUs. Records of earlier releases do not say it.
    #[serde(default = "one")]
    pub count: u32,
    /// Bytes of each GPU's memory; none: all.
    pub bytes: Option<u64>,
    /// Thousandths of each GPU's time; none: what is left over.
    pub share: Option<u32>,
}

fn one() -> u32 {
    1
}

impl Spec {
    /// The GPUs that this container was granted by its annotations.
    ///
    /// # Errors
    /// [`Code::AnnotationUnknown`] for another `vgpu.dev/` key or a bad value.
    pub fn gpu(&self) -> Result<Option<GpuRequest>> {
        let bad = |key: &str, rule: &str| {
            Error::new(Code::AnnotationUnknown, format!("the annotation {key} {rule}"))
        };
        let (mut count, mut mib, mut share) = (None, None, None);
        for (key, value) in self.annotations().filter(|(key, _)| key.starts_with(PREFIX)) {
            let number = value.as_str().and_then(|text| text.parse::<u32>().ok());
            let number = move || number.ok_or_else(|| bad(key, &format!("is {value}, not a number")));
            match key {
                GPU => count = Some(number()?),
                MEMORY_MIB => mib = Some(number()?),
                SHARE => share = Some(number()?),
                other => {
                    return Err(bad(
                        other,
                        &format!("is not known; there are {GPU}, {MEMORY_MIB} and {SHARE}"),
                    ));
                }
            }
        }
        match count {
            None if mib.or(share).is_some() => Err(bad(GPU, "is missing beside its limits")),
            None | Some(0) => Ok(None),
            // The sandbox's annotations are the pod author's.
            Some(_) if self.role()? == Role::Sandbox => Ok(None),
            Some(count @ 1..=COUNT_MAX) => {
                Ok(Some(GpuRequest { count, bytes: mib.map(|mib| u64::from(mib) << 20), share }))
            }
            Some(_) => Err(bad(
                GPU,
                &format!("asks for more than {COUNT_MAX} GPUs, which is all that a container can have"),
            )),
        }
        .and_then(|ask: Option<GpuRequest>| match ask {
            Some(GpuRequest { bytes: Some(0), .. }) => Err(bad(MEMORY_MIB, "is 0")),
            Some(GpuRequest { share: Some(share), .. }) if !(1..=1000).contains(&share) => {
                Err(bad(SHARE, "is not 1 to 1000, thousandths of the GPU's time"))
            }
            ask => Ok(ask),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::spec::tests::spec;

    fn ask(annotations: serde_json::Value) -> Result<Option<GpuRequest>> {
        spec(|s| s["annotations"] = annotations).gpu()
    }

    #[test]
    fn a_gpu_is_granted_with_its_limits() {
        let granted =
            ask(json!({"vgpu.dev/gpu": "1", "vgpu.dev/memory-mib": "512", "vgpu.dev/share": "250"}));
        let one = GpuRequest { count: 1, bytes: Some(512 << 20), share: Some(250) };
        assert_eq!(granted.unwrap(), Some(one));
        let several = ask(json!({"vgpu.dev/gpu": "16"})).unwrap();
        assert_eq!(several, Some(GpuRequest { count: 16, bytes: None, share: None }));
        let recorded: GpuRequest = serde_json::from_value(json!({"bytes": 512 << 20, "share": 250})).unwrap();
        assert_eq!(recorded, one, "as an earlier release wrote it");
        assert_eq!(ask(json!({})).unwrap(), None);
        assert_eq!(ask(json!({"vgpu.dev/gpu": "0"})).unwrap(), None);
    }

    #[test]
    fn a_misspelt_key_or_value_is_named() {
        for (key, value) in [
            ("vgpu.dev/gpus", "1"),
            ("vgpu.dev/gpu", "17"),
            ("vgpu.dev/gpu", "-1"),
            ("vgpu.dev/gpu", "true"),
            ("vgpu.dev/memory-mib", "64"),
            ("vgpu.dev/share", "1001"),
            ("vgpu.dev/memory-mib", "0"),
        ] {
            let mut annotations = json!({key: value});
            if value == "1001" || value == "0" {
                annotations["vgpu.dev/gpu"] = "1".into();
            }
            let error = ask(annotations).unwrap_err();
            assert_eq!(error.code(), Some(Code::AnnotationUnknown), "{key}={value}");
            assert!(error.to_string().contains("vgpu.dev/"), "{error}");
        }
    }

    #[test]
    fn a_pods_own_annotations_and_environment_grant_nothing() {
        let sandbox = json!({"io.kubernetes.cri.container-type": "sandbox", "vgpu.dev/gpu": "1"});
        assert_eq!(ask(sandbox).unwrap(), None);
        let environment = spec(|s| s["process"]["env"] = json!(["NVIDIA_VISIBLE_DEVICES=all"]));
        assert_eq!(environment.gpu().unwrap(), None);
    }
}

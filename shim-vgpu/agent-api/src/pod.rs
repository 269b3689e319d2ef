//! What the containers of a pod have in common, as the shim writes it in a guest's copy of a spec.
//!
//! containerd's spec says it by paths of the node: `/proc/<pid>/ns/ipc` of another container, the folder that is mounted at /dev/shm. The
//! shim knows what they mean and writes the words here in their place; guest-init has its own objects for them, and takes no other path.

use std::{fmt, num::NonZeroU64, path::Path, str::FromStr};

const CONTAINER: &str = "vgpu:container/";
const MEMORY: &str = "vgpu:memory/";

/// `linux.namespaces[].path` for the pod's own ipc and uts namespaces, which are the guest's. From [`crate::version::SANDBOX_SINCE`] on.
pub const SANDBOX: &str = "vgpu:sandbox";

/// The annotation that asks for no program of an image, but for the first process of a pid namespace, which does nothing but reap. From
/// [`crate::version::SANDBOX_SINCE`] on. A tenant's annotations of this form do not cross.
pub const PAUSE: &str = "vgpu.dev/pause";

/// The annotation that names the container's volumes of which the shim will say when they have changed: the numbers of their places
/// `mounts/<number>` in its folder of the share, with a blank between two.
pub const VOLUMES: &str = "vgpu.dev/volumes";

/// `linux.namespaces[].path` for the namespace that init of this container is in: `vgpu:container/<id>`.
#[must_use]
pub fn namespace_of(container: &str) -> String {
    format!("{CONTAINER}{container}")
}

/// The container of such a path. None for any other.
#[must_use]
pub fn container_of(path: &Path) -> Option<&str> {
    let id = path.to_str()?.strip_prefix(CONTAINER)?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

/// `mounts[].source` for a file system in memory that is one for all containers that name it so: `vgpu:memory/<name>/<bytes>`,
/// and `/<page>` for one of huge pages, with the size of one in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    name: u128,
    bytes: NonZeroU64,
    page: Option<NonZeroU64>,
}

/// Not `vgpu:memory/`, 32 hexadecimal digits, and one or two decimals above 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadMemory;

impl Memory {
    /// The memory of this name.
    #[must_use]
    pub fn new(name: u128, bytes: NonZeroU64) -> Memory {
        Memory { name, bytes, page: None }
    }

    /// The same, of huge pages of this many bytes.
    #[must_use]
    pub fn of_pages(self, page: NonZeroU64) -> Memory {
        Memory { page: Some(page), ..self }
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn name(self) -> String {
        format!("{:032x}", self.name)
    }

    /// How much it may hold.
    #[must_use]
    pub fn bytes(self) -> NonZeroU64 {
        self.bytes
    }

    /// Bytes of a huge page, where it is of such.
    #[must_use]
    pub fn page(self) -> Option<NonZeroU64> {
        self.page
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MEMORY}{}/{}", self.name(), self.bytes)?;
        self.page.map_or(Ok(()), |page| write!(f, "/{page}"))
    }
}

impl fmt::Display for BadMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a memory of the pod is vgpu:memory/, 32 hexadecimal digits, its size in bytes, and that of a huge page if it is of such")
    }
}

impl std::error::Error for BadMemory {}

impl FromStr for Memory {
    type Err = BadMemory;

    fn from_str(text: &str) -> Result<Self, BadMemory> {
        let (name, sizes) =
            text.strip_prefix(MEMORY).and_then(|rest| rest.split_once('/')).ok_or(BadMemory)?;
        let (bytes, page) = sizes.split_once('/').map_or((sizes, None), |(bytes, page)| (bytes, Some(page)));
        let memory = Memory {
            name: u128::from_str_radix(name, 16).map_err(|_| BadMemory)?,
            bytes: bytes.parse().map_err(|_| BadMemory)?,
            page: page.map(str::parse).transpose().map_err(|_| BadMemory)?,
        };
        // One text a memory: no signs, capitals or zeros that are not ours.
        (memory.to_string() == text).then_some(memory).ok_or(BadMemory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_survive_their_text_form() {
        assert_eq!(container_of(Path::new(&namespace_of("pod-1.a_b"))), Some("pod-1.a_b"));
        let memory = Memory::new(0x3f2a, NonZeroU64::new(64 << 20).unwrap());
        assert_eq!(memory.to_string(), "vgpu:memory/00000000000000000000000000003f2a/67108864");
        assert_eq!(memory.to_string().parse(), Ok(memory));
        let huge = memory.of_pages(NonZeroU64::new(2 << 20).unwrap());
        assert_eq!(huge.to_string(), "vgpu:memory/00000000000000000000000000003f2a/67108864/2097152");
        assert_eq!(huge.to_string().parse(), Ok(huge));
    }

    #[test]
    fn anything_else_is_refused() {
        for path in
            ["", "/proc/1/ns/pid", "vgpu:container/", "vgpu:container/../1", "vgpu:container/a/b", "vgpu:pod"]
        {
            assert_eq!(container_of(Path::new(path)), None, "{path:?}");
        }
        let name = "0123456789abcdef0123456789abcdef";
        for rest in [
            "",
            "a/1",
            "/1",
            "../1",
            "NAME",
            "NAME/0",
            "NAME/+1",
            "NAME/",
            "NAME/1/",
            "NAME/1/0",
            "NAME/1/2/3",
            "NAME/01",
            "NAME1/1",
            "NAME/18446744073709551616",
        ] {
            let text = format!("vgpu:memory/{}", rest.replace("NAME", name));
            assert_eq!(text.parse::<Memory>(), Err(BadMemory), "{text:?}");
        }
        for text in
            ["", "/dev/shm", &format!("memory/{name}/1"), &format!("vgpu:memory/{}/1", name.to_uppercase())]
        {
            assert_eq!(text.parse::<Memory>(), Err(BadMemory), "{text:?}");
        }
    }
}

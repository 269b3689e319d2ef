//! The list of what a pod may expect of its kernel, held against its document and against the kernel that was built. What a pod sees of
//! it is a story (`tests/stories`).

use std::{env, fs};

use vgpu_inside::kernel::{document, judge_config};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guest-kernel.md");

#[test]
fn guest_kernel_document_is_the_list() {
    let made = document();
    if env::var_os("UPDATE").is_some() {
        fs::write(DOCUMENT, &made).unwrap();
    }
    let committed = fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(committed == made, "docs/guest-kernel.md: UPDATE=1 cargo test -p vgpu-inside guest_kernel");
}

#[test]
#[ignore = "played by part installed with VGPU_GUEST_CONFIG, the built kernel's configuration"]
fn guest_kernel_is_built_with_what_the_list_names() {
    let path = env::var_os("VGPU_GUEST_CONFIG").expect("VGPU_GUEST_CONFIG is set");
    let config = fs::read_to_string(path).expect("a configuration");
    assert_eq!(judge_config(&config), [""; 0]);
}

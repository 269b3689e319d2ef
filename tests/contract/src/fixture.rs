//! What a case finds in its bundle beside the programs: files of the node that it may mount, and users of the image.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use serde_json::json;
use vgpu_inside::{part::given, volume::Volume};

use crate::outcome::Outcome;

/// In the root.
const IMAGE: [(&str, &str); 7] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"),
    ("etc/group", "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"),
    ("data/of-image", "of the image\n"),
    ("data/script", "#!/bin/sh\necho script $1\n"),
    ("data/no-format", "echo runs\n"),
    ("data/no-interpreter", "#!/no/such\n"),
    ("shut/program", "#!/bin/sh\necho runs\n"),
];
/// Of the node, in the bundle.
const NODE: [(&str, &str); 4] = [
    ("vol/file", "of the node\n"),
    ("vol/below/file", "below\n"),
    ("other/file", "of the other\n"),
    ("everybodys/file", ""),
];

/// As a pod's folder on the node has a ConfigMap.
const CONFIG_MAP: &str = "volumes/kubernetes.io~configmap/config";

/// Makes one, and who can watch it.
pub(crate) fn make_config_map(bundle: &Path) {
    fs::create_dir_all(bundle.join(CONFIG_MAP)).expect("a folder");
    write_config_map(bundle, "1", &[("key", "first\n"), ("gone", "")]);
    fs::copy(given("VGPU_INSIDE"), bundle.join("rootfs/bin/inside")).expect("copied");
}

/// Writes it as kubelet does.
pub(crate) fn write_config_map(bundle: &Path, version: &str, files: &[(&str, &str)]) {
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    Volume::at(&bundle.join(CONFIG_MAP)).write(version, &files).expect("written");
}

/// Makes them.
pub(crate) fn make(bundle: &Path) {
    for (folder, files) in [(bundle.join("rootfs"), &IMAGE[..]), (bundle.into(), &NODE[..])] {
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
    }
    symlink("file", bundle.join("vol/link")).expect("a link");
    symlink("vol", bundle.join("link")).expect("a link");
    symlink("data", bundle.join("rootfs/data-link")).expect("a link");
    symlink("../../../../out", bundle.join("rootfs/out-link")).expect("a link");
    for (path, mode) in [
        ("data/script", 0o755),
        ("data/no-format", 0o755),
        ("data/no-interpreter", 0o755),
        ("shut", 0o700),
        ("shut/program", 0o700),
        ("tmp", 0o1777),
    ] {
        fs::set_permissions(bundle.join("rootfs").join(path), fs::Permissions::from_mode(mode))
            .expect("its mode");
    }
    fs::set_permissions(bundle.join("everybodys"), fs::Permissions::from_mode(0o777)).expect("its mode");
}

/// What a path of the bundle is now.
pub(crate) fn look(path: &Path) -> Outcome {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Outcome::from([("found".into(), json!(false))]);
    };
    let text = fs::read_to_string(path).ok();
    let mode = format!("{:o}", found.mode());
    Outcome::from([
        ("mode".into(), json!(mode)),
        ("owner".into(), json!([found.uid(), found.gid()])),
        ("text".into(), json!(text)),
    ])
}

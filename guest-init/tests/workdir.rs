//! Stories of working directories that the image lacks.

mod world;

use std::{fs, os::unix::fs::PermissionsExt as _};

use ttrpc::Code;
use world::{Setup, refusal, story, story_in};

/// As by runc: whichever mount it lies in, and before the root becomes read-only.
#[test]
fn a_working_directory_that_the_image_lacks_is_made() {
    for directory in ["/made/for/it", "/tmp/made"] {
        story(async |world| {
            world.bundle("c1", &["sh", "-c", "echo $PWD $(stat -c %a:%u:%g .); id -u"], |spec| {
                spec["process"]["user"] = serde_json::json!({"uid": 33, "gid": 34, "umask": 0o077});
                spec["process"]["cwd"] = directory.into();
                spec["root"]["readonly"] = true.into();
                let tmp = serde_json::json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"});
                spec["mounts"].as_array_mut().unwrap().push(tmp);
            });
            let mut stdio = world.create("c1", false).await.unwrap();
            world.start("c1", "").await.unwrap();
            assert_eq!(stdio.output().await, format!("{directory} 755:0:0\n33\n"));
        });
    }
}

#[test]
fn a_working_directory_that_cannot_be_made_is_named_with_the_cause() {
    story(async |world| {
        let bundle = world.bundle("c1", &["true"], |spec| spec["process"]["cwd"] = "/file/a".into());
        fs::write(bundle.join("rootfs/file"), "").unwrap();
        let (code, text) = refusal(world.create("c1", false).await.map(drop));
        assert_eq!(code, Code::INTERNAL, "{text}");
        assert!(text.contains("working directory /file/a: Not a directory"), "{text}");
        world.assert_nothing_left_of("c1");
    });
}

#[test]
fn the_root_of_a_user_namespace_makes_a_working_directory() {
    // In a guest everybody may execute it; where it was built not everybody may come.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("guest-init");
    fs::copy(Setup::default().program, &program).unwrap();
    story_in(Setup { program, ..Setup::default() }, async |world| {
        world.bundle("c1", &["sh", "-c", "echo $PWD $(stat -c %a:%u .); cat /proc/self/uid_map"], |spec| {
            let map = serde_json::json!([{"containerID": 0, "hostID": 70000, "size": 1000}]);
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(serde_json::json!({"type": "user"}));
            (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
            let tmp = serde_json::json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"});
            spec["mounts"].as_array_mut().unwrap().push(tmp);
            spec["process"]["cwd"] = "/tmp/made".into();
        });
        let mut stdio = world.create("c1", false).await.unwrap();
        world.start("c1", "").await.unwrap();
        let said = stdio.output().await;
        assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["/tmp/made", "755:0", "0", "70000", "1000"]);
    });
}

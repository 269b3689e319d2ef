//! stdio by `binary://`: what the logger of a container reads, and that it ends with it.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use containerd_shim_protos::api::CreateTaskResponse;

use crate::containerd::Containerd;

/// Both streams to files of the container's name, and the logger's own id.
const LOGGER: &str = "#!/bin/sh
at=$2/$CONTAINER_NAMESPACE.$CONTAINER_ID
echo $$ > $at.pid
exec 5>&-
cat <&3 > $at.out &
cat <&4 > $at.err
wait
";

#[tokio::test(flavor = "multi_thread")]
async fn a_logger_reads_what_a_container_and_its_exec_write_and_ends_with_them() {
    let containerd = Containerd::new().await;
    let dir = containerd.dir.path();
    let logger = dir.join("logger");
    fs::write(&logger, LOGGER).unwrap();
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).unwrap();
    let url = format!("binary://{}?dir={}", logger.display(), dir.display());

    containerd.bundle(
        "a",
        "echo out; echo err >&2; while ! test -e /go; do sleep 0.02; done; seq 30000; exit 3",
        |_| {},
    );
    let shim = containerd.start("a").await;
    let mut asked = containerd.asked("a");
    (asked.stdout, asked.stderr) = (url.clone(), url.clone());
    let _: CreateTaskResponse = shim.call("Create", &asked).await.expect("Create");
    shim.begin("a").await;
    let lives = containerd.lives();

    let mut exec = containerd.asked_exec("a", "e", "echo of the exec; exit 4", |_| {});
    (exec.stdout, exec.stderr) = (url.clone(), url);
    shim.exec(&exec).await;
    shim.begin_exec("a", "e").await;
    assert_eq!(shim.wait_exec("a", "e").await, 4);
    // Init's end may be the end of this one.
    shim.exec(&containerd.asked_exec("a", "go", "touch /go", |_| {})).await;
    shim.begin_exec("a", "go").await;

    assert_eq!((shim.wait("a").await, shim.delete("a").await), (3, 3));
    let read = |name: &str| fs::read_to_string(dir.join(format!("default.{name}"))).unwrap();
    let numbers: String = (1..=30000).map(|number| format!("{number}\n")).collect();
    assert_eq!((read("a.out"), read("a.err").as_str()), (format!("out\n{numbers}"), "err\n"));
    assert_eq!((read("e.out").as_str(), read("e.err").as_str()), ("of the exec\n", ""));
    for pid in ["a.pid", "e.pid"].map(read) {
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "a logger has outlived its task");
    }
    shim.shut_down().await;
    containerd.delete("a");
    containerd.assert_nothing_left(&lives).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logger_that_is_not_there_is_an_error_of_create_and_leaves_nothing() {
    let containerd = Containerd::new().await;
    containerd.bundle("a", "exit 0", |_| {});
    let shim = containerd.start("a").await;
    let mut asked = containerd.asked("a");
    asked.stdout = "binary:///no/such".into();
    let refused = shim.call::<_, CreateTaskResponse>("Create", &asked).await.unwrap_err().to_string();
    assert!(refused.contains("the logger /no/such cannot be started"), "{refused}");
    shim.shut_down().await;
    containerd.delete("a");
    containerd.assert_nothing_left(&[]).await;
}

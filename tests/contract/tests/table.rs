//! Every case on runc's shim and on the local one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use vgpu_contract::{
    ACCEPTED, cases,
    compare::{differences, judge},
    mock::Runtime,
    play::play,
    report,
};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/runtime-comparison.md");

/// A path of the environment.
fn given(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: cargo xtask test contract")).into()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by part contract with VGPU_RUNC, a root with runc's shim, and VGPU_LOCAL_SHIM, the local one"]
async fn the_comparison_has_no_unexplained_difference() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TRIED: {}: only root makes containers without a user namespace", file!());
        return;
    }
    let mut played = Vec::new();
    for case in cases::all() {
        println!("{}", case.name);
        let (right, ours) = tokio::join!(
            play(case, Runtime::Runc { root: given("VGPU_RUNC") }),
            play(case, Runtime::Local { program: given("VGPU_LOCAL_SHIM") })
        );
        played.push((case, differences(case.name, &right, &ours)));
    }
    let wrong = judge(played.iter().flat_map(|(_, found)| found), ACCEPTED);
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));

    let (table, path) = (report::table(&played, ACCEPTED), Path::new(TABLE));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, &table).expect("written");
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    assert!(written == table, "{TABLE} is another one: UPDATE=1 cargo xtask test contract");
}

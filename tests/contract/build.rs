//! Makes the messages of `cri.proto`, with those that the shim reads, too. Pure Rust: no protoc is needed.

use protobuf_codegen::Codegen;

/// Where the shim's are.
const SHIM: &str = "../../shim-vgpu";

fn main() {
    let (own, of_shim) = ("cri.proto".to_owned(), format!("{SHIM}/pod.proto"));
    println!("cargo::rerun-if-changed={own}\ncargo::rerun-if-changed={of_shim}");
    let mut codegen = Codegen::new();
    // The last is of every path that is below none before it.
    codegen.pure().inputs([own, of_shim]).includes([SHIM, "."]);
    codegen.cargo_out_dir("cri").run_from_script();
}

//! Makes the messages of `cri.proto`. Pure Rust: no protoc is needed.

use protobuf_codegen::Codegen;

fn main() {
    println!("cargo::rerun-if-changed=cri.proto");
    Codegen::new().pure().input("cri.proto").include(".").cargo_out_dir("cri").run_from_script();
}

//! Makes the messages of `pod.proto`. Pure Rust: no protoc is needed.

use protobuf_codegen::Codegen;

fn main() {
    println!("cargo::rerun-if-changed=pod.proto");
    Codegen::new().pure().input("pod.proto").include(".").cargo_out_dir("cri").run_from_script();
}

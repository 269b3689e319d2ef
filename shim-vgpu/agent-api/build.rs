//! Makes the messages and the ttrpc client and server from `agent.proto`. Pure Rust: no protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use ttrpc_codegen::{Codegen, Customize};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=agent.proto");
    let out = PathBuf::from(env::var("OUT_DIR")?).join("proto");
    fs::create_dir_all(&out)?;
    Codegen::new()
        .out_dir(&out)
        .input("agent.proto")
        .include(".")
        .rust_protobuf()
        .customize(Customize { async_all: true, ..Customize::default() })
        .run()?;
    // Own module file: the generated ones begin with inner attributes, which `include!` alone would refuse.
    fs::write(out.join("mod.rs"), "pub mod agent;\npub mod agent_ttrpc;\n")?;
    Ok(())
}

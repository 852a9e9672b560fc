//! Generates the Rust of the IDL with a compiler written in Rust, so that no `protoc` has to be installed.

use std::{env, error::Error, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 5] = [
    "antiphon/client/v1/client.proto",
    "antiphon/log/v1/log.proto",
    "antiphon/rpc/v1/directory.proto",
    "antiphon/rpc/v1/rpc.proto",
    "antiphon/rpc/v1/replication.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=antiphon");
    let descriptors = protox::compile(FILES, ["."])?;

    tonic_prost_build::configure()
        .bytes(".")
        // Secrets: their `Debug` is written by hand and shows none.
        .skip_debug([".antiphon.rpc.v1.SigningKeysResponse", ".antiphon.log.v1.SigningKey"])
        .compile_fds(descriptors.clone())?;

    let encoded = descriptors.encode_to_vec();
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    std::fs::write(out_dir.join("descriptors.bin"), &encoded)?;
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .build(&[".antiphon.client.v1"])?;
    Ok(())
}

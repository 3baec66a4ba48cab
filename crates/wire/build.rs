//! Compiles the protobuf files with protox: no protoc is needed.

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("../../proto");
    let files: Vec<PathBuf> = [
        "exchange/v1/header",
        "exchange/v1/whereabouts",
        "exchange/v1/consignment",
        "exchange/v1/exchange_service",
        "agreement/v1/agreement",
        "agreement/v1/agreement_service",
        "feed/v1/registry",
        "feed/v1/feed_service",
        "agency/v1/agency_service",
        "operations/v1/agency_right",
        "operations/v1/operations_service",
        "operations/v1/registry_service",
        "journal/v1/stored",
        "journal/v1/hub",
        "journal/v1/node",
    ]
    .iter()
    .map(|file| root.join(format!("concord/{file}.proto")))
    .collect();
    println!("cargo:rerun-if-changed=../../proto");

    let descriptors = protox::Compiler::new([&root])?
        .include_imports(true)
        .include_source_info(true)
        .open_files(&files)?
        .file_descriptor_set();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    // Bytes instead of Vec: bodies are slices of what came from the socket, never copied again.
    let mut names = tonic_prost_build::Config::new();
    // By which the codec finds what a message may have in it.
    names.enable_type_names();
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::BoundedCodec")
        .compile_fds_with_config(descriptors, names)?;
    Ok(())
}

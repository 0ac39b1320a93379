//! Compiles the .proto files without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["orlop/tunnel/v1/tunnel.proto", "orlop/peer/v1/peer.proto"], ["proto"])?;
    // What is only passed on is not copied.
    tonic_prost_build::configure().bytes(".orlop.peer.v1").compile_fds(files)?;
    Ok(())
}

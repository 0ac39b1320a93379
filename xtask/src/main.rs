//! Project automation: tidy, layers, code generation.

mod codegen;

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("codegen") => codegen::run(arguments.get(1..).unwrap_or_default()),
        _ => bail!("usage: cargo run -p xtask -- codegen API_TYPES.json MERGE_METADATA.json"),
    }
}

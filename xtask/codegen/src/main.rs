//! Writes the schema engine's table: `codegen API_TYPES MERGE_METADATA OUT_TABLE OUT_DOCS`.
//!
//! Field names, types and texts come from k8s-openapi; protobuf numbers, Go types and default markers from
//! the first fact file; list types, merge keys and map types from the second; numbers of fields that are
//! newer than the first file from the sources of k8s-pb.

mod facts;
mod roots;
mod table;

use std::io::Write as _;

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [api_types, merge_metadata, out_table, out_docs] = arguments.as_slice() else {
        bail!("usage: codegen API_TYPES MERGE_METADATA OUT_TABLE OUT_DOCS");
    };
    let facts = facts::Facts::read(api_types, merge_metadata)?;
    let definitions = roots::definitions();
    let (table, docs) = table::write(&definitions, &facts)?;
    std::fs::write(out_table, table).with_context(|| format!("cannot write {out_table}"))?;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(docs.as_bytes())?;
    std::fs::write(out_docs, encoder.finish()?).with_context(|| format!("cannot write {out_docs}"))?;
    Ok(())
}

//! Custom resources: how soon a definition is ready, and what many of them cost in memory.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::load::quantile_ms;
use crate::process::{Cluster, pss_kib};
use crate::report::Row;
use crate::target::Connection;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// How long caches and indexes have to come to rest.
const REST: Duration = Duration::from_secs(10);

/// Defines `definitions` resources, makes `objects` objects of each, and compares the server's memory with what it was.
pub async fn run(port: u16, definitions: usize, objects: usize) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(&folder.path().join("data"), port, &["--nodes", "1"]).await?;
    tokio::time::sleep(REST).await;
    let memory = || pss_kib(cluster.target.pid) as f64 * 1024.0 / 1e6;
    let idle = memory();
    let mut connection = cluster.target.connect().await?;
    let mut ready = Vec::new();
    for number in 0..definitions {
        let began = Instant::now();
        create(&mut connection, DEFINITIONS, &definition(number)).await?;
        let path = path(number);
        while connection.expect(&Method::GET, &path, Bytes::new()).await.is_err() {
            if began.elapsed() > Duration::from_secs(10) {
                bail!("{path} is not served 10 s after its definition");
            }
        }
        ready.push(began.elapsed());
        for object in 0..objects {
            create(&mut connection, &path, &instance(number, object)).await?;
        }
    }
    tokio::time::sleep(REST).await;
    let cost = memory() - idle;
    ready.sort();
    let rows = vec![
        Row::plain("idle memory of the server (PSS)", idle, "MB"),
        Row::at_most(
            format!("{definitions} definitions with {objects} objects each, above that"),
            cost,
            20.0,
            "MB",
        ),
        Row::at_most(
            "a definition created → its resource listed, p99",
            quantile_ms(&ready, 0.99),
            1000.0,
            "ms",
        ),
    ];
    cluster.stop().await?;
    Ok(rows)
}

async fn create(connection: &mut Connection, path: &str, object: &Value) -> Result<()> {
    connection.expect(&Method::POST, path, object.to_string().into()).await?;
    Ok(())
}

fn path(number: usize) -> String {
    format!("/apis/bench.example.com/v1/namespaces/default/parts{number}")
}

/// A definition of the usual size: some fields, checks, columns and a status.
fn definition(number: usize) -> Value {
    let text = json!({"type": "string", "maxLength": 64});
    let spec = json!({"type": "object", "required": ["size"], "properties": {
        "size": {"type": "integer", "minimum": 0, "default": 1},
        "image": text,
        "mode": {"type": "string", "enum": ["fast", "safe"]},
        "selector": {"type": "object", "additionalProperties": text},
        "ports": {"type": "array", "items": {"type": "object", "properties": {"name": text, "port": {"type": "integer"}}}}}});
    let status = json!({"type": "object", "properties": {
        "ready": {"type": "integer"},
        "conditions": {"type": "array", "items": {"type": "object", "properties": {"type": text, "status": text, "reason": text}}}}});
    json!({"metadata": {"name": format!("parts{number}.bench.example.com")}, "spec": {
        "group": "bench.example.com", "scope": "Namespaced",
        "names": {"plural": format!("parts{number}"), "singular": format!("part{number}"), "kind": format!("Part{number}")},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}}}]}})
}

fn instance(number: usize, object: usize) -> Value {
    json!({"apiVersion": "bench.example.com/v1", "kind": format!("Part{number}"),
        "metadata": {"name": format!("part-{object}"), "labels": {"app": "bench"}},
        "spec": {"size": object, "image": "example.com/part:1", "mode": "safe", "selector": {"app": "bench"},
            "ports": [{"name": "web", "port": 80}]}})
}

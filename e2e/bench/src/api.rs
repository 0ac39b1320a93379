//! The API server under load, beside the ceiling under the same load in the same run.

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use http::Method;

use crate::ceiling::Ceiling;
use crate::load::{self, Measured, Request};
use crate::process::Cluster;
use crate::report::Row;
use crate::target::Target;
use crate::watchers;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Requests of each single-object run.
    pub requests: u64,
    /// Requests of each list run.
    pub lists: u64,
    /// Creates of the fan-out.
    pub creates_watched: u64,
}

fn constant(method: Method, path: &'static str, body: Bytes) -> Request {
    Arc::new(move |_| (method.clone(), path.to_owned(), body.clone()))
}

fn config_map(prefix: &'static str) -> impl Fn(u64) -> Bytes + Send + Sync {
    let payload = "x".repeat(1024);
    move |number| {
        format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{prefix}-{number}"}},"data":{{"payload":"{payload}"}}}}"#
        )
        .into()
    }
}

fn create(prefix: &'static str) -> Request {
    let body = config_map(prefix);
    Arc::new(move |number| (Method::POST, CONFIG_MAPS.to_owned(), body(number)))
}

fn named(method: Method, prefix: &'static str) -> Request {
    Arc::new(move |number| (method.clone(), format!("{CONFIG_MAPS}/{prefix}-{number}"), Bytes::new()))
}

struct Ceilings {
    get: Measured,
    post: Measured,
    list: Measured,
    fan_out: watchers::FanOut,
}

async fn ceilings(target: &Target, size: Size) -> Result<Ceilings> {
    let payload = config_map("ceiling")(0);
    Ok(Ceilings {
        get: load::run(target, 64, size.requests, constant(Method::GET, "/object", Bytes::new())).await?,
        post: load::run(target, 64, size.requests, constant(Method::POST, "/object", payload.clone()))
            .await?,
        list: load::run(target, 8, size.lists, constant(Method::GET, "/list", Bytes::new())).await?,
        fan_out: watchers::run(
            target,
            100,
            8,
            size.creates_watched,
            "/watch",
            constant(Method::POST, "/object", payload),
        )
        .await?,
    })
}

/// Measures the ceiling alone.
pub async fn ceiling(size: Size) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let ceiling = Ceiling::start(folder.path()).await?;
    let measured = ceilings(&ceiling.target, size).await?;
    ceiling.stop().await?;
    Ok(ceiling_rows(&measured))
}

fn ceiling_rows(measured: &Ceilings) -> Vec<Row> {
    vec![
        Row::plain("ceiling GET, 64 clients", measured.get.per_second, "/s"),
        Row::plain("ceiling POST 1 KiB, 64 clients", measured.post.per_second, "/s"),
        Row::plain("ceiling LIST 1,000 objects, 8 clients", measured.list.per_second, "/s"),
        Row::plain("ceiling fan-out, 100 watchers, 8 creators", measured.fan_out.per_second, "deliveries/s"),
    ]
}

/// Measures the API server beside the ceiling.
pub async fn api(size: Size, port: u16) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let ceiling = Ceiling::start(folder.path()).await?;
    let bare = ceilings(&ceiling.target, size).await?;
    ceiling.stop().await?;
    let cluster =
        Cluster::start(&folder.path().join("data"), port, &["--nodes", "1", "--runtime", "hollow"]).await?;
    let measured = against(&cluster.target, size, &bare).await;
    cluster.stop().await?;
    let mut rows = ceiling_rows(&bare);
    rows.extend(measured?);
    Ok(rows)
}

async fn against(target: &Target, size: Size, bare: &Ceilings) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let single = load::run(target, 1, size.requests / 16, create("single")).await?;
    rows.push(Row::plain("durable create, 1 client", single.per_second, "/s"));
    rows.push(Row::plain("durable create, 1 client, p50", single.p50_ms, "ms"));
    let created = load::run(target, 64, size.requests, create("bench")).await?;
    rows.push(Row::plain("durable create 1 KiB, 64 clients", created.per_second, "/s"));
    rows.push(Row::at_least(
        "… share of the ceiling's POST",
        created.per_second / bare.post.per_second,
        0.25,
        "",
    ));
    rows.push(Row::plain("… p99", created.p99_ms, "ms"));
    rows.push(Row::plain("… server CPU", created.server_cpu_s * 1e6 / created.requests as f64, "µs each"));
    let got = load::run(target, 64, size.requests, named(Method::GET, "bench")).await?;
    rows.push(Row::plain("GET, 64 clients", got.per_second, "/s"));
    rows.push(Row::at_least("… share of the ceiling's GET", got.per_second / bare.get.per_second, 0.6, ""));
    rows.push(Row::plain("… p99", got.p99_ms, "ms"));
    let list = format!("{CONFIG_MAPS}?limit=1000");
    let request: Request = Arc::new(move |_| (Method::GET, list.clone(), Bytes::new()));
    let listed = load::run(target, 8, size.lists, request).await?;
    rows.push(Row::plain("LIST 1,000 objects, 8 clients", listed.per_second, "/s"));
    rows.push(Row::at_least(
        "… share of the ceiling's LIST",
        listed.per_second / bare.list.per_second,
        0.6,
        "",
    ));
    let watch = format!("{CONFIG_MAPS}?watch=true&resourceVersion={}", revision(target).await?);
    let fan_out = watchers::run(target, 100, 8, size.creates_watched, &watch, create("watched")).await?;
    rows.push(Row::plain("fan-out, 100 watchers, 8 creators", fan_out.per_second, "deliveries/s"));
    rows.push(Row::at_least(
        "… share of the ceiling's",
        fan_out.per_second / bare.fan_out.per_second,
        0.5,
        "",
    ));
    let deleted = load::run(target, 64, size.requests, named(Method::DELETE, "bench")).await?;
    rows.push(Row::plain("delete, 64 clients", deleted.per_second, "/s"));
    Ok(rows)
}

/// The newest revision, from a list that names no object.
async fn revision(target: &Target) -> Result<String> {
    let path = format!("{CONFIG_MAPS}?limit=1");
    let body = target.connect().await?.expect(&Method::GET, &path, Bytes::new()).await?;
    let list: serde_json::Value = serde_json::from_slice(&body)?;
    Ok(list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned())
}

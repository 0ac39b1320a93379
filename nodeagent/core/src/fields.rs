//! Fields of a pod as `fieldRef` and `resourceFieldRef` name them.

use std::net::IpAddr;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::{cgroup, pod};

/// What field references may look at.
#[derive(Clone, Copy, Debug)]
pub struct FieldContext<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its addresses.
    pub pod_ips: &'a [IpAddr],
    /// The node's addresses.
    pub host_ips: &'a [IpAddr],
    /// The node's name.
    pub node_name: &'a str,
    /// What the node can give, in thousandths of a core; the default for a limit that is not set.
    pub node_cpu_milli: i64,
    /// What the node can give, in bytes.
    pub node_memory: i64,
}

/// A reference that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such field.
    #[error("unsupported fieldPath: {0}")]
    Path(String),
    /// There is no such container.
    #[error("container {0} not found")]
    Container(String),
    /// There is no such resource.
    #[error("unsupported container resource : {0}")]
    Resource(String),
}

/// The value of a field.
///
/// # Errors
/// When there is no such field.
pub fn field(context: &FieldContext<'_>, path: &str) -> Result<String, Error> {
    let meta = &context.pod.metadata;
    let spec = pod::spec(context.pod);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let list = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let pod_ips = if pod::host_network(context.pod) { context.host_ips } else { context.pod_ips };
    if let Some((map, key)) = subscript(path) {
        let values = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(Error::Path(path.to_owned())),
        };
        return Ok(values.as_ref().and_then(|values| values.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => lines(meta.labels.iter().flatten()),
        "metadata.annotations" => lines(meta.annotations.iter().flatten()),
        "spec.nodeName" => context.node_name.to_owned(),
        "spec.serviceAccountName" => text(&spec.service_account_name),
        "status.hostIP" => first(context.host_ips),
        "status.hostIPs" => list(context.host_ips),
        "status.podIP" => first(pod_ips),
        "status.podIPs" => list(pod_ips),
        _ => return Err(Error::Path(path.to_owned())),
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

fn lines<'a>(entries: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let lines: Vec<_> = entries.map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

/// In double quotes, as Go quotes.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a request or limit, divided and rounded up. `own`: the container when none is named.
///
/// # Errors
/// When there is no such container or resource.
pub fn resource(
    context: &FieldContext<'_>,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
) -> Result<String, Error> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => pod::container(context.pod, name),
        None => own,
    }
    .ok_or_else(|| Error::Container(named.unwrap_or_default().to_owned()))?;
    let unknown = || Error::Resource(selector.resource.clone());
    let (list, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let resources = container.resources.as_ref();
    let limits = resources.map_or(&None, |it| &it.limits);
    let requests = resources.map_or(&None, |it| &it.requests);
    let stated = match list {
        "limits" => cgroup::amount(limits, name).filter(|it| !it.is_zero()),
        "requests" => cgroup::amount(requests, name),
        _ => return Err(unknown()),
    };
    let default = |milli: bool| match (list, milli) {
        ("limits", true) => context.node_cpu_milli,
        ("limits", false) if name == "memory" => context.node_memory,
        _ => 0,
    };
    let divisor: Option<Quantity> = selector.divisor.as_ref().and_then(|it| it.0.parse().ok());
    let divisor = divisor.filter(|it: &Quantity| !it.is_zero());
    let (amount, unit) = if name == "cpu" {
        (
            stated.map_or_else(|| default(true), |it| it.milli_value()),
            divisor.map_or(1000, |it| it.milli_value()),
        )
    } else {
        (stated.map_or_else(|| default(false), |it| it.value()), divisor.map_or(1, |it| it.value()))
    };
    let unit = unit.max(1);
    Ok((amount / unit + i64::from(amount % unit > 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b\"c", "x": "y"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "10Mi"}}}]},
        }))
        .expect("a pod");
        let ips = ["10.0.0.1".parse().expect("an address")];
        let context = FieldContext {
            pod: &pod,
            pod_ips: &ips,
            host_ips: &[],
            node_name: "node-1",
            node_cpu_milli: 2000,
            node_memory: 1 << 30,
        };
        let check =
            |path: &str, expected: &str| assert_eq!(field(&context, path).as_deref(), Ok(expected), "{path}");
        check("metadata.name", "p");
        check("metadata.labels", "a=\"b\\\"c\"\nx=\"y\"");
        check("metadata.labels['x']", "y");
        check("status.podIPs", "10.0.0.1");
        assert!(field(&context, "spec.foo").is_err());
        let own = Some(&pod::spec(&pod).containers[0]);
        let check = |resource: &str, divisor: &str, expected: &str| {
            let selector = ResourceFieldSelector {
                container_name: None,
                divisor: Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity(divisor.into())),
                resource: resource.into(),
            };
            assert_eq!(super::resource(&context, own, &selector).as_deref(), Ok(expected), "{resource}");
        };
        check("limits.cpu", "0", "2");
        check("limits.cpu", "1m", "1500");
        check("requests.memory", "1Mi", "10");
        check("limits.memory", "1Mi", "1024");
    }
}

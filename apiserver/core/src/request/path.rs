//! Takes a path apart the way every Kubernetes client puts it together.

use http::Method;

use super::{Options, RequestInfo, Verb};
use crate::response::Response;

/// Subresources that hang below the namespace object itself.
const NAMESPACE_SUBRESOURCES: &[&str] = &["status", "finalize"];

/// Reads method, path and query.
pub(super) fn parse(method: &Method, path: &str, query: &str) -> Result<RequestInfo, Box<Response>> {
    let read = parse_query(query).and_then(|query| Ok((Options::parse(&query)?, query)));
    let (options, parameters, refusal) = match read {
        Ok((options, parameters)) => (options, parameters, None),
        Err(refusal) => (Options::default(), Vec::new(), Some(refusal)),
    };
    let mut info = RequestInfo {
        method: method.clone(),
        path: path.to_owned(),
        verb: bare_verb(method),
        is_resource: false,
        group: String::new(),
        version: String::new(),
        resource: String::new(),
        subresource: String::new(),
        rest: String::new(),
        namespace: String::new(),
        name: String::new(),
        options,
        raw_query: query.to_owned(),
        query: parameters,
    };
    let parts = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| decode(part, false))
        .collect::<Option<Vec<String>>>()
        .ok_or_else(|| Box::new(Response::bad_request("the path has an invalid percent encoding")))?;
    let below = match parts.first().map(String::as_str) {
        Some("api") if parts.len() > 2 => {
            info.version.clone_from(&parts[1]);
            2
        }
        Some("apis") if parts.len() > 3 => {
            info.group.clone_from(&parts[1]);
            info.version.clone_from(&parts[2]);
            3
        }
        _ => return refusal.map_or(Ok(info), Err),
    };
    let named = below + resource(&mut info, &parts[below..]);
    match refusal {
        // The query is the backend's to read.
        Some(refusal) if info.subresource != "proxy" => Err(refusal),
        _ => {
            info.rest = after(path, named).to_owned();
            Ok(info)
        }
    }
}

/// What follows the first `count` segments of a path.
fn after(path: &str, count: usize) -> &str {
    let mut rest = path;
    for _ in 0..count {
        rest = rest.trim_start_matches('/');
        rest = rest.find('/').map_or("", |end| &rest[end..]);
    }
    rest
}

/// Reads what follows the version; answers with the number of segments that name the resource, its object and subresource.
fn resource(info: &mut RequestInfo, mut parts: &[String]) -> usize {
    let all = parts.len();
    info.is_resource = true;
    let mut watch = info.flag("watch");
    if parts[0] == "watch" && parts.len() > 1 {
        watch = true;
        parts = &parts[1..];
    }
    if parts[0] == "namespaces" && parts.len() > 1 {
        info.namespace.clone_from(&parts[1]);
        if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2].as_str()) {
            parts = &parts[2..];
        }
    }
    info.resource.clone_from(&parts[0]);
    if let Some(name) = parts.get(1) {
        info.name.clone_from(name);
    }
    if let Some(subresource) = parts.get(2) {
        info.subresource.clone_from(subresource);
    }
    info.verb = match (info.verb, info.name.is_empty()) {
        (Verb::Get | Verb::Head, true) if watch => Verb::Watch,
        (Verb::Get | Verb::Head, true) => Verb::List,
        (Verb::Get | Verb::Head, false) if watch && info.subresource.is_empty() => Verb::Watch,
        (Verb::Head, false) => Verb::Get,
        (Verb::Delete, true) => Verb::DeleteCollection,
        (verb, _) => verb,
    };
    let collection = matches!(info.verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
    if collection
        && info.name.is_empty()
        && let Some(name) = field_name(&info.options.field_selector)
    {
        info.name = name;
    }
    all - parts.len().saturating_sub(3)
}

/// The name that a field selector `metadata.name=x` pins: authorization sees it as the object's name.
fn field_name(selector: &str) -> Option<String> {
    selector.split(',').find_map(|term| {
        let value = term.trim().strip_prefix("metadata.name=")?;
        let value = value.strip_prefix('=').unwrap_or(value);
        (!value.is_empty()).then(|| value.to_owned())
    })
}

fn bare_verb(method: &Method) -> Verb {
    match *method {
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE => Verb::Delete,
        Method::HEAD => Verb::Head,
        Method::OPTIONS => Verb::Options,
        Method::GET => Verb::Get,
        _ => Verb::Other,
    }
}

fn parse_query(query: &str) -> Result<Vec<(String, String)>, Box<Response>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(key, true)?, decode(value, true)?))
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Box::new(Response::bad_request("the query has an invalid percent encoding")))
}

/// Undoes percent encoding (and `+` for a space, in a query).
fn decode(text: &str, query: bool) -> Option<String> {
    let plain = |c: char| c != '%' && (c != '+' || !query);
    if text.chars().all(plain) {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                out.push((high * 16 + low) as u8);
            }
            b'+' if query => out.push(b' '),
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let (method, target) = line.split_once(' ').expect("method and path");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method: Method = method.parse().expect("method");
        let info = parse(&method, path, query).expect("parses");
        let found = format!(
            "{} {} {}/{}/{}/{} {}/{}",
            info.verb.as_str(),
            if info.is_resource { "resource" } else { "path" },
            info.group,
            info.version,
            info.resource,
            info.subresource,
            info.namespace,
            info.name,
        );
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn reads_paths() {
        check("GET /healthz", "get path /// /");
        check("GET /api/v1", "get path /// /");
        check("GET /apis/apps/v1", "get path /// /");
        check("GET /api/v1/pods", "list resource /v1/pods/ /");
        check("GET /api/v1/pods?watch=1", "watch resource /v1/pods/ /");
        check("GET /api/v1/watch/pods", "watch resource /v1/pods/ /");
        check("GET /api/v1/namespaces", "list resource /v1/namespaces/ /");
        check("GET /api/v1/namespaces/a", "get resource /v1/namespaces/ a/a");
        check("PUT /api/v1/namespaces/a/finalize", "update resource /v1/namespaces/finalize a/a");
        check("GET /api/v1/namespaces/a/pods/b/log", "get resource /v1/pods/log a/b");
        check("DELETE /api/v1/namespaces/a/pods", "deletecollection resource /v1/pods/ a/");
        check(
            "PATCH /apis/apps/v1/namespaces/a/deployments/b/scale",
            "patch resource apps/v1/deployments/scale a/b",
        );
        check("GET /api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Db", "list resource /v1/pods/ a/b");
        check("GET /api/v1/nodes/system%3Ax", "get resource /v1/nodes/ /system:x");
        check("GET /api/v1/pods?watch", "watch resource /v1/pods/ /");
        check("GET /api/v1/pods?watch=false", "list resource /v1/pods/ /");
        check("PROPFIND /api/v1/namespaces/a/pods/b/proxy/x", " resource /v1/pods/proxy a/b");
    }

    #[test]
    fn what_a_proxy_passes_on_is_left_as_it_is() {
        let check = |target: &str, expected: &str| {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let info = parse(&Method::GET, path, query).expect("parses");
            assert_eq!(format!("{} {} {}", info.name, info.rest, info.raw_query), expected, "{target}");
        };
        check("/api/v1/namespaces/a/pods/b/proxy", "b  ");
        check("/api/v1/namespaces/a/pods/b/proxy/", "b / ");
        check(
            "/api/v1//namespaces/a/pods/b:80/proxy//x/%2F/../y/?limit=%zz&b",
            "b:80 //x/%2F/../y/ limit=%zz&b",
        );
        check("/api/v1/nodes/n/proxy/pods/", "n /pods/ ");
        check("/api/v1/namespaces/a/services/https%3Ab%3Aweb/proxy/?dryRun=x", "https:b:web / dryRun=x");
    }

    #[test]
    fn refuses_bad_encodings() {
        assert!(parse(&Method::GET, "/api/v1/nodes/%zz", "").is_err());
        assert!(parse(&Method::GET, "/api/v1/nodes", "limit=%").is_err());
    }
}

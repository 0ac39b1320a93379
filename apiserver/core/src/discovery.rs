//! Discovery: which groups, versions and resources there are.

use api::catalogue::{Group, Resource, api_version};
use http::StatusCode;
use serde_json::{Value, json};

use crate::failure::{self, Refused};
use crate::negotiate::{self, Form};
use crate::request::{Request, Verb};
use crate::response::Response;
use crate::world::World;

/// Answers a request for a path that is no resource.
pub(crate) fn respond(world: &World<'_>, request: &Request) -> Result<Response, Refused> {
    let info = &request.info;
    if !matches!(info.verb, Verb::Get | Verb::Head) {
        return Err(failure::no_such_path());
    }
    let all = world.groups();
    let parts: Vec<&str> = info.path.split('/').filter(|part| !part.is_empty()).collect();
    let document = match parts.as_slice() {
        ["version"] => version(world),
        ["api"] => match aggregated_form(request)? {
            Some(form) => return Ok(aggregated(world, &all, form, |group| group.name.is_empty())),
            None => legacy(world),
        },
        ["apis"] => match aggregated_form(request)? {
            Some(form) => return Ok(aggregated(world, &all, form, |group| !group.name.is_empty())),
            None => groups(&all),
        },
        ["apis", name] => {
            all.iter().find(|group| group.name == *name).map(group).ok_or_else(failure::no_such_path)?
        }
        ["api", version] => resources(world, "", version)?,
        ["apis", group, version] => resources(world, group, version)?,
        [".well-known", "openid-configuration"] => issuer(world),
        ["openid", "v1", "jwks"] => {
            json!({"keys": world.config.signing_keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()})
        }
        [] => paths(&all),
        _ => return Err(failure::no_such_path()),
    };
    Ok(Response::document(StatusCode::OK, &document))
}

fn version(world: &World<'_>) -> Value {
    let served = &world.config.kubernetes_version;
    let mut numbers = served.split('.');
    json!({
        "major": numbers.next().unwrap_or_default(),
        "minor": numbers.next().unwrap_or_default(),
        "gitVersion": format!("v{served}+orlop"),
        "gitCommit": world.config.program_version,
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": concat!("linux/", "amd64"),
    })
}

fn legacy(world: &World<'_>) -> Value {
    let address = world.config.advertise.first().map(|(ip, port)| format!("{ip}:{port}")).unwrap_or_default();
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]})
}

fn group(group: &Group) -> Value {
    let shown =
        |version: &str| json!({"groupVersion": api_version(&group.name, version), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(|version| shown(version)).collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": group.name, "versions": versions,
        "preferredVersion": preferred})
}

fn groups(all: &[Group]) -> Value {
    let groups: Vec<Value> = all
        .iter()
        .filter(|group| !group.name.is_empty())
        .map(|g| {
            let mut shown = group(g);
            if let Some(map) = shown.as_object_mut() {
                map.remove("kind");
                map.remove("apiVersion");
            }
            shown
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn resources(world: &World<'_>, group: &str, version: &str) -> Result<Value, Refused> {
    let mut all = Vec::new();
    for resource in world.of_version(group, version) {
        all.push(resource_of(resource));
        all.extend(resource.subresources.iter().map(|sub| {
            let mut shown = json!({
                "name": format!("{}/{}", resource.plural, sub.name),
                "singularName": "",
                "namespaced": resource.namespaced(),
                "kind": sub.kind,
                "verbs": sub.verbs.iter().map(|verb| verb.as_str()).collect::<Vec<_>>(),
            });
            if (&sub.group, &sub.version) != (&resource.group, &resource.version) {
                shown["group"] = json!(sub.group);
                shown["version"] = json!(sub.version);
            }
            shown
        }));
    }
    if all.is_empty() {
        return Err(failure::no_such_path());
    }
    all.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Ok(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version),
        "resources": all}))
}

fn resource_of(resource: &Resource) -> Value {
    let mut shown = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced(),
        "kind": resource.kind,
        "verbs": resource.verbs.iter().map(|verb| verb.as_str()).collect::<Vec<_>>(),
    });
    if !resource.short_names.is_empty() {
        shown["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        shown["categories"] = json!(resource.categories);
    }
    shown
}

fn aggregated_form(request: &Request) -> Result<Option<Form>, Refused> {
    let form = negotiate::accept(&request.headers, false)?.form;
    Ok(matches!(form, Form::DiscoveryV2 | Form::DiscoveryV2Beta1).then_some(form))
}

fn aggregated(world: &World<'_>, all: &[Group], form: Form, wanted: impl Fn(&Group) -> bool) -> Response {
    let (version, content_type) = match form {
        Form::DiscoveryV2Beta1 => {
            ("v2beta1", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList")
        }
        _ => ("v2", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
    };
    let items: Vec<Value> =
        all.iter().filter(|group| wanted(group)).map(|group| group_discovery(world, group)).collect();
    let document = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items});
    Response { content_type, ..Response::document(StatusCode::OK, &document) }
}

fn group_discovery(world: &World<'_>, group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> =
                world.of_version(&group.name, version).map(resource_discovery).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let mut metadata = json!({"creationTimestamp": null});
    if !group.name.is_empty() {
        metadata["name"] = json!(group.name);
    }
    json!({"metadata": metadata, "versions": versions})
}

fn resource_discovery(resource: &Resource) -> Value {
    let verbs =
        |verbs: &[api::catalogue::Verb]| json!(verbs.iter().map(|verb| verb.as_str()).collect::<Vec<_>>());
    let mut shown = json!({
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": if resource.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": verbs(&resource.verbs),
    });
    if !resource.short_names.is_empty() {
        shown["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        shown["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        shown["subresources"] = resource
            .subresources
            .iter()
            .map(|sub| {
                json!({"subresource": sub.name, "verbs": verbs(&sub.verbs),
                    "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind}})
            })
            .collect();
    }
    shown
}

fn issuer(world: &World<'_>) -> Value {
    let issuer = &world.config.issuer;
    json!({"issuer": issuer, "jwks_uri": format!("{issuer}/openid/v1/jwks"), "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["EdDSA"]})
}

fn paths(all: &[Group]) -> Value {
    let mut paths: Vec<String> = [
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for group in all.iter().filter(|group| !group.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|version| format!("/apis/{}/{version}", group.name)));
    }
    paths.sort();
    json!({"paths": paths})
}

//! Reads the body of a request into a document, and complains about it as strictly as the client asked.

use api::catalogue::Resource;
use api::json::MAX_DEPTH;
use api::schema::{Schemas, TypeId};
use api::status::Status;
use serde_json::Value;

use crate::failure::{self, Refused};
use crate::request::{FieldValidation, Request};

/// What bodies may be written in.
pub(crate) const ACCEPTED: &[&str] =
    &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// A body, decoded.
pub(crate) struct Decoded {
    /// The document, without what its schema does not know.
    pub object: Value,
    /// What was dropped or doubled, worded for `Warning` headers.
    pub warnings: Vec<String>,
}

/// The kind that a body must be of.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    /// The table that the type is in.
    pub schemas: &'a Schemas,
    pub schema: TypeId,
}

// === impl Expected ===

impl<'a> Expected<'a> {
    pub fn of(resource: &'a Resource) -> Expected<'a> {
        Expected {
            group: &resource.group,
            version: &resource.version,
            kind: &resource.kind,
            schemas: resource.schemas(),
            schema: resource.schema,
        }
    }

    pub fn api_version(&self) -> String {
        api::catalogue::api_version(self.group, self.version).into_owned()
    }
}

/// The media type of the body, without parameters.
pub(crate) fn media_type(request: &Request) -> &str {
    let value = request.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.split(';').next()).map_or("", str::trim)
}

/// Reads a whole object.
pub(crate) fn read(request: &Request, expected: Expected<'_>) -> Result<Decoded, Refused> {
    let mut warnings = Vec::new();
    let mut object = document(request, &mut warnings)?;
    identify(&mut object, expected)?;
    decode(request, expected, &mut object, &mut warnings)?;
    Ok(Decoded { object, warnings })
}

/// Parses the body in the format that its content type names. Doubled fields go to `warnings`.
pub(crate) fn document(request: &Request, warnings: &mut Vec<String>) -> Result<Value, Refused> {
    let bytes = &request.body;
    match media_type(request) {
        "application/json" | "" | "*/*" => json(bytes, warnings),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml(bytes),
        "application/vnd.kubernetes.protobuf" => crate::kinds::protobuf(bytes).and_then(bounded),
        _ => Err(Status::unsupported_media_type(ACCEPTED).into()),
    }
}

/// The document, when it is nested no deeper than one in JSON may be.
fn bounded(document: Value) -> Result<Value, Refused> {
    match api::json::depth(&document) > MAX_DEPTH {
        true => Err(failure::bad_request("the object provided is nested too deeply: exceeded max depth")),
        false => Ok(document),
    }
}

/// Parses JSON. A body that begins like YAML is not refused more kindly than Kubernetes does it.
pub(crate) fn json(bytes: &[u8], warnings: &mut Vec<String>) -> Result<Value, Refused> {
    let parsed = api::json::parse(bytes).map_err(|error| {
        failure::bad_request(&format!("the object provided is unrecognized (must be of type JSON): {error}"))
    })?;
    warnings.extend(parsed.duplicates.iter().map(|path| format!("duplicate field \"{path}\"")));
    Ok(parsed.value)
}

/// Parses YAML as kubectl reads it.
pub(crate) fn yaml(bytes: &[u8]) -> Result<Value, Refused> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| failure::bad_request("error converting YAML to JSON: the body is not UTF-8"))?;
    let options = serde_saphyr::options! { legacy_octal_numbers: true, strict_booleans: false };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| failure::bad_request(&format!("error converting YAML to JSON: {error}")))
        .and_then(bounded)
}

/// Checks `apiVersion` and `kind`, or fills them in.
fn identify(object: &mut Value, expected: Expected<'_>) -> Result<(), Refused> {
    let wanted = expected.api_version();
    let Value::Object(map) = object else {
        return Err(failure::bad_request("the object provided is unrecognized (must be a JSON object)"));
    };
    let text = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if !kind.is_empty() && kind != expected.kind {
        let found = version.rsplit('/').next().unwrap_or_default();
        return Err(failure::bad_request(&format!(
            "{kind} in version {found:?} cannot be handled as a {}: the kind in the data ({kind}) does not match the expected kind ({})",
            expected.kind, expected.kind
        )));
    }
    // Clients from before Kubernetes 1.22 evict so, and the API servers of today still take it.
    let evicts = expected.kind == "Eviction" && version == "policy/v1beta1";
    if !version.is_empty() && version != wanted && !evicts {
        return Err(failure::bad_request(&format!(
            "the API version in the data ({version}) does not match the expected API version ({wanted})"
        )));
    }
    map.insert("apiVersion".into(), wanted.into());
    map.insert("kind".into(), expected.kind.into());
    Ok(())
}

/// Holds a document against its schema: what is unknown is dropped and told, what is wrong is refused.
pub(crate) fn decode(
    request: &Request,
    expected: Expected<'_>,
    object: &mut Value,
    warnings: &mut Vec<String>,
) -> Result<(), Refused> {
    let found = expected.schemas.decode(expected.schema, object);
    if !found.errors.is_empty() {
        let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(Status::cannot_decode(expected.kind, expected.version, why.join("; ")).into());
    }
    warnings.extend(found.unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    match request.info.options.field_validation {
        FieldValidation::Ignore => warnings.clear(),
        FieldValidation::Warn => {}
        FieldValidation::Strict if warnings.is_empty() => {}
        FieldValidation::Strict => {
            let why = format!("strict decoding error: {}", warnings.join(", "));
            return Err(Status::cannot_decode(expected.kind, expected.version, why).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::catalogue::Catalogue;
    use api::schema;
    use http::{HeaderMap, Method};
    use serde_json::json;

    use super::*;
    use crate::RequestInfo;

    #[test]
    fn protobuf_bodies_are_read_by_the_same_schema() {
        let resource = Catalogue::builtin().resource("", "v1", "configmaps").expect("configmaps");
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1"}});
        let bytes = api::protobuf::encode_object(schema::builtin(), resource.schema, &object);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/vnd.kubernetes.protobuf".parse().expect("header"));
        let info =
            RequestInfo::parse(&Method::POST, "/api/v1/namespaces/default/configmaps", "").expect("info");
        let request = Request { info, headers, body: bytes.into() };
        let decoded = read(&request, Expected::of(resource)).expect("decodes");
        assert_eq!(decoded.object["data"], object["data"]);
        assert_eq!(decoded.object["metadata"]["name"], "a");
    }
}

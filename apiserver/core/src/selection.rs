//! Which objects of a collection are meant: label and field selectors, read from the objects' bytes.

use std::borrow::Cow;

use api::catalogue::Resource;
use api::selector::{FieldSelector, LabelSelector, Labels};

use crate::failure::{self, Refused};
use crate::request::Options;
use crate::scan;

/// A conjunction of label and field requirements.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    labels: LabelSelector,
    fields: Vec<Field>,
    namespaced: bool,
}

#[derive(Clone, Debug)]
struct Field {
    source: Source,
    equal: bool,
    value: String,
}

#[derive(Clone, Debug)]
enum Source {
    Name,
    Namespace,
    /// A path into the object; what an absent value counts as.
    Path(Vec<String>, &'static str),
}

/// The fields that selectors may name besides the object's name and namespace:
/// (group, resource, [(field, path, value when absent)]).
type Fields = &'static [(&'static str, &'static str, &'static str)];

const POD: Fields = &[
    ("spec.nodeName", "", ""),
    ("spec.restartPolicy", "", ""),
    ("spec.schedulerName", "", ""),
    ("spec.serviceAccountName", "", ""),
    ("spec.hostNetwork", "", "false"),
    ("status.phase", "", ""),
    ("status.podIP", "", ""),
    ("status.nominatedNodeName", "", ""),
];

const EVENT: Fields = &[
    ("involvedObject.kind", "", ""),
    ("involvedObject.namespace", "", ""),
    ("involvedObject.name", "", ""),
    ("involvedObject.uid", "", ""),
    ("involvedObject.apiVersion", "", ""),
    ("involvedObject.resourceVersion", "", ""),
    ("involvedObject.fieldPath", "", ""),
    ("regarding.kind", "involvedObject.kind", ""),
    ("regarding.namespace", "involvedObject.namespace", ""),
    ("regarding.name", "involvedObject.name", ""),
    ("regarding.uid", "involvedObject.uid", ""),
    ("regarding.apiVersion", "involvedObject.apiVersion", ""),
    ("regarding.resourceVersion", "involvedObject.resourceVersion", ""),
    ("regarding.fieldPath", "involvedObject.fieldPath", ""),
    ("reason", "", ""),
    ("reportingComponent", "", ""),
    ("reportingController", "reportingComponent", ""),
    ("source", "source.component", ""),
    ("type", "", ""),
];

fn supported(resource: &Resource) -> Fields {
    match (&*resource.group, &*resource.plural) {
        ("", "pods") => POD,
        ("" | "events.k8s.io", "events") => EVENT,
        ("", "nodes") => &[("spec.unschedulable", "", "false")],
        ("", "namespaces") => &[("status.phase", "", "")],
        ("", "secrets") => &[("type", "", "")],
        ("", "services") => &[("spec.clusterIP", "", ""), ("spec.type", "", "")],
        ("", "replicationcontrollers") => &[("status.replicas", "", "0")],
        ("batch", "jobs") => &[("status.successful", "status.succeeded", "0")],
        ("certificates.k8s.io", "certificatesigningrequests" | "clustertrustbundles") => {
            &[("spec.signerName", "", "")]
        }
        ("certificates.k8s.io", "podcertificaterequests") => {
            &[("spec.signerName", "", ""), ("spec.podName", "", ""), ("spec.nodeName", "", "")]
        }
        ("resource.k8s.io", "resourceslices") => &[("spec.nodeName", "", ""), ("spec.driver", "", "")],
        ("apps", "replicasets") => &[("status.replicas", "", "0")],
        _ => &[],
    }
}

/// Labels as the scanner finds them.
struct Scanned<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl Labels for Scanned<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_ref())
    }
}

// === impl Selection ===

impl Selection {
    /// The selection that a request's options describe.
    pub fn parse(resource: &Resource, options: &Options) -> Result<Selection, Refused> {
        let labels = LabelSelector::parse(&options.label_selector)
            .map_err(|error| failure::bad_request(&format!("unable to parse labelSelector: {error}")))?;
        let selector = FieldSelector::parse(&options.field_selector)
            .map_err(|error| failure::bad_request(&error.to_string()))?;
        let fields = selector.requirements().iter().map(|requirement| {
            let source = source(resource, &requirement.field)?;
            Ok::<_, Refused>(Field { source, equal: requirement.equal, value: requirement.value.clone() })
        });
        Ok(Selection { labels, fields: fields.collect::<Result<_, _>>()?, namespaced: resource.namespaced() })
    }

    /// Whether nothing but the name and the namespace of an object decides.
    pub fn is_by_name(&self) -> bool {
        let named = |field: &Field| matches!(field.source, Source::Name | Source::Namespace);
        self.labels.is_everything() && self.fields.iter().all(named)
    }

    /// Whether every object is meant.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    /// The node whose pods are meant, if the fields say so.
    pub fn node(&self) -> Option<&str> {
        self.pinned(|source| matches!(source, Source::Path(path, _) if path.join(".") == "spec.nodeName"))
    }

    /// The one name that is meant, if the fields say so.
    pub fn name(&self) -> Option<&str> {
        self.pinned(|source| matches!(source, Source::Name))
    }

    fn pinned(&self, is: impl Fn(&Source) -> bool) -> Option<&str> {
        self.fields.iter().find(|f| f.equal && !f.value.is_empty() && is(&f.source)).map(|f| f.value.as_str())
    }

    /// Whether the object at `key` with these bytes is meant.
    pub fn matches(&self, key: &[u8], object: &[u8]) -> bool {
        self.fields.iter().all(|field| self.field_matches(field, key, object))
            && (self.labels.is_everything()
                || self.labels.matches(&Scanned(scan::strings(object, &["metadata", "labels"]))))
    }

    fn field_matches(&self, field: &Field, key: &[u8], object: &[u8]) -> bool {
        let is = match &field.source {
            Source::Name => segment(key, 0) == field.value.as_bytes(),
            Source::Namespace if !self.namespaced => field.value.is_empty(),
            Source::Namespace => segment(key, 1) == field.value.as_bytes(),
            Source::Path(path, absent) => {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                scan::scalar(object, &path).as_deref().unwrap_or(absent) == field.value
            }
        };
        is == field.equal
    }
}

fn source(resource: &Resource, field: &str) -> Result<Source, Refused> {
    match field {
        "metadata.name" => return Ok(Source::Name),
        "metadata.namespace" => return Ok(Source::Namespace),
        _ => {}
    }
    if resource.custom.as_ref().is_some_and(|custom| custom.selectable.iter().any(|known| &**known == field))
    {
        return Ok(Source::Path(field.split('.').map(str::to_owned).collect(), ""));
    }
    let (_, path, absent) = supported(resource)
        .iter()
        .find(|(name, ..)| *name == field)
        .ok_or_else(|| failure::bad_request(&format!("field label not supported: {field}")))?;
    let path = if path.is_empty() { field } else { path };
    Ok(Source::Path(path.split('.').map(str::to_owned).collect(), absent))
}

/// The `from_end`th segment of a key, counted from its end.
fn segment(key: &[u8], from_end: usize) -> &[u8] {
    key.rsplit(|byte| *byte == b'/').nth(from_end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use api::catalogue::Catalogue;

    use super::*;

    fn check(labels: &str, fields: &str, expected: bool) {
        let pods = Catalogue::builtin().resource("", "v1", "pods").expect("pods");
        let options =
            Options { label_selector: labels.into(), field_selector: fields.into(), ..Options::default() };
        let selection = Selection::parse(pods, &options).expect("parses");
        let pod =
            br#"{"metadata":{"labels":{"app":"web"}},"spec":{"nodeName":"n1"},"status":{"phase":"Running"}}"#;
        assert_eq!(selection.matches(b"/core/pods/default/web-1", pod), expected, "{labels} {fields}");
    }

    #[test]
    fn selects_by_labels_and_fields() {
        check("", "", true);
        check("app=web", "", true);
        check("app in (a,b)", "", false);
        check("!tier,app", "", true);
        check("", "metadata.name=web-1,metadata.namespace=default", true);
        check("", "metadata.namespace!=default", false);
        check("", "spec.nodeName=n1,status.phase!=Failed", true);
        check("", "spec.hostNetwork=false", true);
        check("app=web", "spec.nodeName=", false);
    }

    #[test]
    fn refuses_unknown_fields() {
        let pods = Catalogue::builtin().resource("", "v1", "pods").expect("pods");
        let options = Options { field_selector: "spec.x=y".into(), ..Options::default() };
        assert!(Selection::parse(pods, &options).is_err());
    }
}

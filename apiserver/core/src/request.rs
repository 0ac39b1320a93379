//! Reads a request line: which verb on which resource, with which options.

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::response::Response;

mod options;
mod path;

pub use options::{DeletionPropagation, FieldValidation, Options, VersionMatch};
pub(crate) use options::{dry_run, propagation};

/// A request as the shell hands it over.
#[derive(Clone, Debug)]
pub struct Request {
    /// What the request line says.
    pub info: RequestInfo,
    /// The headers; only `accept`, `content-type`, `user-agent` and our own are looked at.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Read one object, or a path that is no resource.
    Get,
    /// Read a collection.
    List,
    /// Follow a collection.
    Watch,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch,
    /// DELETE of one object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
    /// HEAD of a path that is no resource.
    Head,
    /// OPTIONS of a path that is no resource.
    Options,
    /// A method that no verb stands for: only who may do everything may send it, and only a backend understands it.
    Other,
}

/// A parsed request line.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// The HTTP method.
    pub method: Method,
    /// The path without the query.
    pub path: String,
    /// The verb, as authorization names it.
    pub verb: Verb,
    /// Whether the path names a resource; the fields below are empty otherwise.
    pub is_resource: bool,
    /// The API group, empty for the core group.
    pub group: String,
    /// The API version.
    pub version: String,
    /// The plural name of the resource.
    pub resource: String,
    /// What follows the object's name, as `status`.
    pub subresource: String,
    /// What follows the subresource (`proxy`) in the path, as it was sent: empty or with a leading slash.
    pub rest: String,
    /// The namespace; for a Namespace itself, its name.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The query's options.
    pub options: Options,
    /// The query as it was sent, without the `?`.
    pub raw_query: String,
    /// Every parameter of the query, decoded, in order.
    pub query: Vec<(String, String)>,
}

/// How new the snapshot must be that a request is planned on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Whatever this member has (`resourceVersion=0`, and writes, which are compared anyway).
    Any,
    /// Everything acknowledged before the request began.
    Latest,
    /// At least this revision.
    NotOlderThan(u64),
    /// Exactly this revision (`resourceVersionMatch=Exact`, or a continued list).
    Exact(u64),
}

// === impl Verb ===

impl Verb {
    /// The word that RBAC rules use.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Head => "head",
            Verb::Options => "options",
            Verb::Other => "",
        }
    }
}

// === impl RequestInfo ===

impl RequestInfo {
    /// Reads method, path and query (without the `?`).
    pub fn parse(method: &Method, path: &str, query: &str) -> Result<RequestInfo, Box<Response>> {
        path::parse(method, path, query)
    }

    /// A query parameter's first value.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a query parameter is there and does not say no.
    pub fn flag(&self, name: &str) -> bool {
        self.param(name).is_some_and(options::boolean)
    }

    /// Whether the request changes something (or might).
    pub fn is_write(&self) -> bool {
        !matches!(self.verb, Verb::Get | Verb::List | Verb::Watch | Verb::Head | Verb::Options)
    }

    /// The verb of a request that has no resource: the method in lower case.
    pub fn method_verb(&self) -> String {
        self.method.as_str().to_ascii_lowercase()
    }
}

// === impl Request ===

impl Request {
    /// How new the snapshot must be.
    pub fn consistency(&self) -> Consistency {
        options::consistency(&self.info)
    }
}

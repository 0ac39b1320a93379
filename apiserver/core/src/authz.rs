//! Decides whether a user may do something: masters may, nodes by their own rules, everyone by RBAC.

use api::status::{ResourceName, Status};

use crate::failure::Refused;
use crate::request::RequestInfo;
use crate::user::{MASTERS, User};
use crate::world::World;

pub(crate) mod escalation;
pub mod node;
pub mod rbac;

/// What a user wants to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// The verb.
    pub verb: &'a str,
    /// Whether a resource is meant, and not a path.
    pub is_resource: bool,
    /// The API group.
    pub group: &'a str,
    /// The resource.
    pub resource: &'a str,
    /// The subresource.
    pub subresource: &'a str,
    /// The namespace.
    pub namespace: &'a str,
    /// The object's name.
    pub name: &'a str,
    /// The path, when no resource is meant.
    pub path: &'a str,
    /// The field selector of a collection request.
    pub field_selector: &'a str,
}

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and why.
    Allow(String),
    /// Not that I know of; what was found on the way.
    NoOpinion(String),
}

// === impl Attributes ===

impl<'a> Attributes<'a> {
    /// What a request line asks for. `verb` is the lower case method of a path request.
    pub fn of(info: &'a RequestInfo, method_verb: &'a str) -> Attributes<'a> {
        if !info.is_resource {
            return Attributes { verb: method_verb, path: &info.path, ..Attributes::default() };
        }
        Attributes {
            verb: info.verb.as_str(),
            is_resource: true,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            field_selector: &info.options.field_selector,
        }
    }

    /// `pods/log`, or the resource alone.
    pub fn full_resource(&self) -> String {
        match self.subresource.is_empty() {
            true => self.resource.to_owned(),
            false => format!("{}/{}", self.resource, self.subresource),
        }
    }
}

// === impl Decision ===

impl Decision {
    /// Whether it is a yes.
    pub fn allowed(&self) -> bool {
        matches!(self, Decision::Allow(_))
    }
}

/// Decides.
pub fn authorize(world: &World<'_>, user: &User, attributes: &Attributes<'_>) -> Decision {
    if user.in_group(MASTERS) {
        return Decision::Allow(String::new());
    }
    let mut reason = String::new();
    if let Some(node) = user.node() {
        match node::authorize(world, node, attributes) {
            Decision::Allow(why) => return Decision::Allow(why),
            Decision::NoOpinion(why) => reason = why,
        }
    }
    match world.derived.rules().authorize(user, attributes) {
        Decision::Allow(why) => Decision::Allow(why),
        Decision::NoOpinion(_) => Decision::NoOpinion(reason),
    }
}

/// Authorizes a request, or says why not.
pub fn check(world: &World<'_>, user: &User, attributes: &Attributes<'_>) -> Result<(), Refused> {
    match authorize(world, user, attributes) {
        Decision::Allow(_) => Ok(()),
        Decision::NoOpinion(reason) => Err(refusal(user, attributes, &reason)),
    }
}

/// The 403 for attributes, as Kubernetes words it.
pub fn refusal(user: &User, attributes: &Attributes<'_>, reason: &str) -> Refused {
    let mut why = refusal_message(user, attributes);
    if !reason.is_empty() {
        why.push_str(": ");
        why.push_str(reason);
    }
    let (resource, name) =
        if attributes.is_resource { (attributes.resource, attributes.name) } else { ("", "") };
    Status::forbidden(ResourceName { group: attributes.group, resource }, name, why).into()
}

fn refusal_message(user: &User, attributes: &Attributes<'_>) -> String {
    let (name, verb) = (&user.name, attributes.verb);
    if !attributes.is_resource {
        return format!("User {name:?} cannot {verb} path {:?}", attributes.path);
    }
    let place = match attributes.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!(
        "User {name:?} cannot {verb} resource {:?} in API group {:?} {place}",
        attributes.full_resource(),
        attributes.group
    )
}

//! One request for one resource, with everything that planning it needs.

use api::catalogue::{Catalogue, Resource};
use api::status::Status;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use store_core::Entry;

use crate::ask::Answers;
use crate::delete::collection::DeletionPlace;
use crate::failure::{self, Refused};
use crate::negotiate::Accepted;
use crate::output::Output;
use crate::request::{Options, Request};
use crate::served::Served;
use crate::user::User;
use crate::world::World;
use crate::{keys, object};

/// A request for a resource of the catalogue.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub world: World<'a>,
    pub request: &'a Request,
    pub user: &'a User,
    pub now: Timestamp,
    pub resource: &'a Resource,
    /// The same, to be kept.
    pub served: &'a Served,
    pub accepted: Accepted,
    /// How far the deletion of a collection has come.
    pub place: Option<&'a DeletionPlace>,
    /// What webhooks have answered so far.
    pub answers: &'a Answers,
}

// === impl Call ===

impl<'a> Call<'a> {
    pub fn options(&self) -> &'a Options {
        &self.request.info.options
    }

    /// The resource whose version defaults and checks are about: of a built-in one that in which objects are stored, of a custom
    /// one that of the request.
    pub fn storage(&self) -> &'a Resource {
        match self.served {
            Served::Builtin(resource) => Catalogue::builtin().storage_of(resource),
            Served::Custom(_) => self.resource,
        }
    }

    /// The namespace of the request; empty for objects of the cluster.
    pub fn namespace(&self) -> &'a str {
        if self.resource.namespaced() { &self.request.info.namespace } else { "" }
    }

    pub fn name(&self) -> &'a str {
        &self.request.info.name
    }

    pub fn subresource(&self) -> &'a str {
        &self.request.info.subresource
    }

    pub fn key(&self, name: &str) -> Bytes {
        keys::object(self.resource.storage_group(), &self.resource.plural, self.namespace(), name)
    }

    /// The prefix of all keys that a collection request covers.
    pub fn prefix(&self) -> String {
        keys::namespace_prefix(self.resource.storage_group(), &self.resource.plural, self.namespace())
    }

    /// The stored object of the request's name.
    pub fn entry(&self) -> Result<&'a Entry, Refused> {
        let entry = self.world.snapshot.get(&self.key(self.name()));
        entry.ok_or_else(|| Status::not_found(self.resource, self.name()).into())
    }

    /// The stored object of the request's name, as a document.
    pub fn stored(&self) -> Result<(&'a Entry, Value), Refused> {
        let entry = self.entry()?;
        Ok((entry, self.parsed(entry)?))
    }

    /// The document of a stored object.
    pub fn parsed(&self, entry: &Entry) -> Result<Value, Refused> {
        object::parse(&entry.value).ok_or_else(|| failure::internal("a stored object is not valid JSON"))
    }

    pub fn conflict(&self, name: &str, why: impl std::fmt::Display) -> Refused {
        Status::conflict(self.resource, name, why).into()
    }

    pub fn forbidden(&self, name: &str, why: impl std::fmt::Display) -> Refused {
        Status::forbidden(self.resource, name, why).into()
    }

    pub fn output(&self) -> Output {
        Output::new(self.served.clone(), self.accepted, self.request.info.param("includeObject"), self.now)
    }

    /// Whether the answer shows objects as they are stored.
    pub fn is_plain(&self) -> bool {
        self.accepted == Accepted::default()
            && self.resource.stored_as.is_none()
            && self.resource.custom.is_none()
    }

    /// Whether the request is for that built-in resource.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.is(group, plural)
    }

    /// The field manager: as named, or the first word of the user agent.
    pub fn manager(&self) -> String {
        let agent = self.request.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        api::managed_fields::manager_name(&self.options().field_manager, agent.unwrap_or_default())
    }
}

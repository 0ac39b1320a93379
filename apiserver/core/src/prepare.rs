//! The one entry: from a request to its plan.

use api::catalogue::{Catalogue, Resource, Verb as Allowed};
use api::status::Status;
use jiff::Timestamp;

use crate::ask::{Answers, Ask};
use crate::authz::{self, Attributes};
use crate::call::Call;
use crate::delete::collection::DeletionPlace;
use crate::failure::{self, Refused};
use crate::ids::Ids;
use crate::negotiate::{self, Accepted, Encoding};
use crate::request::{Request, Verb};
use crate::response::Prepared;
use crate::user::User;
use crate::world::World;
use crate::{
    bind, components, create, delete, discovery, evict, fence, finalize, kinds, metrics, patch, proxy, read,
    review, scale, stream, token, update, watching,
};

/// What planning comes to, unless it stops.
pub(crate) type Planned<T = Prepared> = Result<T, Stop>;

/// Why planning stops before its end.
pub(crate) enum Stop {
    /// The request cannot be carried out.
    Refused(Refused),
    /// Webhooks have to be asked first.
    Ask(Ask),
}

/// What has come of a request before it is planned again.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// How far the deletion of a collection has come.
    pub place: Option<DeletionPlace>,
    /// What webhooks have answered.
    pub answers: Answers,
}

/// Subresources that a node answers.
const STREAMS: &[&str] = &["log", "exec", "attach", "portforward", "proxy"];

/// Plans a request: authorizes it, and says what is to be done.
pub fn prepare(
    world: &World<'_>,
    request: &Request,
    user: &User,
    now: Timestamp,
    ids: &mut Ids<'_>,
) -> Prepared {
    prepare_from(world, request, user, now, ids, &Progress::default())
}

// === impl Stop ===

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Stop {
        Stop::Refused(refused)
    }
}

impl From<Status> for Stop {
    fn from(status: Status) -> Stop {
        Stop::Refused(status.into())
    }
}

/// Whether the client gets protobuf, for refusals too.
fn is_protobuf(request: &Request) -> bool {
    let info = &request.info;
    let asked = request
        .headers
        .get_all(http::header::ACCEPT)
        .iter()
        .any(|value| value.to_str().is_ok_and(|value| value.contains(api::protobuf::MEDIA_TYPE)));
    if !asked || !info.is_resource || STREAMS.contains(&info.subresource.as_str()) {
        return false;
    }
    let resource = Catalogue::builtin().resource(&info.group, &info.version, &info.resource);
    let accepted = negotiate::accept(&request.headers, resource.is_some_and(kinds::has_protobuf));
    accepted.is_ok_and(|accepted| accepted.encoding == Encoding::Protobuf)
}

/// As [`prepare`], for a request of which a part is done: of whose deletion parts were carried out, or for which webhooks were
/// asked.
///
/// Who plans again with answers gives the same `now` and the same `ids` as before: what was asked about must not change of itself.
pub fn prepare_from(
    world: &World<'_>,
    request: &Request,
    user: &User,
    now: Timestamp,
    ids: &mut Ids<'_>,
    progress: &Progress,
) -> Prepared {
    let planned = plan(world, request, user, now, ids, progress)
        .and_then(|prepared| Ok(fence::guard(world.snapshot, request, prepared)?))
        .unwrap_or_else(|stop| match stop {
            Stop::Refused(refused) => Prepared::Respond(*refused),
            Stop::Ask(ask) => Prepared::Ask(ask),
        });
    let planned = planned.warn(&progress.answers.warnings());
    match is_protobuf(request) {
        true => planned.into_protobuf(),
        false => planned,
    }
}

fn plan(
    world: &World<'_>,
    request: &Request,
    user: &User,
    now: Timestamp,
    ids: &mut Ids<'_>,
    progress: &Progress,
) -> Planned {
    let info = &request.info;
    let method = info.method_verb();
    authz::check(world, user, &Attributes::of(info, &method))?;
    if request.body.len() > world.config.max_body {
        return Err(Status::too_large(world.config.max_body).into());
    }
    if !info.is_resource {
        return Ok(discovery::respond(world, request).map(Prepared::Respond)?);
    }
    let served =
        world.resource(&info.group, &info.version, &info.resource).ok_or_else(failure::no_such_path)?;
    let resource: &Resource = &served;
    if !addressed(resource, request) {
        return Err(failure::no_such_path().into());
    }
    // What a stream sends is not for this server to negotiate.
    let accepted = match STREAMS.contains(&info.subresource.as_str()) {
        true => Accepted::default(),
        false => negotiate::accept(&request.headers, kinds::has_protobuf(resource))?,
    };
    let place = progress.place.as_ref();
    let answers = &progress.answers;
    let call =
        Call { world: *world, request, user, now, resource, served: &served, accepted, place, answers };
    let planned = if info.subresource.is_empty() { object(&call, ids) } else { subresource(&call, ids) };
    match &resource.deprecation {
        Some(warning) => planned.map(|prepared| prepared.warn(&[warning])),
        None => planned,
    }
}

/// Whether the path addresses the resource in its scope.
fn addressed(resource: &Resource, request: &Request) -> bool {
    let info = &request.info;
    match (resource.namespaced(), info.namespace.is_empty()) {
        // All namespaces: only collections can be read so.
        (true, true) => matches!(info.verb, Verb::List | Verb::Watch | Verb::DeleteCollection),
        (false, false) => resource.is("", "namespaces"),
        _ => true,
    }
}

fn allowed(verb: Verb) -> Option<Allowed> {
    Some(match verb {
        Verb::Get => Allowed::Get,
        Verb::List => Allowed::List,
        Verb::Watch => Allowed::Watch,
        Verb::Create => Allowed::Create,
        Verb::Update => Allowed::Update,
        Verb::Patch => Allowed::Patch,
        Verb::Delete => Allowed::Delete,
        Verb::DeleteCollection => Allowed::DeleteCollection,
        Verb::Head | Verb::Options | Verb::Other => return None,
    })
}

fn permits(verbs: &[Allowed], verb: Verb) -> Result<(), Refused> {
    match allowed(verb).is_some_and(|verb| verbs.contains(&verb)) {
        true => Ok(()),
        false => Err(Status::method_not_allowed_here().into()),
    }
}

fn object(call: &Call<'_>, ids: &mut Ids<'_>) -> Planned {
    let verb = call.request.info.verb;
    permits(&call.resource.verbs, verb)?;
    if call.is("", "bindings") {
        return bind::plan(call, ids);
    }
    if call.is("", "componentstatuses") {
        return components::plan(call);
    }
    if call.resource.group == metrics::GROUP {
        return metrics::plan(call);
    }
    if !call.resource.stored {
        return review::plan(call);
    }
    let whole = call.name().is_empty() && matches!(verb, Verb::Update | Verb::Patch);
    match verb {
        // A collection can be neither replaced nor patched.
        _ if whole => Err(Status::method_not_allowed_here().into()),
        Verb::Get => read::get(call),
        Verb::List => read::list(call),
        Verb::Watch => watching::plan(call),
        Verb::Create if !call.name().is_empty() => Err(Status::method_not_allowed_here().into()),
        Verb::Create => create::plan(call, ids),
        Verb::Update => update::plan(call, ids),
        Verb::Patch => patch::plan(call, ids),
        Verb::Delete => delete::one(call),
        Verb::DeleteCollection => delete::collection::plan(call),
        Verb::Head | Verb::Options | Verb::Other => Err(Status::method_not_allowed_here().into()),
    }
}

fn subresource(call: &Call<'_>, ids: &mut Ids<'_>) -> Planned {
    let info = &call.request.info;
    let declared = call.resource.subresource(&info.subresource).ok_or_else(failure::no_such_path)?;
    if info.subresource == "proxy" {
        // Which methods there are is for the backend to say.
        return proxy::plan(call, ids);
    }
    permits(&declared.verbs, info.verb)?;
    match (info.subresource.as_str(), info.verb) {
        ("binding", _) => bind::plan(call, ids),
        ("eviction", _) => evict::plan(call),
        ("token", _) => token::plan(call, ids),
        ("finalize", _) => finalize::plan(call, ids),
        ("scale", _) => scale::plan(call, ids),
        (name, _) if STREAMS.contains(&name) => stream::plan(call),
        (_, Verb::Get) => read::get(call),
        (_, Verb::Update) => update::plan(call, ids),
        (_, Verb::Patch) => patch::plan(call, ids),
        _ => Err(Status::method_not_allowed_here().into()),
    }
}

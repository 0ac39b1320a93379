//! Eviction: a deletion that asks first.

use api::schema;
use api::status::Status;
use http::StatusCode;

use crate::admission::Passing;
use crate::body::{self, Expected};
use crate::call::Call;
use crate::failure;
use crate::object::meta;
use crate::prepare::Planned;
use crate::response::{Commit, Prepared, Reply};
use crate::{create, delete};

/// POST of an Eviction.
pub(crate) fn plan(call: &Call<'_>) -> Planned {
    let schema = schema::builtin().type_of("policy", "v1", "Eviction").unwrap_or_default();
    let expected =
        Expected { group: "policy", version: "v1", kind: "Eviction", schemas: schema::builtin(), schema };
    let mut eviction = body::read(call.request, expected)?.object;
    create::place(call, &mut eviction)?;
    if !meta(&eviction, "name").is_empty() && meta(&eviction, "name") != call.name() {
        return Err(failure::bad_request("name in URL does not match name in Eviction object").into());
    }
    let warnings = Passing::created(call.name(), expected).pass(call, &mut eviction)?;
    let mut options = delete::DeleteOptions {
        grace: call.options().grace_period_seconds,
        dry_run: call.options().dry_run,
        ..delete::DeleteOptions::default()
    };
    if eviction["deleteOptions"].is_object() {
        delete::merge(&mut options, &eviction["deleteOptions"])?;
    }
    let mut done = failure::response(&Status::success(StatusCode::CREATED.as_u16()));
    done.headers.extend(create::warnings_headers(&warnings));
    Ok(match delete::one_with(call, &options)? {
        Prepared::Commit(Commit { txn, .. }) => Prepared::Commit(Commit { txn, reply: Reply::fixed(done) }),
        _ => Prepared::Respond(done),
    })
}

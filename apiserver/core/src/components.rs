//! Component statuses: what the server can say of the parts that keep the cluster. It can only say of the store that it
//! answers.

use api::status::Status;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::call::Call;
use crate::failure;
use crate::output::ListMeta;
use crate::prepare::Planned;
use crate::request::Verb;
use crate::response::Prepared;
use crate::selection::Selection;

const STORE: &str = "etcd-0";

/// GET of one status, or of all.
pub(crate) fn plan(call: &Call<'_>) -> Planned {
    let store: Value = json!({"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": STORE},
        "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]});
    let bytes = Bytes::from(store.to_string());
    let response = match call.request.info.verb {
        Verb::List => {
            let selection = Selection::parse(call.resource, call.options())?;
            let shown = selection.is_everything() || selection.matches(&call.key(STORE), &bytes);
            let items: &[&Bytes] = if shown { &[&bytes] } else { &[] };
            call.output()
                .list(items, &ListMeta { revision: call.world.snapshot.revision(), ..ListMeta::default() })
        }
        Verb::Get if call.name() == STORE => call.output().object(StatusCode::OK, &bytes),
        Verb::Get => return Err(Status::not_found(call.resource, call.name()).into()),
        _ => return Err(failure::no_such_path().into()),
    };
    Ok(Prepared::Respond(response))
}

//! DELETE of a collection: in parts, each a transaction of bounded size, however many objects there are.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use store_core::{Compare, Entry, Expect, Op, Outcome, Txn, Value as Stored};

use super::{Step, options, step};
use crate::ask::{Ask, Question};
use crate::call::Call;
use crate::convert;
use crate::object::{self, meta};
use crate::output::{ListMeta, Output};
use crate::prepare::{Planned, Stop};
use crate::response::{Commit, Prepared, Reply, Response, spliced};
use crate::selection::Selection;
use crate::{admission, create, read, service};

/// One transaction changes no more objects than this.
const PART_OBJECTS: usize = 500;
/// One transaction takes no more objects when it holds this many bytes.
const PART_BYTES: usize = 1 << 20;

/// One part of the deletion of a collection that is too large for one transaction.
pub struct DeletionPart {
    /// The writes on the objects of this part. When a compare fails, plan from the same place on a newer snapshot.
    pub txn: Txn,
    /// Where this part begins.
    pub from: DeletionPlace,
    /// Where the next part begins; `None` after the last one.
    pub next: Option<DeletionPlace>,
    shown: Shown,
    /// Headers of the answer.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

/// How far the deletion of a collection has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletionPlace {
    /// What comes behind this key was not looked at.
    after: Bytes,
    /// Objects that came later than this stay.
    until: u64,
}

/// What the answer shows of the objects of a part: each with the operation that changes it, if any does.
struct Shown {
    objects: Vec<(Option<usize>, Stored)>,
    output: Output,
    revision: u64,
}

/// What the parts before have come to.
#[derive(Debug, Default)]
pub struct Deleted {
    objects: Vec<Bytes>,
    newest: u64,
}

// === impl DeletionPart ===

impl DeletionPart {
    /// Adds what the committed part has come to.
    pub fn settle(self, outcome: &Outcome, deleted: &mut Deleted) -> Option<Response> {
        let revisions = match outcome {
            Outcome::Committed { revisions } => revisions.as_slice(),
            Outcome::Conflict { .. } => &[],
        };
        self.shown.settle(revisions, deleted);
        self.next.is_none().then(|| Response { headers: self.headers, ..self.shown.answer(deleted) })
    }
}

// === impl Shown ===

impl Shown {
    fn settle(&self, revisions: &[u64], deleted: &mut Deleted) {
        let of = |op: &Option<usize>| op.and_then(|op| revisions.get(op).copied()).unwrap_or_default();
        deleted.objects.extend(self.objects.iter().map(|(op, value)| spliced(value, of(op))));
        deleted.newest = revisions.iter().copied().max().unwrap_or(self.revision).max(deleted.newest);
    }

    fn answer(&self, deleted: &Deleted) -> Response {
        let meta = ListMeta { revision: deleted.newest, ..ListMeta::default() };
        self.output.list(&deleted.objects.iter().collect::<Vec<_>>(), &meta)
    }
}

/// Puts the deletion of one object before policies and webhooks; what these have to be asked goes to `open`.
fn reviewed(call: &Call<'_>, old: &Value, open: &mut Vec<Question>) -> Planned<()> {
    if !super::is_watched(call) {
        return Ok(());
    }
    match super::reviewed(call, old.clone()) {
        Err(Stop::Ask(ask)) => {
            open.extend(ask.questions);
            Ok(())
        }
        other => other.map(drop),
    }
}

/// Adds what deletion does to one object: the operation that changes it, if one does, and the object as it is then.
fn changed(
    call: &Call<'_>,
    key: &Bytes,
    entry: &Entry,
    step: Step,
    mut old: Value,
    txn: &mut Txn,
) -> (Option<usize>, Stored) {
    let op = Some(txn.ops.len());
    match step {
        Step::Nothing => (None, Stored::plain(entry.value.clone())),
        Step::Remove => {
            txn.ops.push(Op::Delete { key: key.clone() });
            if call.is("", "services") {
                service::release(&old, txn);
            }
            (op, object::encode(&mut old))
        }
        Step::Mark(mut marked) => {
            let value = object::encode(&mut marked);
            let expires_at_ms = create::expiry(call);
            txn.ops.push(Op::Put { key: key.clone(), value: value.clone(), expires_at_ms });
            (op, value)
        }
    }
}

/// Deleted objects as they are shown.
fn shown(call: &Call<'_>, objects: Vec<(Option<usize>, Stored)>) -> Planned<Vec<(Option<usize>, Stored)>> {
    if !convert::by_webhook(call.resource) {
        return Ok(objects);
    }
    let bytes: Vec<&Bytes> = objects.iter().map(|(_, value)| &value.bytes).collect();
    let shown = call.in_version(&bytes)?;
    let shown = shown.into_iter().zip(&objects).map(|(bytes, (op, _))| match op {
        Some(op) => (Some(*op), create::unversioned(&bytes).unwrap_or_else(|| Stored::plain(bytes))),
        None => (None, Stored::plain(bytes)),
    });
    Ok(shown.collect())
}

/// Plans the deletion of a collection, or of what is left of it behind the call's place.
pub(crate) fn plan(call: &Call<'_>) -> Planned {
    let options = options(call)?;
    let selection = Selection::parse(call.resource, call.options())?;
    let prefix = call.prefix();
    let snapshot = call.world.snapshot;
    let from = call
        .place
        .cloned()
        .unwrap_or_else(|| DeletionPlace { after: Bytes::from(prefix.clone()), until: snapshot.revision() });
    let start = format!("{}\0", String::from_utf8_lossy(&from.after));
    let (mut txn, mut objects, mut bytes, mut next) = (Txn::default(), Vec::new(), 0, None);
    let mut last: Option<&Bytes> = None;
    let mut open = Vec::new();
    for (key, entry) in read::candidates(call, &selection, &prefix, &start) {
        if entry.create_revision > from.until || !selection.matches(key, &entry.value) {
            continue;
        }
        if txn.ops.len() >= PART_OBJECTS || bytes >= PART_BYTES {
            next = last.map(|last| DeletionPlace { after: last.clone(), until: from.until });
            break;
        }
        last = Some(key);
        let old = call.parsed(entry)?;
        if admission::delete(call, meta(&old, "name")).is_err() {
            continue;
        }
        reviewed(call, &old, &mut open)?;
        let (op, value) = changed(call, key, entry, step(call, &options, &old), old, &mut txn);
        if op.is_some() {
            txn.compares.push(Compare { key: key.clone(), expect: Expect::Revision(entry.revision) });
        }
        bytes += key.len() * 2 + value.bytes.len();
        objects.push((op, value));
        if options.dry_run {
            // Nothing is written, however much it is.
            txn = Txn::default();
            bytes = 0;
        }
    }
    if !open.is_empty() {
        return Err(Stop::Ask(Ask { questions: open }));
    }
    let objects = shown(call, objects)?;
    let shown = Shown { objects, output: call.output(), revision: snapshot.revision() };
    if next.is_some() || call.place.is_some() {
        return Ok(Prepared::Part(Box::new(DeletionPart { txn, from, next, shown, headers: Vec::new() })));
    }
    let finish = move |revisions: &[u64]| {
        let mut deleted = Deleted::default();
        shown.settle(revisions, &mut deleted);
        shown.answer(&deleted)
    };
    if txn.ops.is_empty() {
        return Ok(Prepared::Respond(finish(&[])));
    }
    Ok(Prepared::Commit(Commit { txn, reply: Reply::made(finish) }))
}

//! etcd's Put, Range and Txn on top of the store.

use store::{CommitError, Expect, Op, Outcome, Snapshot, Store, Value};
use tonic::{Request, Response, Status};

use super::wire::kv_server::Kv;
use super::wire::{
    CompactionRequest, CompactionResponse, Compare, KeyValue, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse, compare, request_op,
    response_op,
};

/// Serves a member's store.
pub struct Service(pub Store);

fn header(revision: u64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision: revision.cast_signed(), ..ResponseHeader::default() })
}

fn failed(error: CommitError) -> Status {
    Status::unavailable(error.to_string())
}

fn range(snapshot: &Snapshot, request: &RangeRequest) -> RangeResponse {
    let found = |key: &[u8], entry: &store::Entry| KeyValue {
        key: key.to_vec().into(),
        create_revision: entry.create_revision.cast_signed(),
        mod_revision: entry.revision.cast_signed(),
        version: 1,
        value: entry.value.clone(),
    };
    let kvs: Vec<_> = if request.range_end.is_empty() {
        snapshot.get(&request.key).map(|entry| found(&request.key, entry)).into_iter().collect()
    } else {
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let entries = snapshot.range(&request.key, &request.range_end).take(limit);
        entries.map(|(key, entry)| found(key, entry)).collect()
    };
    let count = kvs.len() as i64;
    RangeResponse { header: header(snapshot.revision()), kvs, more: false, count }
}

fn op(put: PutRequest) -> Op {
    Op::Put { key: put.key, value: Value::plain(put.value), expires_at_ms: None }
}

/// The one comparison that the measurements use: the revision of the last write, 0 for none.
fn expectation(compare: Compare) -> Result<store::Compare, Status> {
    let equal = compare.result() == compare::CompareResult::Equal;
    if !equal || compare.target() != compare::CompareTarget::Mod {
        return Err(Status::unimplemented("only equality of mod_revision is compared"));
    }
    let expect = match compare.mod_revision.cast_unsigned() {
        0 => Expect::Absent,
        revision => Expect::Revision(revision),
    };
    Ok(store::Compare { key: compare.key, expect })
}

fn put_of(op: RequestOp) -> Result<Op, Status> {
    match op.request {
        Some(request_op::Request::RequestPut(put)) => Ok(self::op(put)),
        _ => Err(Status::unimplemented("only puts are done in a transaction")),
    }
}

#[tonic::async_trait]
impl Kv for Service {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        let snapshot = match request.serializable {
            true => self.0.snapshot(),
            false => self.0.linearizable().await.map_err(|error| Status::unavailable(error.to_string()))?,
        };
        Ok(Response::new(range(&snapshot, &request)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let txn = store::Txn { compares: Vec::new(), ops: vec![op(request.into_inner())] };
        match self.0.commit(txn).await.map_err(failed)? {
            Outcome::Committed { revisions } => {
                let header = header(revisions.last().copied().unwrap_or(0));
                Ok(Response::new(PutResponse { header }))
            }
            Outcome::Conflict { .. } => Err(Status::internal("a put compares nothing")),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        if !request.failure.is_empty() {
            return Err(Status::unimplemented("nothing is done when a comparison fails"));
        }
        let compares = request.compare.into_iter().map(expectation).collect::<Result<_, _>>()?;
        let ops = request.success.into_iter().map(put_of).collect::<Result<_, _>>()?;
        let outcome = self.0.commit(store::Txn { compares, ops }).await.map_err(failed)?;
        let revisions = match outcome {
            Outcome::Committed { revisions } => revisions,
            Outcome::Conflict { .. } => {
                let header = header(self.0.snapshot().revision());
                return Ok(Response::new(TxnResponse { header, succeeded: false, responses: Vec::new() }));
            }
        };
        let put = |revision: &u64| ResponseOp {
            response: Some(response_op::Response::ResponsePut(PutResponse { header: header(*revision) })),
        };
        let responses = revisions.iter().map(put).collect();
        let header = header(revisions.last().copied().unwrap_or(0));
        Ok(Response::new(TxnResponse { header, succeeded: true, responses }))
    }

    /// The store bounds its history by itself.
    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let revision = request.into_inner().revision.cast_unsigned();
        Ok(Response::new(CompactionResponse { header: header(revision) }))
    }
}

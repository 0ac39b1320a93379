//! Refusals: the `Status` that a client gets when its request cannot be carried out.

use api::status::Status;
use http::StatusCode;

use crate::response::Response;

/// A request that was refused: the answer to send.
pub type Refused = Box<Response>;

impl From<Status> for Refused {
    fn from(status: Status) -> Refused {
        Box::new(response(&status))
    }
}

/// The answer that carries a status.
pub fn response(status: &Status) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::document(code, &status.to_json());
    let retry = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if retry > 0 {
        response.headers.push((http::header::RETRY_AFTER, retry.into()));
    }
    response
}

/// 400 with a reason.
pub fn bad_request(message: &str) -> Refused {
    Status::bad_request(message).into()
}

/// 404: there is no such path.
pub fn no_such_path() -> Refused {
    Status::no_such_path().into()
}

/// 406: no content type that is asked for can be served.
pub fn not_acceptable(offered: &str) -> Refused {
    let message = format!("only the following media types are accepted: {offered}");
    Box::new(Response::failure(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", &message))
}

/// 409 with a reason.
pub fn conflict(message: &str) -> Refused {
    Box::new(Response::failure(StatusCode::CONFLICT, "Conflict", message))
}

/// 409: the writer was elected by a Lease that has changed hands since.
pub fn fenced(lease: &str) -> Refused {
    conflict(&format!("the Lease {lease} has changed hands: its earlier holder may not write any more"))
}

/// 503: the server does not know yet what the cluster's state is.
pub fn starting() -> Refused {
    Status::unavailable("the server is starting: it waits for the other servers").into()
}

/// 503: the server is stopping.
pub fn stopping() -> Refused {
    Status::unavailable("the server is stopping").into()
}

/// 500: something that should have worked did not.
pub fn internal(message: &str) -> Refused {
    Status::internal(message).into()
}

//! What an answer to a binding means. The room that a decision takes is given back only when the pod is known not to be there:
//! while nobody knows, and the watch is behind, another pod would be put into the same room.

use std::time::Duration;

use client_core::error::Error;
use k8s_openapi::api::core::v1::Pod;

/// How long it takes until the first repetition; each further one takes three times as long.
const REPEAT_AFTER: Duration = Duration::from_millis(100);
/// The longest time between two.
const REPEAT_AFTER_MAX: Duration = Duration::from_secs(10);

/// A binding while it is sent.
#[derive(Debug)]
pub struct Binding<'a> {
    uid: &'a str,
    node: &'a str,
    repeats: u32,
    unknown: bool,
}

/// What follows when a binding was not answered with success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It may have got through: send it again after this time. It binds to the same node, so that once is as good as twice.
    Again(Duration),
    /// Read the pod, and ask [`Binding::read`].
    Read,
    /// The pod is bound where it was to be.
    Bound,
    /// The pod was not bound.
    Fail,
}

// === impl Binding ===

impl<'a> Binding<'a> {
    /// Nothing was sent yet of the binding of the pod with this uid to a node.
    pub fn new(uid: &'a str, node: &'a str) -> Self {
        Self { uid, node, repeats: 0, unknown: false }
    }

    /// An attempt has failed. After one whose outcome is not known, a refusal says only that this one was refused.
    pub fn failed(&mut self, error: &Error) -> Next {
        self.unknown |= error.is_outcome_unknown();
        match error {
            _ if error.is_not_found() => Next::Fail,
            _ if self.unknown && error.is_transient() => Next::Again(self.pause()),
            _ if self.unknown || error.is_conflict() => Next::Read,
            _ => Next::Fail,
        }
    }

    /// The pod as the API server has it, or why it could not be read. [`Next::Read`] does not follow.
    pub fn read(&mut self, pod: Result<&Pod, &Error>) -> Next {
        match pod {
            Ok(pod) if is_bound(pod, self.uid, self.node) => Next::Bound,
            Err(error) if error.is_transient() => Next::Again(self.pause()),
            _ => Next::Fail,
        }
    }

    fn pause(&mut self) -> Duration {
        let pause = REPEAT_AFTER.saturating_mul(3_u32.saturating_pow(self.repeats)).min(REPEAT_AFTER_MAX);
        self.repeats += 1;
        pause
    }
}

/// Whether it is the pod that was meant, on the node that was meant.
fn is_bound(pod: &Pod, uid: &str, node: &str) -> bool {
    let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    pod.metadata.uid.as_deref() == Some(uid) && on == Some(node)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
    use serde_json::json;

    use super::*;

    fn error(code: i32) -> Error {
        match code {
            0 => Error::transport("connection reset"),
            code => Error::Status(Box::new(Status { code: Some(code), ..Status::default() })),
        }
    }

    /// What follows each of the errors in turn: milliseconds to the next attempt, `read` or `fail`.
    fn check(codes: &[i32], expected: &str) {
        let mut binding = Binding::new("u", "n");
        let told = codes.iter().map(|code| match binding.failed(&error(*code)) {
            Next::Again(pause) => pause.as_millis().to_string(),
            Next::Read => "read".to_owned(),
            Next::Fail => "fail".to_owned(),
            Next::Bound => "bound".to_owned(),
        });
        assert_eq!(told.collect::<Vec<_>>().join(" "), expected, "{codes:?}");
    }

    #[test]
    fn room_is_given_back_only_when_the_pod_is_known_not_to_be_there() {
        check(&[403], "fail");
        check(&[503], "fail");
        check(&[404], "fail");
        check(&[409], "read");
        check(&[504, 409], "100 read");
        check(&[504, 403], "100 read");
        check(&[0, 503, 404], "100 300 fail");
        check(&[0, 0, 0, 0, 0, 504, 0], "100 300 900 2700 8100 10000 10000");
    }

    #[test]
    fn a_pod_is_bound_where_it_was_to_be() {
        let pod = |uid: &str, node: &str| {
            serde_json::from_value::<Pod>(json!({
                "metadata": {"uid": uid},
                "spec": {"containers": [], "nodeName": node},
            }))
            .unwrap()
        };
        let read = |pod: Result<&Pod, &Error>| Binding::new("u", "n").read(pod);
        assert_eq!(read(Ok(&pod("u", "n"))), Next::Bound);
        assert_eq!(read(Ok(&pod("v", "n"))), Next::Fail);
        assert_eq!(read(Ok(&pod("u", "other"))), Next::Fail);
        assert_eq!(read(Err(&error(404))), Next::Fail);
        assert_eq!(read(Err(&error(503))), Next::Again(REPEAT_AFTER));
    }
}

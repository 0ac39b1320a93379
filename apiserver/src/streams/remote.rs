//! What the channels of a remote command carry besides bytes: terminal sizes in, the final Status out.

use proto::tunnel::Resize;
use serde::Deserialize;
use serde_json::json;

/// The size of a terminal as clients send it.
#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// Reads a terminal size; anything else is ignored, as clients expect.
pub(super) fn resize(payload: &[u8]) -> Option<Resize> {
    let size: Size = serde_json::from_slice(payload).ok()?;
    Some(Resize { width: size.width.into(), height: size.height.into() })
}

/// The Status that tells how a command ended.
pub(super) fn exit_status(code: i32) -> String {
    if code == 0 {
        return r#"{"metadata":{},"status":"Success"}"#.into();
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
    .to_string()
}

/// The Status that tells why a command could not go on.
pub(super) fn failure_status(message: &str) -> String {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {message}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_the_cause() {
        let status: serde_json::Value = serde_json::from_str(&exit_status(3)).expect("JSON");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(exit_status(0), r#"{"metadata":{},"status":"Success"}"#);
    }

    #[test]
    fn sizes_are_read_and_nonsense_is_ignored() {
        let size = resize(br#"{"Width":80,"Height":24}"#).expect("a size");
        assert_eq!((size.width, size.height), (80, 24));
        assert!(resize(b"big").is_none());
    }
}

//! A complaint about one field of an object.

use std::fmt;

use serde_json::Value;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// It must be there.
    Required,
    /// Its value is not acceptable.
    Invalid,
    /// Its value is none of the accepted ones.
    NotSupported,
    /// Its value may occur once only.
    Duplicate,
    /// It must not be there, or not change.
    Forbidden,
    /// Its value is too long.
    TooLong,
    /// There are too many.
    TooMany,
    /// Its value is of a wrong type.
    TypeInvalid,
    /// What it names does not exist.
    NotFound,
    /// Something failed that is not the caller's fault.
    Internal,
}

/// A complaint about one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Path: `spec.containers[0].name`.
    pub path: String,
    /// What is wrong.
    pub kind: ErrorKind,
    /// The value that is wrong; null where it does not matter.
    pub value: Value,
    /// The reason, in words.
    pub detail: String,
}

// === impl ErrorKind ===

impl ErrorKind {
    /// The reason of a cause in a `Status`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotFound => "FieldValueNotFound",
            Self::Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }
}

// === impl FieldError ===

impl FieldError {
    /// A complaint.
    pub fn new(
        kind: ErrorKind,
        path: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self { path: path.into(), kind, value: value.into(), detail: detail.into() }
    }

    /// A field that must be there.
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Required, path, Value::Null, detail)
    }

    /// A value that is not acceptable.
    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, path, value, detail)
    }

    /// A field that must not be there, or not change.
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, path, Value::Null, detail)
    }

    /// A value that may occur once only.
    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(ErrorKind::Duplicate, path, value, "")
    }

    /// A value that is none of the accepted ones.
    pub fn not_supported(path: impl Into<String>, value: impl Into<Value>, accepted: &[&str]) -> Self {
        let mut accepted: Vec<String> = accepted.iter().map(|word| format!("\"{word}\"")).collect();
        accepted.sort();
        Self::new(ErrorKind::NotSupported, path, value, format!("supported values: {}", accepted.join(", ")))
    }

    /// A value that is too long.
    pub fn too_long(path: impl Into<String>, max: usize) -> Self {
        Self::new(ErrorKind::TooLong, path, Value::Null, format!("may not be more than {max} bytes"))
    }

    /// A list with too many items.
    pub fn too_many(path: impl Into<String>, found: usize, max: usize) -> Self {
        Self::new(ErrorKind::TooMany, path, found, format!("must have at most {max} items"))
    }

    /// The complaint without its path: the message of a cause.
    pub fn body(&self) -> String {
        let words = self.kind.words();
        let mut body = match (self.kind, &self.value) {
            (ErrorKind::Required | ErrorKind::Forbidden | ErrorKind::TooLong, _) => words.to_owned(),
            (ErrorKind::Internal, _) => words.to_owned(),
            (_, Value::String(text)) => format!("{words}: {}", quote(text)),
            (_, value) => format!("{words}: {value}"),
        };
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// Text in double quotes, escaped as Go does.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            letter if letter.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_complaints_as_kubernetes_does() {
        assert_eq!(
            FieldError::not_supported("spec.type", "X", &["ClusterIP", "NodePort"]).to_string(),
            r#"spec.type: Unsupported value: "X": supported values: "ClusterIP", "NodePort""#
        );
        assert_eq!(
            FieldError::required("spec.containers", "").to_string(),
            "spec.containers: Required value"
        );
        assert_eq!(
            FieldError::invalid("a", -1, "must be positive").to_string(),
            "a: Invalid value: -1: must be positive"
        );
    }
}

//! Turns the core's answers into HTTP responses.

use apiserver_core::Response as CoreResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::body::Body;

/// An answer as HTTP.
pub(crate) trait IntoHttp {
    /// Turns the answer into a response.
    fn into_http(self) -> Response<Body>;
}

impl IntoHttp for CoreResponse {
    fn into_http(self) -> Response<Body> {
        let mut response = Response::new(self.body.into());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}

/// A Status of kind Failure.
pub(crate) fn failure(status: StatusCode, reason: &str, message: &str) -> Response<Body> {
    CoreResponse::failure(status, reason, message).into_http()
}

/// Whether one of the comma separated values of a header is `value`, in any case.
pub(crate) fn header_has(headers: &HeaderMap, name: HeaderName, value: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|text| text.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(value))
}

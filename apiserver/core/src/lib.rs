//! Plans API requests: snapshot, request and user in; transaction and response out.

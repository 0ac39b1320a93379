//! Plans service rules and answers names, from Services and EndpointSlices.

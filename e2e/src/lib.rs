//! End-to-end tests on real processes and namespaces.

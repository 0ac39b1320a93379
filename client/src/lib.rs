//! Transport and kubeconfig, informers and writes.

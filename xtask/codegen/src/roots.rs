//! The types that the table starts from; all types that they mention follow.

use k8s_openapi::{api, apimachinery::pkg::apis::meta};
use serde_json::{Map, Value};

macro_rules! roots {
    ($generator:ident, $($module:ident)::+, $($kind:ident)*) => {{
        use $($module)::+ as module;
        $($generator.subschema_for::<module::$kind>();)*
    }};
}

/// Every definition reachable from the roots, by its full name.
pub fn definitions() -> Map<String, Value> {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    roots!(generator, api::core::v1, Namespace Node Pod Service Endpoints ConfigMap Secret ServiceAccount Event Binding PodTemplateSpec);
    roots!(generator, api::apps::v1, Deployment ReplicaSet DaemonSet ControllerRevision);
    roots!(generator, api::authentication::v1, TokenRequest TokenReview SelfSubjectReview);
    roots!(generator, api::authorization::v1, SubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview LocalSubjectAccessReview);
    roots!(generator, api::autoscaling::v1, Scale);
    roots!(generator, api::coordination::v1, Lease);
    roots!(generator, api::discovery::v1, EndpointSlice);
    roots!(generator, api::events::v1, Event);
    roots!(generator, api::policy::v1, Eviction);
    roots!(generator, api::rbac::v1, Role RoleBinding ClusterRole ClusterRoleBinding);
    roots!(generator, api::scheduling::v1, PriorityClass);
    roots!(generator, meta::v1, DeleteOptions Status ListMeta ObjectMeta LabelSelector);
    generator.take_definitions(false)
}

//! The types that the table starts from; all types that they mention follow.

use k8s_openapi::{api, apiextensions_apiserver, apimachinery::pkg::apis::meta, kube_aggregator};
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
    roots!(generator, api::core::v1, ComponentStatus LimitRange PersistentVolume PersistentVolumeClaim PodTemplate ReplicationController ResourceQuota);
    roots!(generator, api::admissionregistration::v1, MutatingWebhookConfiguration ValidatingWebhookConfiguration);
    roots!(generator, api::admissionregistration::v1, ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding MutatingAdmissionPolicy MutatingAdmissionPolicyBinding);
    roots!(generator, api::apps::v1, Deployment ReplicaSet DaemonSet ControllerRevision StatefulSet);
    roots!(generator, api::authentication::v1, TokenRequest TokenReview SelfSubjectReview);
    roots!(generator, api::authorization::v1, SubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview LocalSubjectAccessReview);
    roots!(generator, api::autoscaling::v1, Scale HorizontalPodAutoscaler);
    roots!(generator, api::autoscaling::v2, HorizontalPodAutoscaler);
    roots!(generator, api::batch::v1, Job CronJob);
    roots!(generator, api::certificates::v1, CertificateSigningRequest ClusterTrustBundle PodCertificateRequest);
    roots!(generator, api::coordination::v1, Lease);
    roots!(generator, api::discovery::v1, EndpointSlice);
    roots!(generator, api::events::v1, Event);
    roots!(generator, api::flowcontrol::v1, FlowSchema PriorityLevelConfiguration);
    roots!(generator, api::networking::v1, Ingress IngressClass NetworkPolicy IPAddress ServiceCIDR);
    roots!(generator, api::node::v1, RuntimeClass);
    roots!(generator, api::policy::v1, Eviction PodDisruptionBudget);
    roots!(generator, api::rbac::v1, Role RoleBinding ClusterRole ClusterRoleBinding);
    roots!(generator, api::resource::v1, DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice);
    roots!(generator, api::scheduling::v1, PriorityClass);
    roots!(generator, api::storage::v1, CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass);
    roots!(generator, api::storagemigration::v1, StorageVersionMigration);
    roots!(generator, apiextensions_apiserver::pkg::apis::apiextensions::v1, CustomResourceDefinition);
    roots!(generator, kube_aggregator::pkg::apis::apiregistration::v1, APIService);
    roots!(generator, meta::v1, DeleteOptions Status ListMeta ObjectMeta LabelSelector);
    generator.take_definitions(false)
}

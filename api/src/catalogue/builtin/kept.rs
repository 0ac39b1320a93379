//! Kinds that are kept and checked. Those marked as idle have nothing in the cluster that acts on them.

use super::{CLUSTER, Entry, READ_WRITE, SCALE, STATUS, STORED, Sub, Verb, own};

const IDLE: Entry = Entry { idle: true, ..STORED };
const IDLE_CLUSTER: Entry = Entry { idle: true, ..CLUSTER };

const EXTENSION: &[&str] = &["api-extensions"];
const ALL: &[&str] = &["all"];
const APPROVAL: Sub = own("approval", READ_WRITE);

pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        kind: "ComponentStatus",
        plural: "componentstatuses",
        short_names: &["cs"],
        verbs: &[Verb::Get, Verb::List],
        stored: false,
        deprecation: Some("v1 ComponentStatus is deprecated in v1.19+"),
        ..CLUSTER
    },
    Entry { kind: "LimitRange", plural: "limitranges", short_names: &["limits"], ..STORED },
    Entry {
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        short_names: &["pvc"],
        subresources: &[STATUS],
        ..IDLE
    },
    Entry {
        kind: "PersistentVolume",
        plural: "persistentvolumes",
        short_names: &["pv"],
        subresources: &[STATUS],
        ..IDLE_CLUSTER
    },
    Entry { kind: "PodTemplate", plural: "podtemplates", ..STORED },
    Entry {
        kind: "ReplicationController",
        plural: "replicationcontrollers",
        short_names: &["rc"],
        categories: ALL,
        subresources: &[SCALE, STATUS],
        ..IDLE
    },
    Entry {
        kind: "ResourceQuota",
        plural: "resourcequotas",
        short_names: &["quota"],
        subresources: &[STATUS],
        ..STORED
    },
    Entry {
        group: "apps",
        kind: "StatefulSet",
        plural: "statefulsets",
        short_names: &["sts"],
        categories: ALL,
        subresources: &[SCALE, STATUS],
        ..IDLE
    },
    Entry {
        group: "autoscaling",
        version: "v2",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        short_names: &["hpa"],
        categories: ALL,
        subresources: &[STATUS],
        ..IDLE
    },
    Entry {
        group: "autoscaling",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        short_names: &["hpa"],
        categories: ALL,
        subresources: &[STATUS],
        stored_as: Some(("autoscaling", "v2")),
        ..IDLE
    },
    Entry {
        group: "batch",
        kind: "CronJob",
        plural: "cronjobs",
        short_names: &["cj"],
        categories: ALL,
        subresources: &[STATUS],
        ..IDLE
    },
    Entry { group: "batch", kind: "Job", plural: "jobs", categories: ALL, subresources: &[STATUS], ..IDLE },
    Entry {
        group: "policy",
        kind: "PodDisruptionBudget",
        plural: "poddisruptionbudgets",
        short_names: &["pdb"],
        subresources: &[STATUS],
        ..IDLE
    },
    Entry {
        group: "networking.k8s.io",
        kind: "Ingress",
        plural: "ingresses",
        short_names: &["ing"],
        subresources: &[STATUS],
        ..IDLE
    },
    Entry { group: "networking.k8s.io", kind: "IngressClass", plural: "ingressclasses", ..IDLE_CLUSTER },
    Entry {
        group: "networking.k8s.io",
        kind: "IPAddress",
        plural: "ipaddresses",
        short_names: &["ip"],
        ..IDLE_CLUSTER
    },
    Entry {
        group: "networking.k8s.io",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        short_names: &["netpol"],
        ..IDLE
    },
    Entry {
        group: "networking.k8s.io",
        kind: "ServiceCIDR",
        plural: "servicecidrs",
        subresources: &[STATUS],
        ..IDLE_CLUSTER
    },
    Entry { group: "storage.k8s.io", kind: "CSIDriver", plural: "csidrivers", ..IDLE_CLUSTER },
    Entry { group: "storage.k8s.io", kind: "CSINode", plural: "csinodes", ..IDLE_CLUSTER },
    Entry { group: "storage.k8s.io", kind: "CSIStorageCapacity", plural: "csistoragecapacities", ..IDLE },
    Entry {
        group: "storage.k8s.io",
        kind: "StorageClass",
        plural: "storageclasses",
        short_names: &["sc"],
        ..IDLE_CLUSTER
    },
    Entry {
        group: "storage.k8s.io",
        kind: "VolumeAttachment",
        plural: "volumeattachments",
        subresources: &[STATUS],
        ..IDLE_CLUSTER
    },
    Entry {
        group: "storage.k8s.io",
        kind: "VolumeAttributesClass",
        plural: "volumeattributesclasses",
        short_names: &["vac"],
        ..IDLE_CLUSTER
    },
    Entry { group: "node.k8s.io", kind: "RuntimeClass", plural: "runtimeclasses", ..CLUSTER },
    Entry {
        group: "admissionregistration.k8s.io",
        kind: "MutatingAdmissionPolicy",
        plural: "mutatingadmissionpolicies",
        categories: EXTENSION,
        ..CLUSTER
    },
    Entry {
        group: "admissionregistration.k8s.io",
        kind: "MutatingAdmissionPolicyBinding",
        plural: "mutatingadmissionpolicybindings",
        categories: EXTENSION,
        ..CLUSTER
    },
    Entry {
        group: "admissionregistration.k8s.io",
        kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations",
        categories: EXTENSION,
        idle: false,
        ..IDLE_CLUSTER
    },
    Entry {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingAdmissionPolicy",
        plural: "validatingadmissionpolicies",
        categories: EXTENSION,
        subresources: &[STATUS],
        ..CLUSTER
    },
    Entry {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingAdmissionPolicyBinding",
        plural: "validatingadmissionpolicybindings",
        categories: EXTENSION,
        ..CLUSTER
    },
    Entry {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingWebhookConfiguration",
        plural: "validatingwebhookconfigurations",
        categories: EXTENSION,
        idle: false,
        ..IDLE_CLUSTER
    },
    Entry {
        group: "apiextensions.k8s.io",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        short_names: &["crd", "crds"],
        categories: EXTENSION,
        subresources: &[STATUS],
        idle: false,
        ..IDLE_CLUSTER
    },
    Entry {
        group: "apiregistration.k8s.io",
        kind: "APIService",
        plural: "apiservices",
        categories: EXTENSION,
        subresources: &[STATUS],
        ..IDLE_CLUSTER
    },
    Entry {
        group: "certificates.k8s.io",
        kind: "CertificateSigningRequest",
        plural: "certificatesigningrequests",
        short_names: &["csr"],
        subresources: &[APPROVAL, STATUS],
        ..IDLE_CLUSTER
    },
    Entry {
        group: "certificates.k8s.io",
        kind: "ClusterTrustBundle",
        plural: "clustertrustbundles",
        ..IDLE_CLUSTER
    },
    Entry {
        group: "certificates.k8s.io",
        kind: "PodCertificateRequest",
        plural: "podcertificaterequests",
        subresources: &[STATUS],
        ..IDLE
    },
    Entry {
        group: "flowcontrol.apiserver.k8s.io",
        kind: "FlowSchema",
        plural: "flowschemas",
        subresources: &[STATUS],
        ..IDLE_CLUSTER
    },
    Entry {
        group: "flowcontrol.apiserver.k8s.io",
        kind: "PriorityLevelConfiguration",
        plural: "prioritylevelconfigurations",
        subresources: &[STATUS],
        ..IDLE_CLUSTER
    },
    Entry { group: "resource.k8s.io", kind: "DeviceClass", plural: "deviceclasses", ..IDLE_CLUSTER },
    Entry {
        group: "resource.k8s.io",
        kind: "DeviceTaintRule",
        plural: "devicetaintrules",
        subresources: &[STATUS],
        ..IDLE_CLUSTER
    },
    Entry {
        group: "resource.k8s.io",
        kind: "ResourceClaim",
        plural: "resourceclaims",
        subresources: &[STATUS],
        ..IDLE
    },
    Entry {
        group: "resource.k8s.io",
        kind: "ResourceClaimTemplate",
        plural: "resourceclaimtemplates",
        ..IDLE
    },
    Entry { group: "resource.k8s.io", kind: "ResourceSlice", plural: "resourceslices", ..IDLE_CLUSTER },
    Entry {
        group: "storagemigration.k8s.io",
        kind: "StorageVersionMigration",
        plural: "storageversionmigrations",
        subresources: &[STATUS],
        ..IDLE_CLUSTER
    },
];

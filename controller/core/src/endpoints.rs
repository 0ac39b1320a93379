//! Publishes the addresses behind a Service: as EndpointSlices, and as the older Endpoints.

mod address;
mod legacy;
mod slices;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rand::RngCore;

use crate::plan::{Plan, Report};

pub use self::address::is_relevant_change;

/// What the planner of slices looks at.
pub struct SliceView<'a> {
    /// The Service.
    pub service: &'a Service,
    /// The pods that its selector selects.
    pub pods: Vec<Arc<Pod>>,
    /// The slices of the Service, whoever made them.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// The zone of a node.
    pub zone_of: &'a dyn Fn(&str) -> Option<String>,
}

/// What the planner of Endpoints looks at.
pub struct LegacyView<'a> {
    /// The Service.
    pub service: &'a Service,
    /// The pods that its selector selects.
    pub pods: Vec<Arc<Pod>>,
    /// Its Endpoints.
    pub endpoints: Option<Arc<Endpoints>>,
}

/// Plans the EndpointSlices of a Service with a selector.
pub fn plan_slices(view: &SliceView, now: Timestamp, rng: &mut dyn RngCore) -> (Plan, Report) {
    slices::plan(view, now, rng)
}

/// Plans the Endpoints of a Service with a selector.
pub fn plan_legacy(view: &LegacyView) -> (Plan, Report) {
    legacy::plan(view)
}

/// The selector, if the Service's addresses are kept by these planners.
pub fn managed_selector(service: &Service) -> Option<&crate::selector::Labels> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// Plans for Endpoints whose Service is gone: those that we made go, too.
pub fn plan_abandoned(endpoints: &Endpoints) -> Option<(Plan, Report)> {
    legacy::is_ours(endpoints).then(|| {
        let mut plan = Plan::default();
        plan.one(crate::plan::delete::<Endpoints>(&endpoints.metadata));
        (plan, Report::default())
    })
}

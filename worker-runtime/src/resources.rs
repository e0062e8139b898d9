//! Slots that follow memory and CPU: core's controllers, which all Task Queues of the process share.

use std::sync::Arc;
use std::time::Duration;

use operator_core::contract::ResourceTargets;
use temporalio_sdk_core::{
    ActivitySlotKind, ResourceBasedSlotsOptions, ResourceBasedTunerConfig, ResourceController, ResourceSlotOptions,
    SlotSupplier, SlotSupplierOptions, TunerHolderOptions, WorkerTuner as _,
};

/// Time between two slots above the least: what the last one's task uses has to show first.
const RAMP: Duration = Duration::from_millis(50);

/// What a Worker asks before it takes a task.
#[derive(Clone, Debug)]
pub struct Resources {
    controller: Arc<ResourceController>,
    minimum: u32,
}

/// The controllers of the process, made anew when their targets change.
#[derive(Debug, Default)]
pub struct Controllers(parking_lot::Mutex<Option<(ResourceTargets, Arc<ResourceController>)>>);

impl Controllers {
    /// Those that keep to `targets`, for a Task Queue that may always run `minimum` tasks; none without targets.
    pub fn get(&self, targets: Option<ResourceTargets>, minimum: u32) -> Option<Resources> {
        let targets = targets?;
        let mut last = self.0.lock();
        let controller = match last.as_ref().filter(|(of, _)| *of == targets) {
            Some((_, controller)) => controller.clone(),
            None => {
                let options = ResourceBasedSlotsOptions::builder()
                    .target_mem_usage(targets.memory)
                    .target_cpu_usage(targets.cpu)
                    .build();
                let controller = Arc::new(ResourceController::new(options));
                *last = Some((targets, controller.clone()));
                controller
            }
        };
        Some(Resources { controller, minimum })
    }
}

/// Core's supplier of slots for activities. Their greatest number is not its business.
pub fn activities(resources: &Resources) -> Option<Arc<dyn SlotSupplier<SlotKind = ActivitySlotKind> + Send + Sync>> {
    let minimum = usize::try_from(resources.minimum).unwrap_or(usize::MAX);
    let options = TunerHolderOptions::builder()
        .activity_slot_options(SlotSupplierOptions::ResourceBased(ResourceSlotOptions::new(minimum, usize::MAX, RAMP)))
        .resource_based_config(ResourceBasedTunerConfig::Controller(resources.controller.clone()))
        .build()
        .ok()?;
    Some(options.build_tuner_holder().ok()?.activity_task_slot_supplier())
}

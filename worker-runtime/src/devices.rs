//! The devices of the container, such as GPUs: each task gets the index of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use operator_core::contract::RuntimeLimits;
use parking_lot::Mutex;

/// How many tasks have each device, by its index; those of all Task Queues count. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Devices(Arc<Mutex<BTreeMap<u32, u32>>>);

/// A device that a task has until this is dropped.
#[derive(Debug)]
pub struct Device {
    index: u32,
    devices: Devices,
}

impl Devices {
    /// The first of `count` devices that the fewest tasks have; none of none.
    pub fn take(&self, count: u32) -> Option<Device> {
        let mut tasks = self.0.lock();
        let free = (0..count).find(|index| !tasks.contains_key(index));
        // With none free there are no more devices than tasks.
        let index = free.or_else(|| (0..count).min_by_key(|index| tasks.get(index).copied()))?;
        *tasks.entry(index).or_default() += 1;
        Some(Device { index, devices: self.clone() })
    }
}

impl Device {
    /// Its index, from 0.
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let mut tasks = self.devices.0.lock();
        match tasks.get_mut(&self.index) {
            Some(count @ 2..) => *count -= 1,
            _ => drop(tasks.remove(&self.index)),
        }
    }
}

/// Task Queues whose number of devices can't be, one line each.
pub fn problems(limits: &RuntimeLimits) -> Vec<String> {
    let none = limits.task_queues.iter().filter(|(_, limits)| limits.devices == Some(0));
    none.map(|(name, _)| format!("taskQueues[{name}].devices: is 0; give at least 1, or leave it out")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_gets_the_device_that_the_fewest_have() {
        let devices = Devices::default();
        let take = |count| devices.take(count).unwrap();
        let mut taken: Vec<_> = (0..5).map(|_| take(2)).collect();
        assert_eq!(taken.iter().map(Device::index).collect::<Vec<_>>(), [0, 1, 0, 1, 0]);
        // Another Task Queue may use more of them.
        assert_eq!(take(u32::MAX).index(), 2);
        taken.drain(..3);
        assert_eq!(taken.iter().map(Device::index).collect::<Vec<_>>(), [1, 0]);
        let one_each = [take(2), take(2)];
        assert_eq!(one_each.each_ref().map(Device::index), [0, 1]);
        drop((taken, one_each));
        assert!(devices.0.lock().is_empty(), "nothing is kept");
        assert!(devices.take(0).is_none());
    }

    #[test]
    fn no_devices_are_named() {
        let limits = serde_json::from_str(r#"{"taskQueues":{"a":{"devices":0},"b":{"devices":1},"c":{}}}"#).unwrap();
        assert_eq!(problems(&limits), ["taskQueues[a].devices: is 0; give at least 1, or leave it out"]);
    }
}

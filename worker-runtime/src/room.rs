//! How many slots one kind of task has on a Task Queue, and how many are taken: shared by all Workers that poll it, and
//! changed while they do.

use std::sync::Arc;

use tokio::sync::watch;

use crate::metrics::SlotMeters;

/// The slots. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Room(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    seats: watch::Sender<Seats>,
    meters: Option<SlotMeters>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seats {
    capacity: u32,
    /// Given out: to a poll, or to a task.
    held: u32,
    /// Of these, to a task.
    used: u32,
    /// Whether no further one can be given out for now, whatever the capacity says.
    short: bool,
}

/// A slot that was given out; free again when dropped.
#[derive(Debug)]
pub struct Place(Room);

impl Room {
    /// `capacity` free slots, shown by `meters`.
    pub fn new(capacity: u32, meters: Option<SlotMeters>) -> Self {
        let seats = watch::Sender::new(Seats { capacity, ..Seats::default() });
        let room = Self(Arc::new(Inner { seats, meters }));
        room.change(|_| {});
        room
    }

    /// Sets the number of slots. Tasks above a lower one go on; their slots are not given out again.
    pub fn resize(&self, capacity: u32) {
        self.change(|seats| seats.capacity = capacity);
    }

    /// Slots in all.
    pub fn capacity(&self) -> u32 {
        self.0.seats.borrow().capacity
    }

    /// Slots that are given out.
    #[cfg(test)]
    pub fn held(&self) -> u32 {
        self.0.seats.borrow().held
    }

    /// Slots that nobody holds.
    pub fn free(&self) -> u32 {
        let seats = *self.0.seats.borrow();
        seats.capacity.saturating_sub(seats.held)
    }

    /// Whether every slot runs a task.
    pub fn is_full(&self) -> bool {
        let seats = *self.0.seats.borrow();
        seats.short || seats.used >= seats.capacity
    }

    /// Waits for a free slot.
    pub async fn vacancy(&self) {
        // Fails only when the sender is gone, and `self` holds it.
        let _ = self.0.seats.subscribe().wait_for(|seats| seats.held < seats.capacity).await;
    }

    /// Takes a slot, if one is free.
    pub fn take(&self) -> Option<Place> {
        let taken = self.0.seats.send_if_modified(|seats| {
            let free = seats.held < seats.capacity;
            seats.held += u32::from(free);
            free
        });
        taken.then(|| Place(self.clone()))
    }

    /// A slot begins to run a task.
    pub fn occupy(&self) {
        self.change(|seats| seats.used += 1);
        if let Some(meters) = &self.0.meters {
            meters.started();
        }
    }

    /// A slot that ran a task no longer does.
    pub fn vacate(&self) {
        self.change(|seats| seats.used = seats.used.saturating_sub(1));
    }

    /// Says whether there is no room for a further task, though there are slots.
    pub fn set_short(&self, short: bool) {
        self.change(|seats| seats.short = short);
    }

    /// Gauges change under the lock of what they show.
    fn change(&self, how: impl FnOnce(&mut Seats)) {
        self.0.seats.send_modify(|seats| {
            how(seats);
            if let Some(meters) = &self.0.meters {
                let free = if seats.short { 0 } else { seats.capacity.saturating_sub(seats.used) };
                meters.show(seats.used, free);
            }
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.change(|seats| seats.held = seats.held.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::metrics::{Metrics, TaskType};

    #[test]
    fn a_smaller_room_gives_nothing_out_until_enough_came_back() {
        let room = Room::new(2, None);
        let (first, second) = (room.take().unwrap(), room.take().unwrap());
        room.resize(1);
        assert!(room.take().is_none());
        drop(first);
        assert!(room.take().is_none() && room.vacancy().now_or_never().is_none(), "one is allowed, and one is held");
        drop(second);
        assert!(room.vacancy().now_or_never().is_some());
        let _third = room.take().unwrap();
        room.resize(3);
        assert_eq!((room.free(), room.held()), (2, 1));
    }

    #[test]
    fn the_gauges_follow_tasks_sizes_and_want_of_resources() {
        let metrics = Metrics::new(None).unwrap();
        let room = Room::new(3, Some(metrics.slots("q", TaskType::Activity)));
        let values = || metrics.slots("q", TaskType::Activity).values();
        assert_eq!(values(), (0, 3, 0));
        room.occupy();
        room.occupy();
        assert_eq!(values(), (2, 1, 2));
        room.resize(1);
        assert_eq!(values(), (2, 0, 2), "tasks above the new size go on");
        assert!(room.is_full());
        room.resize(5);
        room.set_short(true);
        assert_eq!((values(), room.is_full()), ((2, 0, 2), true));
        room.set_short(false);
        room.vacate();
        assert_eq!(values(), (1, 4, 2));
    }
}

//! What happens when, in an order that is the same in every run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Micros;

/// Something that happens. At one moment the kinds happen in the order in which they stand here: what ends makes room for
/// what begins, and who looks sees all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The task in a slot of a pod is done.
    Finish { pod: u32, slot: u32 },
    /// The grace period of a pod is over.
    GraceOver { pod: u32 },
    /// A pod becomes Ready.
    Ready { pod: u32 },
    /// A task that was killed is put back.
    Return { task: u32 },
    /// A task arrives.
    Arrive { task: u32 },
    /// The rate limit of a Task Queue may let a task go.
    Turn { queue: u16 },
    /// The pods' metrics are read.
    Scrape,
    /// The orders to take no new task were not renewed for too long.
    CordonsLapse,
    /// The run's course is noted.
    Note,
    /// The policy is asked.
    Decide,
    /// The run may end.
    MayEnd,
    /// The run is given up, if nothing gets done.
    GiveUp,
}

impl Event {
    fn rank(self) -> u8 {
        match self {
            Self::Finish { .. } => 0,
            Self::GraceOver { .. } => 1,
            Self::Ready { .. } => 2,
            Self::Return { .. } => 3,
            Self::Arrive { .. } => 4,
            Self::Turn { .. } => 5,
            Self::Scrape => 6,
            Self::CordonsLapse => 7,
            Self::Note => 8,
            Self::Decide => 9,
            Self::MayEnd => 10,
            Self::GiveUp => 11,
        }
    }
}

/// An event with its place in the order: time, kind, and which was planned first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Planned {
    place: (Micros, u8, u64),
    event: Event,
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The events to come.
#[derive(Debug, Default)]
pub(super) struct Events {
    heap: BinaryHeap<Reverse<Planned>>,
    planned: u64,
}

impl Events {
    /// Plans an event.
    pub fn plan(&mut self, at: Micros, event: Event) {
        let place = (at, event.rank(), self.planned);
        self.planned += 1;
        self.heap.push(Reverse(Planned { place, event }));
    }

    /// When the next event is.
    pub fn next_at(&self) -> Option<Micros> {
        self.heap.peek().map(|Reverse(planned)| planned.place.0)
    }

    /// The next event and its time.
    pub fn next(&mut self) -> Option<(Micros, Event)> {
        self.heap.pop().map(|Reverse(planned)| (planned.place.0, planned.event))
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Events};

    #[test]
    fn events_come_by_time_then_kind_then_plan() {
        let mut events = Events::default();
        events.plan(5, Event::Decide);
        events.plan(5, Event::Arrive { task: 1 });
        events.plan(5, Event::Arrive { task: 0 });
        events.plan(5, Event::Finish { pod: 0, slot: 0 });
        events.plan(4, Event::GiveUp);
        let order: Vec<_> = std::iter::from_fn(|| events.next()).collect();
        assert_eq!(
            order,
            [
                (4, Event::GiveUp),
                (5, Event::Finish { pod: 0, slot: 0 }),
                (5, Event::Arrive { task: 1 }),
                (5, Event::Arrive { task: 0 }),
                (5, Event::Decide),
            ]
        );
    }
}

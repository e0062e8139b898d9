//! Places at the server for reads. What is read is decided once there is a place: what became urgent meanwhile does not stand behind
//! what was due earlier.

use std::pin::Pin;

use futures::future::{Either, pending, select};

use crate::temporal::budget::{Budget, Kind};
use crate::temporal::room::Permit;

/// The places that one poller has, and waits for: at most one of each kind.
#[derive(Default)]
pub(super) struct Places {
    queue: Place,
    deployment: Place,
}

#[derive(Default)]
enum Place {
    #[default]
    None,
    Awaited(Pin<Box<dyn Future<Output = Permit> + Send>>),
    Held(Permit),
}

impl Places {
    /// Whether there is a place for a read; if not, it is waited for from now on.
    pub(super) fn ready(&mut self, kind: Kind, budget: &Budget) -> bool {
        let (Some(place), Some(room)) = (self.of(kind), budget.places(kind)) else { return true };
        if let Place::None = place {
            let room = room.free();
            *place = match room.clone().try_acquire_owned() {
                Ok(permit) => Place::Held(permit),
                // It is never closed.
                Err(_) => Place::Awaited(Box::pin(async move {
                    match room.acquire_owned().await {
                        Ok(permit) => permit,
                        Err(_) => pending().await,
                    }
                })),
            };
        }
        matches!(place, Place::Held(_))
    }

    /// Takes the place for a read that is [`ready`](Self::ready); none for kinds that need none.
    pub(super) fn take(&mut self, kind: Kind) -> Option<Permit> {
        match std::mem::take(self.of(kind)?) {
            Place::Held(permit) => Some(permit),
            Place::None | Place::Awaited(_) => None,
        }
    }

    /// Gives back what is not needed now.
    pub(super) fn release(&mut self) {
        for place in [&mut self.queue, &mut self.deployment] {
            if let Place::Held(_) = place {
                *place = Place::None;
            }
        }
    }

    /// Ends when a place that is waited for is there; never when none is.
    pub(super) async fn come(&mut self) {
        match select(Box::pin(self.queue.come()), Box::pin(self.deployment.come())).await {
            Either::Left(((), _)) | Either::Right(((), _)) => {}
        }
    }

    fn of(&mut self, kind: Kind) -> Option<&mut Place> {
        match kind {
            Kind::Queue => Some(&mut self.queue),
            Kind::Deployment => Some(&mut self.deployment),
            Kind::Routing | Kind::List => None,
        }
    }
}

impl Place {
    async fn come(&mut self) {
        match self {
            Self::Awaited(place) => *self = Self::Held(place.await),
            Self::None | Self::Held(_) => pending().await,
        }
    }
}

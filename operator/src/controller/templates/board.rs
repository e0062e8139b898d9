//! What the templates know of the fleets, and what is remembered of the templates.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, future};
use operator_core::backoff::Backoff;
use operator_core::resource_template::Picture;
use parking_lot::Mutex;

use crate::changes::{Changes, FleetId};
use crate::kube::templates::copies::Applied;

/// What is remembered of a template.
#[derive(Clone, Default)]
pub(super) struct Remembered {
    /// Failures in a row.
    pub(super) backoff: Backoff,
    /// Its copies as they were last applied, by Build ID.
    pub(super) applied: HashMap<String, Applied>,
}

/// Pictures of the fleets of a scope that have templates, and what is remembered of those, by their UIDs.
#[derive(Default)]
pub struct Board {
    /// With the namespace; none of a fleet that was asked for and not seen since.
    pictures: Mutex<HashMap<FleetId, Option<(String, Picture)>>>,
    remembered: Mutex<HashMap<String, Remembered>>,
    changes: Arc<Changes>,
    asked: Arc<Changes>,
}

impl Board {
    /// Shows what a fleet looks like now, if that was ever asked. Its templates are woken when it is news.
    pub(super) fn show(&self, fleet: &FleetId, namespace: &str, picture: impl FnOnce() -> Picture) {
        let mut pictures = self.pictures.lock();
        let Some(before) = pictures.get_mut(fleet) else { return };
        let picture = picture();
        if before.as_ref().is_none_or(|(_, before)| *before != picture) {
            *before = Some((namespace.to_owned(), picture));
            self.changes.send(fleet);
        }
    }

    /// Forgets a fleet that is gone.
    pub fn forget(&self, fleet: &FleetId) {
        self.pictures.lock().remove(fleet);
    }

    /// What a fleet looked like last. It is to be looked at and shown when that is not known.
    pub(super) fn picture(&self, fleet: &FleetId) -> Option<Picture> {
        let mut pictures = self.pictures.lock();
        let Some((_, picture)) = pictures.entry(fleet.clone()).or_default() else {
            self.asked.send(fleet);
            return None;
        };
        Some(picture.clone())
    }

    /// Fleets that are to be looked at, as somebody asked for them.
    pub fn asked(&self) -> Arc<Changes> {
        self.asked.clone()
    }

    /// Namespaces and names of the fleets with news.
    pub(super) fn news(self: Arc<Self>) -> impl Stream<Item = (String, String)> + Send {
        self.changes.clone().stream().filter_map(move |fleet| {
            let pictures = self.pictures.lock();
            let shown = pictures.get(&fleet).and_then(Option::as_ref);
            future::ready(shown.map(|(namespace, picture)| (namespace.clone(), picture.fleet.clone())))
        })
    }

    pub(super) fn recall(&self, template: &str) -> Remembered {
        self.remembered.lock().get(template).cloned().unwrap_or_default()
    }

    pub(super) fn remember(&self, template: &str, remembered: Remembered) {
        self.remembered.lock().insert(template.to_owned(), remembered);
    }

    /// Forgets a template that is gone.
    pub(super) fn forget_template(&self, template: &str) {
        self.remembered.lock().remove(template);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn templates_are_woken_by_news_alone() {
        let board = Arc::new(Board::default());
        let mut news = board.clone().news().boxed();
        let of = |fleet: &str| Picture { fleet: fleet.to_owned(), ..Picture::default() };
        for fleet in ["a", "b"] {
            assert_eq!(board.picture(&fleet.into()), None);
            board.show(&fleet.into(), "prod", || of(fleet));
            assert_eq!(news.next().await, Some(("prod".to_owned(), fleet.to_owned())));
        }
        board.show(&"a".into(), "prod", || of("a"));
        board.show(&"b".into(), "prod", || Picture { is_deleted: true, ..of("b") });
        assert_eq!(news.next().await.map(|(_, name)| name).as_deref(), Some("b"));
        board.forget(&"a".into());
        assert_eq!(board.picture(&"a".into()), None);
        assert!(board.picture(&"b".into()).is_some_and(|picture| picture.is_deleted));
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_fleet_until_a_template_asks_for_it_and_then_it_is_looked_at() {
        let board = Board::default();
        let fleet = FleetId::from("a");
        board.show(&fleet, "prod", || panic!("nobody asked"));
        assert_eq!(board.picture(&fleet), None);
        assert_eq!(board.asked().next().await, fleet);
        board.show(&fleet, "prod", Picture::default);
        assert_eq!(board.picture(&fleet), Some(Picture::default()));
        assert_eq!(board.asked.next().now_or_never(), None, "it is known now");
    }
}

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

/// Pictures of the fleets of a scope, and what is remembered of its templates, by their UIDs.
#[derive(Default)]
pub struct Board {
    pictures: Mutex<HashMap<FleetId, (String, Picture)>>,
    remembered: Mutex<HashMap<String, Remembered>>,
    changes: Arc<Changes>,
}

impl Board {
    /// Shows what a fleet looks like now. Its templates are woken when that is news.
    pub(super) fn show(&self, fleet: &FleetId, namespace: &str, picture: Picture) {
        let mut pictures = self.pictures.lock();
        if pictures.get(fleet).is_none_or(|(_, before)| *before != picture) {
            pictures.insert(fleet.clone(), (namespace.to_owned(), picture));
            self.changes.send(fleet);
        }
    }

    /// Forgets a fleet that is gone.
    pub fn forget(&self, fleet: &FleetId) {
        self.pictures.lock().remove(fleet);
    }

    /// What a fleet looked like last; none before it was first seen.
    pub(super) fn picture(&self, fleet: &FleetId) -> Option<Picture> {
        self.pictures.lock().get(fleet).map(|(_, picture)| picture.clone())
    }

    /// Namespaces and names of the fleets with news.
    pub(super) fn news(self: Arc<Self>) -> impl Stream<Item = (String, String)> + Send {
        self.changes.clone().stream().filter_map(move |fleet| {
            let pictures = self.pictures.lock();
            let named = pictures.get(&fleet).map(|(namespace, picture)| (namespace.clone(), picture.fleet.clone()));
            future::ready(named)
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
    use super::*;

    #[tokio::test]
    async fn templates_are_woken_by_news_alone() {
        let board = Arc::new(Board::default());
        let mut news = board.clone().news().boxed();
        let of = |fleet: &str| Picture { fleet: fleet.to_owned(), ..Picture::default() };
        for fleet in ["a", "b"] {
            board.show(&fleet.into(), "prod", of(fleet));
            assert_eq!(news.next().await, Some(("prod".to_owned(), fleet.to_owned())));
        }
        board.show(&"a".into(), "prod", of("a"));
        board.show(&"b".into(), "prod", Picture { is_deleted: true, ..of("b") });
        assert_eq!(news.next().await.map(|(_, name)| name).as_deref(), Some("b"));
        board.forget(&"a".into());
        assert_eq!(board.picture(&"a".into()), None);
        assert!(board.picture(&"b".into()).is_some_and(|picture| picture.is_deleted));
    }
}

//! The watch of the templates of a scope. Their kind need not be installed.

use futures::StreamExt as _;
use futures::stream::BoxStream;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt as _, predicates};
use kube::{Client, Resource as _, ResourceExt as _};
use operator_core::api::WorkerResourceTemplate;
use parking_lot::Mutex;

use crate::kube::watches::{Guarded, REFUSED_PAUSE, api, config, refusal};

/// Reference to a template.
pub type TemplateRef = ObjectRef<Guarded<WorkerResourceTemplate>>;

/// The templates of a scope.
pub struct Watch {
    /// Their cache.
    pub store: Store<Guarded<WorkerResourceTemplate>>,
    /// Those whose spec changed.
    pub changed: BoxStream<'static, Result<Guarded<WorkerResourceTemplate>, watcher::Error>>,
}

/// Starts the watch. `deleted` is told the UID of every template that is gone.
pub fn start(client: &Client, namespace: Option<&str>, deleted: impl Fn(&str) + Send + Sync + 'static) -> Watch {
    let (store, writer) = kube::runtime::reflector::store();
    let told = Mutex::new(None);
    let changed = watcher(api::<Guarded<WorkerResourceTemplate>>(client, namespace), config())
        .default_backoff()
        .modify(|template| template.managed_fields_mut().clear())
        .inspect(move |event| {
            if let Ok(Event::Delete(template)) = event {
                deleted(template.uid().as_deref().unwrap_or_default());
            }
            tell(event, &told);
        })
        .reflect(writer)
        .then(|event| async {
            if refusal(&event).is_some() {
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            event
        })
        .applied_objects()
        .predicate_filter(predicates::generation, kube::runtime::PredicateConfig::default())
        .boxed();
    Watch { store, changed }
}

/// Says once that they can't be read, and each time that the watch was interrupted.
fn tell(event: &Result<Event<Guarded<WorkerResourceTemplate>>, watcher::Error>, told: &Mutex<Option<String>>) {
    let (Err(error), mut told) = (event, told.lock()) else { return };
    match refusal(event) {
        Some(reason) if told.as_ref() != Some(&reason) => {
            tracing::warn!(reason, "WorkerResourceTemplates can't be read; none is served");
            *told = Some(reason);
        }
        Some(_) => {}
        None => tracing::warn!(%error, kind = "WorkerResourceTemplate", "watch interrupted"),
    }
}

/// References to the templates of a namespace that name a fleet.
#[must_use]
pub fn of_fleet(store: &Store<Guarded<WorkerResourceTemplate>>, namespace: &str, fleet: &str) -> Vec<TemplateRef> {
    let names = |template: &Guarded<WorkerResourceTemplate>| {
        template.meta().namespace.as_deref() == Some(namespace)
            && template.0.as_ref().is_ok_and(|template| template.spec.fleet() == fleet)
    };
    store.state_filter(names).iter().map(|template| ObjectRef::from_obj(&**template)).collect()
}

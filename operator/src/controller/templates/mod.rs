//! WorkerResourceTemplates beside the fleets: what fails here is said on the template, and no fleet waits for it.

mod board;
mod reconcile;

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use kube::runtime::Controller;
use kube::runtime::controller::Config;
use operator_core::api::WorkerResourceTemplate;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::look::Reconcile;
use crate::kube::templates::kinds::Kinds;
use crate::kube::templates::policy::Policy;
use crate::kube::templates::watch;
use crate::kube::watches::Guarded;
use crate::settings::TemplateSettings;

pub use board::Board;
use operator_core::fleet::Fleet;
use operator_core::observed::{KubeState, TemporalState};
use operator_core::plan::Plan;
use operator_core::resource_template::{AllowedKinds, PictureInput, picture};
use reconcile::Templates;

/// Most templates that are looked at at a time.
const CONCURRENCY: u16 = 8;

/// What templates may be, and how that is found out.
pub struct Rules {
    kinds: Kinds,
    policy: Policy,
    allowed: AllowedKinds,
}

impl Rules {
    /// The rules by the settings.
    #[must_use]
    pub fn new(client: &kube::Client, settings: &TemplateSettings) -> Self {
        Self {
            kinds: Kinds::new(client.clone()),
            policy: Policy::new(client.clone(), settings.policy()),
            allowed: settings.kinds(),
        }
    }
}

/// Serves the templates of a scope until it is told to stop.
pub(super) async fn run(ctx: Arc<Context>, namespace: Option<&str>, stop: CancellationToken) {
    let forgetting = ctx.clone();
    let watch = watch::start(&ctx.client, namespace, move |uid| forgetting.templates.forget_template(uid));
    let store = watch.store.clone();
    let touched = ctx
        .templates
        .clone()
        .news()
        .flat_map(move |(namespace, fleet)| stream::iter(watch::of_fleet(&store, &namespace, &fleet)));
    let led = ctx.leadership.clone().gained();
    let templates = Arc::new(Templates { ctx, store: watch.store.clone() });
    Controller::for_stream(watch.changed, watch.store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(touched.boxed())
        .reconcile_all_on(led)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(
            |template: Arc<Guarded<WorkerResourceTemplate>>, templates: Arc<Templates>| async move {
                // Nothing is decided on a cache that has not been filled.
                templates.ctx.caches.wait_until_ready().await;
                templates.reconcile(&template).await
            },
            |template, error, templates| templates.again_after(&template, error),
            templates,
        )
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::warn!(%error, "template not reconciled");
            }
        })
        .await;
}

impl Reconcile<'_> {
    /// Shows the templates of this fleet what was seen of it.
    pub(super) fn show_templates(&self, kube: &KubeState, planned: Option<(&Fleet, &TemporalState, &Plan)>) {
        let seen = || picture(&PictureInput { object: self.wd, kube, planned });
        self.ctx.templates.show(self.id, self.key.namespace, seen);
    }
}

//! What the pods say of their own load: slots in use, slots free, tasks started.
//!
//! Nothing here knows Kubernetes: the reconciler says which pods a fleet has ([`Scraper::set`]) and takes what each said
//! last, with its age ([`Scraper::snapshot`]).

mod metrics;
mod page;
mod rounds;
mod scraper;
mod sdks;

pub use metrics::Metrics;
pub use scraper::{LOAD_FRESH, Scraper, Settings, Target};

//! What the pods say of their own load: slots in use, slots free, tasks started and how long they waited, CPU.
//!
//! Nothing here knows Kubernetes: the reconciler says which pods a fleet has ([`Scraper::set`]) and takes what each said
//! last, with its age ([`Scraper::snapshot`]).

mod cordon;
mod labels;
mod metrics;
mod page;
mod reading;
mod rounds;
mod scraper;
mod sdks;
mod series;
mod word;

pub use cordon::{Cordons, MayWrite, Pod as OrderedPod};
pub use metrics::Metrics;
pub use scraper::{LOAD_FRESH, Scraper, Seen, Settings, Target};

//! A simulator of autoscalers for Temporal Workers.
//!
//! A [`Workload`] is drawn once, then [`simulate`] plays it against a [`Policy`]: a Task Queue as the server keeps and
//! describes it, pods as Kubernetes and the SDK make them, and the policy as the only thing that differs. The simulation does
//! no I/O and reads no clock; the same workload, policy and seed give the same run, byte for byte.
//!
//! * [`traces`]: the built-in workloads, synthetic and recorded; [`csv`]: one's own.
//! * [`world`], [`server`]: cluster, queue and what the server tells of it.
//! * [`observation`], [`policy`], [`policies`]: what a policy may know, what it is, and which there are. `ours` is the
//!   operator's own decision, linked unchanged.
//! * [`replay`]: decisions that an operator recorded, made again.
//! * [`lanes`]: decisions taken out of runs, to measure the decision's speed on.
//! * [`ramp`]: two versions of a fleet while a rollout goes on.
//! * [`run`](mod@run), [`table`], [`marks`], [`plot`]: runs and what is told of them.
#![deny(missing_docs)]

pub mod cli;
pub mod csv;
pub mod lanes;
pub mod marks;
pub mod observation;
pub mod plot;
pub mod policies;
pub mod policy;
pub mod ramp;
pub mod random;
pub mod replay;
pub mod run;
pub mod server;
pub mod table;
pub mod time;
pub mod traces;
pub mod workload;
pub mod world;

pub use observation::{Bounds, Observation};
pub use policy::{Policy, PolicyName, Verdict};
pub use run::{Course, Figures, Note, Run, simulate, simulate_with};
pub use workload::{Options, Task, Window, Workload};

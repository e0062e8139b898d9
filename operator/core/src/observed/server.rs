//! What the Temporal server says of a Worker Deployment and its versions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{LaneKey, LaneStats, Observation};

/// State of a Worker Deployment Version, as the server names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VersionStatus {
    /// The server has no record of it.
    #[default]
    NotRegistered,
    /// Known, with no traffic.
    Inactive,
    /// Gets a share of the traffic.
    Ramping,
    /// Gets the traffic.
    Current,
    /// Lost the traffic; pinned Workflows may be open.
    Draining,
    /// Lost the traffic; no pinned Workflow is open.
    Drained,
}

/// What the server knows of one version, by a description of the version itself. Times are the server's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VersionInfo {
    /// The server's own word.
    pub status: VersionStatus,
    /// Lanes that its Workers have polled.
    pub lanes: BTreeSet<LaneKey>,
    /// Time since [`VersionInfo::lanes`] last changed, as seen by this operator.
    pub lanes_unchanged_for: Duration,
    /// Backlog and rates by lane.
    pub stats: BTreeMap<LaneKey, LaneStats>,
    /// When it was last the current version, if it ever was.
    pub last_current_at: Option<Timestamp>,
    /// Since when it has had [`VersionInfo::status`], if that is `Draining` or `Drained` and the server tells.
    pub drainage_changed_at: Option<Timestamp>,
    /// Time since this operator saw the status change, if it did.
    pub status_unchanged_for: Option<Duration>,
}

/// What the description of the Worker Deployment says of a version: enough to name it, not to act on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VersionSummary {
    /// The server's own word.
    pub status: VersionStatus,
    /// When the server made the record.
    pub created_at: Option<Timestamp>,
    /// Since when it has had [`VersionSummary::status`], if that is `Draining` or `Drained` and the server tells.
    pub drainage_changed_at: Option<Timestamp>,
}

/// A version that gets a share of the traffic. Times are the server's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ramp {
    /// Its Build ID; empty when unversioned Workers get the share.
    pub build_id: String,
    /// The share, in percent.
    pub percent: f32,
    /// Since when it ramps.
    pub since: Option<Timestamp>,
    /// When the share last changed.
    pub changed_at: Option<Timestamp>,
    /// Time since this operator saw version or share change; none when they were so already when it first looked.
    pub unchanged_for: Option<Duration>,
}

/// What the server knows of a Worker Deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeploymentInfo {
    /// Build ID of the current version; none when unversioned Workers get the traffic.
    pub current_build_id: Option<String>,
    /// The version that gets a share of the traffic, if one does.
    pub ramp: Option<Ramp>,
    /// Versions by Build ID, those that are asked for. `Known` with `None`: the server was asked for this version and has no
    /// record of it.
    pub versions: BTreeMap<String, Observation<Option<VersionInfo>>>,
    /// Every version by Build ID, in a word; missing where it is remembered.
    pub summaries: BTreeMap<String, VersionSummary>,
    /// Whether it is what the fleet's status had, of which a list of the server said that the traffic is still so.
    pub remembered: bool,
    /// Token that a change of the routing must carry.
    pub conflict_token: Vec<u8>,
    /// Identity that alone may change the routing; empty when anybody may.
    pub manager_identity: String,
    /// Identity that changed it last.
    pub last_modifier_identity: String,
}

impl DeploymentInfo {
    /// What was last read of a version, however old.
    #[must_use]
    pub fn version(&self, build_id: &str) -> Option<&VersionInfo> {
        self.versions.get(build_id).and_then(Observation::last).and_then(Option::as_ref)
    }

    /// The answer for a version, if it is fresh: `Some(None)` when the server has no record of it.
    #[must_use]
    pub fn known_version(&self, build_id: &str) -> Option<Option<&VersionInfo>> {
        self.versions.get(build_id).and_then(Observation::known).map(Option::as_ref)
    }

    /// The share of the traffic that a version gets while it ramps, in percent.
    #[must_use]
    pub fn ramp_of(&self, build_id: &str) -> Option<&Ramp> {
        self.ramp.as_ref().filter(|ramp| ramp.build_id == build_id)
    }
}

//! From `spec.scaling` to what the decision is given.

use std::time::Duration;

use super::{count, duration};
use crate::api::{AUTO, RoleFloor, ScalingMode, ScalingPause, ScalingRoles, ScalingSchedule, ScalingSpec};
use crate::scaling::versions::RoleFloors;
use crate::scaling::{IdleWindow, Mode, Pause, Policy, Ramp};
use crate::schedule::{Schedule, ScheduleError};

/// `spec.scaling`, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// What the user asks of every decision.
    pub policy: Policy,
    /// Floors by the clock.
    pub schedules: Vec<Schedule>,
    /// Fewest pods by role.
    pub roles: RoleFloors,
    /// Time for which a version keeps its pods after it was current.
    pub keep_warm: Option<Duration>,
    /// Decide and report only.
    pub dry_run: bool,
}

/// Resolves `spec.scaling`. What is wrong is added to `wrong`: field, value and remedy, a sentence each.
pub(super) fn scaling(spec: &ScalingSpec, wrong: &mut Vec<String>) -> Scaling {
    Scaling {
        policy: policy(spec, wrong),
        schedules: spec.schedule.iter().filter_map(|entry| schedule(entry, wrong)).collect(),
        roles: role_floors(spec.roles.as_ref()),
        keep_warm: keep_warm(spec.roles.as_ref(), wrong),
        dry_run: spec.dry_run,
    }
}

fn role_floors(roles: Option<&ScalingRoles>) -> RoleFloors {
    let of = |role: Option<RoleFloor>| role.map_or(0, |role| count(role.min_replicas));
    let roles = roles.cloned().unwrap_or_default();
    RoleFloors { current: of(roles.current), ramping: of(roles.ramping), draining: of(roles.draining), keep_warm: 0 }
}

fn keep_warm(roles: Option<&ScalingRoles>, wrong: &mut Vec<String>) -> Option<Duration> {
    let keep = roles?.keep_warm_for_rollback.as_ref()?;
    Some(duration(keep, "spec.scaling.roles.keepWarmForRollback", wrong))
}

fn policy(spec: &ScalingSpec, wrong: &mut Vec<String>) -> Policy {
    let ramp = spec.ramp.unwrap_or_default();
    Policy {
        min_replicas: count(spec.min_replicas),
        max_replicas: count(spec.max_replicas),
        target_latency: duration(&spec.target_latency, "spec.scaling.targetLatency", wrong),
        percentile: f64::from(spec.percentile) / 100.0,
        idle_window: idle_window(spec, wrong),
        pause: match spec.pause {
            ScalingPause::None => Pause::None,
            ScalingPause::Down => Pause::Down,
            ScalingPause::All => Pause::All,
        },
        mode: match spec.mode {
            ScalingMode::Full => Mode::Full,
            ScalingMode::ServerOnly => Mode::ServerOnly,
        },
        ramp: Ramp { up_per_minute: ramp.up_per_minute.map(count), down_per_minute: ramp.down_per_minute.map(count) },
    }
}

fn idle_window(spec: &ScalingSpec, wrong: &mut Vec<String>) -> IdleWindow {
    if spec.idle_window.as_str() == AUTO {
        return IdleWindow::Auto;
    }
    IdleWindow::Fixed(duration(&spec.idle_window, "spec.scaling.idleWindow", wrong))
}

fn schedule(entry: &ScalingSchedule, wrong: &mut Vec<String>) -> Option<Schedule> {
    let path = |field: &str| format!("spec.scaling.schedule[{}].{field}", entry.name);
    let time: Duration = duration(&entry.duration, &path("duration"), wrong);
    let parsed = Schedule::parse(&entry.name, &entry.cron, &entry.timezone, time, count(entry.min_replicas));
    parsed
        .map_err(|error| {
            let field = match error {
                ScheduleError::Cron { .. } | ScheduleError::Never(_) => "cron",
                ScheduleError::TimeZone(_) => "timezone",
            };
            wrong.push(format!("{}: {error}.", path(field)));
        })
        .ok()
}

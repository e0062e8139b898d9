//! Fleets on a real cluster, with the operator installed by Helm as two pods and a real Temporal server. Needs root.

mod cluster;

use std::process::ExitCode;

use cluster::{
    bad_pods, changes, cutover, drain, faults, futile, gates, handlers, life, moves, polyglot, recording, replicas,
    rest, rollouts, rotation, secrets, shrink, sidecars, signals, steady, versions,
};
use e2e::{ClusterBed, scenario, suite};

/// Scenarios at a time. Two cores serve them all; more would only make each of them slower.
const SIDE_BY_SIDE: u32 = 7;

fn main() -> ExitCode {
    // The longest first; those that nothing may run beside at the end.
    let scenarios = vec![
        scenario!(steady::long_a_constant_load_changes_nothing, minutes 10),
        scenario!(shrink::with_cordon_a_busy_fleet_shrinks_within_one_task_time, minutes 8),
        scenario!(faults::the_server_is_cut_off_in_a_burst, minutes 8),
        scenario!(shrink::without_cordon_no_busy_pod_is_removed),
        scenario!(moves::a_fleet_moves_to_versions_and_back_with_tasks_running, minutes 8),
        scenario!(rollouts::workflows_keep_to_their_versions_through_a_rollout_and_a_way_back, minutes 12),
        scenario!(polyglot::one_workflow_uses_workers_of_every_language, minutes 8),
        scenario!(futile::a_rate_limited_queue_gets_no_useless_pods),
        scenario!(drain::idle_pods_go_first),
        scenario!(steady::a_busy_queue_without_backlog_never_goes_to_zero),
        scenario!(changes::running_pods_take_a_change_over_and_a_killed_one_loses_nothing, minutes 6),
        scenario!(rotation::a_new_certificate_is_taken_under_load_and_the_old_one_is_not_missed, minutes 6),
        scenario!(rotation::keys_change_under_load_and_every_payload_can_be_read, minutes 6),
        scenario!(rotation::sidecars_take_a_new_key_and_a_new_certificate_under_load, minutes 8),
        scenario!(sidecars::a_go_worker_loses_no_task_that_it_loses_without, minutes 6),
        scenario!(cutover::a_deployment_becomes_a_fleet_under_load_without_a_gap, minutes 6),
        scenario!(sidecars::a_sidecar_that_is_killed_loses_no_task),
        scenario!(signals::pods_whose_metrics_are_cut_off_are_kept),
        scenario!(futile::an_image_that_never_starts_gets_no_more_pods),
        scenario!(shrink::kubernetes_alone_kills_long_tasks),
        scenario!(rest::fleets_without_tasks_come_to_rest),
        scenario!(life::from_one_to_zero_to_many_and_back),
        scenario!(gates::a_release_is_promoted_once_its_gate_passed_and_goes_back_when_one_fails, minutes 6),
        scenario!(drain::a_rolling_restart_finishes_what_runs),
        scenario!(drain::an_evicted_pod_finishes_what_it_runs),
        scenario!(drain::a_pod_that_is_deleted_under_load_loses_nothing),
        scenario!(handlers::one_pod_runs_five_task_queues_and_every_kind_of_handler),
        scenario!(handlers::each_task_has_a_device_of_its_pod),
        scenario!(versions::a_changed_fleet_ramps_to_its_new_version_and_the_old_one_ends_its_work),
        scenario!(replicas::without_scaling_replicas_stay_as_they_are),
        scenario!(replicas::a_fleet_without_versioning_is_one_deployment),
        scenario!(bad_pods::a_pod_that_does_not_start_is_named_with_cause_and_remedy),
        scenario!(bad_pods::a_handler_that_does_not_work_fails_its_tasks_with_the_cause),
        scenario!(secrets::nothing_shows_a_secret),
        scenario!(faults::the_leader_is_killed_with_work_undone, alone),
        scenario!(recording::what_was_decided_is_decided_again, alone),
        scenario!(rest::at_rest_the_operator_writes_nothing_but_its_lease, alone),
    ];
    suite::main::<ClusterBed>(scenarios, SIDE_BY_SIDE)
}

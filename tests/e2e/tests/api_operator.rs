//! The operator against etcd and the API server alone, and a Temporal server: what it writes, what it refuses, and what it
//! says. No pods run; where one is needed, its Worker is a process of this machine.

mod operator;
mod runtime_support;

use std::process::ExitCode;

use e2e::suite::Scenario;
use e2e::{HostBed, scenario, suite};
use operator::{
    adoption, attach, child, connections, cordon, deletion, gates, holding, kills, leader, limited, manifests, migrate,
    old_kinds, owner_rights, plan, push, rights, scaling, served, server, shared, takeover, template_authors,
    templates, tenants,
};

/// Scenarios at a time: there are no pods, and what they wait for is mostly time.
const SIDE_BY_SIDE: u32 = 10;

fn main() -> ExitCode {
    // What takes long begins first; those of the rights take pauses of a minute.
    let scenarios = [of_rights(), of_the_way_here(), of_a_fleet()].into_iter().flatten().collect();
    suite::main(scenarios, SIDE_BY_SIDE)
}

/// What the operator's account may do, and does.
fn of_rights() -> Vec<Scenario<HostBed>> {
    vec![
        scenario!(rights::an_operator_of_all_namespaces_uses_what_the_chart_grants_and_no_more, minutes 12),
        scenario!(rights::an_operator_of_listed_namespaces_uses_what_the_chart_grants_and_no_more, minutes 12),
        scenario!(owner_rights::an_api_server_that_checks_owners_asks_for_each_right_that_is_granted_for_it),
    ]
}

/// What others left, and objects that others write.
fn of_the_way_here() -> Vec<Scenario<HostBed>> {
    vec![
        scenario!(limited::limited_to_namespaces_it_reads_them_where_it_may_and_keeps_none),
        scenario!(limited::without_their_kind_all_else_goes_on),
        scenario!(old_kinds::without_the_old_kinds_all_else_goes_on_and_later_they_are_found),
        scenario!(templates::every_version_gets_a_copy_of_each_kind_and_drift_is_mended, minutes 12),
        scenario!(migrate::what_stands_in_the_way_is_listed_until_nothing_does),
        scenario!(migrate::what_replaces_a_deployment_is_taken_by_the_api_server),
        scenario!(served::nothing_is_written_before_the_fields_are_served),
        scenario!(served::nothing_is_written_before_helm_has_taken_over_an_older_releases_kinds),
        scenario!(adoption::its_deployment_is_taken_over_without_a_new_pod),
        scenario!(adoption::a_template_with_the_hash_of_another_one_is_a_version_of_its_own),
        scenario!(takeover::what_each_release_left_is_taken_over_without_a_write_to_a_template_or_the_routing),
        scenario!(takeover::a_foreign_manager_is_named_and_taken_over_once_the_fleet_says_so),
        scenario!(takeover::a_manager_in_another_namespace_is_named_and_waited_for),
        scenario!(old_kinds::a_fleet_of_the_old_kind_is_handed_over_and_goes_only_then),
        scenario!(templates::roles_and_the_owner_of_replicas_decide_which_copies_there_are, minutes 12),
        scenario!(template_authors::an_author_can_do_no_more_by_a_template_than_without),
        scenario!(templates::without_the_policy_they_are_off),
        scenario!(tenants::no_attempt_crosses_the_border_of_a_namespace),
        scenario!(tenants::long_without_its_guard_an_attempt_of_each_way_leaks, minutes 45),
    ]
}

/// What the operator does with a fleet.
fn of_a_fleet() -> Vec<Scenario<HostBed>> {
    vec![
        scenario!(connections::a_corrected_secret_is_found_within_a_minute),
        scenario!(shared::a_namespace_that_is_not_allowed_keeps_its_pods_and_reads_no_secret),
        scenario!(push::a_call_of_the_server_raises_a_fleet_from_zero_through_either_replica),
        scenario!(gates::a_gate_waits_for_its_argument_fails_and_is_run_again_once_whatever_ends_in_between),
        scenario!(leader::one_of_two_writes_and_a_paused_leader_never_again),
        scenario!(
            kills::long_a_kill_before_and_after_each_write_changes_nothing_of_where_a_rollout_ends,
            minutes 30
        ),
        scenario!(scaling::what_was_learned_survives_a_restart),
        scenario!(scaling::a_dry_run_is_explained_and_changes_no_replicas),
        scenario!(plan::it_says_what_the_operator_then_does_and_writes_nothing),
        scenario!(plan::what_can_not_be_planned_is_named_with_its_remedy),
        scenario!(connections::a_missing_connection_is_named_and_found_when_it_appears),
        scenario!(connections::a_secret_that_can_not_be_used_is_named_with_its_remedy),
        scenario!(cordon::a_pod_too_many_is_cordoned_then_removed_and_taken_back_on_demand),
        scenario!(cordon::the_key_is_one_secret_of_the_operators_own_namespace),
        scenario!(server::a_server_that_does_not_answer_changes_nothing),
        scenario!(server::an_unknown_temporal_namespace_is_named),
        scenario!(server::a_refused_permission_is_said),
        scenario!(manifests::a_template_without_containers_is_refused),
        scenario!(manifests::a_name_with_a_dot_is_refused),
        scenario!(manifests::a_stored_object_that_can_not_be_read_stops_nobody_else),
        scenario!(child::it_is_exactly_what_the_contract_says),
        scenario!(child::a_variable_of_the_users_is_replaced_with_a_warning),
        scenario!(child::replicas_are_written_by_scale_alone),
        scenario!(child::a_deployment_of_somebody_else_is_never_touched),
        scenario!(child::what_somebody_changes_is_put_back),
        scenario!(attach::target_and_current_follow_a_changed_connection_and_an_old_version_keeps_its_own),
        scenario!(attach::a_changed_namespace_reaches_the_target_and_the_current_version_works_on_where_it_is),
        scenario!(attach::a_switch_of_credentials_changes_the_pods_wholly),
        scenario!(attach::what_somebody_else_left_of_a_connection_is_taken_away),
        scenario!(attach::how_pods_are_replaced_reaches_the_version_that_is_there),
        scenario!(holding::a_connection_that_is_used_goes_when_the_fleet_has_another),
        scenario!(holding::fleets_that_are_deleted_together_after_their_connection_leave_nothing),
        scenario!(shared::each_namespace_shows_a_certificate_of_its_own),
        scenario!(shared::a_missing_one_is_named_and_a_change_reaches_every_namespace),
        scenario!(shared::one_that_a_fleet_of_any_namespace_uses_stays),
        scenario!(deletion::a_deleted_fleet_has_no_pods_before_it_goes),
        scenario!(deletion::a_deletion_says_what_it_waits_for_and_an_orphan_goes_at_once),
    ]
}

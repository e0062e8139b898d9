//! What kind of test a test is, by where it stands and what it is called.
//!
//! | where | kind |
//! | --- | --- |
//! | package `bench` | bench |
//! | integration test of a package below `tests/`, file or test named `api_*`, `chart_*` or `control_plane*` | api |
//! | any other integration test of a package below `tests/` | e2e |
//! | a part of the path starts with `propert` or `prop_`, or a part of the file's name is `property` or `properties` | property |
//! | everything else | unit |
//!
//! A test with a part of its path, or a file, that starts with `long_` is for `make test-long` alone.

use std::time::Duration;

use serde::Serialize;

use crate::binaries::Target;

/// Kind of a test, as the summary spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Functions of data, and adapters against doubles.
    Unit,
    /// Generated inputs.
    Property,
    /// Against a real etcd and API server, or a real Helm.
    Api,
    /// Against a whole cluster, a Temporal server, or both.
    E2e,
    /// Measurements.
    Bench,
}

impl Kind {
    /// How long all tests of one binary may take together, before the binary is ended.
    pub const fn deadline(self) -> Duration {
        Duration::from_secs(
            60 * match self {
                Self::Unit | Self::Property => 5,
                Self::Api => 10,
                Self::E2e | Self::Bench => 30,
            },
        )
    }
}

/// The kind of the test `path`, such as `scaling::tests::more_slots`, of `target`.
pub fn kind_of(target: &Target, path: &str) -> Kind {
    if target.package == "bench" {
        return Kind::Bench;
    }
    if target.needs_machine() {
        let on_api_server =
            |name: &str| ["api_", "chart_", "control_plane"].iter().any(|prefix| name.starts_with(prefix));
        let last = path.rsplit("::").next().unwrap_or(path);
        return if on_api_server(&target.name) || on_api_server(last) { Kind::Api } else { Kind::E2e };
    }
    let generated = path.split("::").any(|part| part.starts_with("propert") || part.starts_with("prop_"))
        || target.name.split(['_', '-']).any(|part| matches!(part, "property" | "properties"));
    if generated { Kind::Property } else { Kind::Unit }
}

/// Whether the test is for `make test-long` alone.
pub fn is_long(target: &Target, path: &str) -> bool {
    target.name.starts_with("long_") || path.split("::").any(|part| part.starts_with("long_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(package: &str, name: &str, directory: &str, integration: bool) -> Target {
        Target {
            package: package.into(),
            name: name.into(),
            directory: directory.into(),
            integration,
            ..Default::default()
        }
    }

    #[test]
    fn the_kind_follows_from_package_file_and_path() {
        let core = target("operator-core", "scaling", "/r/operator/core", true);
        let generated = target("operator-core", "build_id_properties", "/r/operator/core", true);
        let kinds = target("e2e", "api_kinds", "/r/tests/e2e", true);
        let chart = target("e2e", "chart_values", "/r/tests/e2e", true);
        let faults = target("e2e", "faults", "/r/tests/e2e", true);
        let harness = target("harness", "control_plane", "/r/tests/harness", true);
        let harness_library = target("harness", "harness", "/r/tests/harness", false);
        let bench = target("bench", "bench", "/r/tests/bench", false);
        let table = [
            (&core, "up::more_backlog_needs_more_slots", Kind::Unit),
            (&core, "properties::never_below_the_minimum", Kind::Property),
            (&core, "up::properly_rounded", Kind::Unit),
            (&generated, "any_template_has_one_build_id", Kind::Property),
            (&kinds, "a_good_object_is_stored", Kind::Api),
            (&chart, "unknown_keys_are_refused", Kind::Api),
            (&faults, "the_server_is_cut_off", Kind::E2e),
            (&faults, "api_objects_survive", Kind::Api),
            (&harness, "it_serves", Kind::Api),
            (&harness_library, "process::tests::stat", Kind::Unit),
            (&bench, "cold_start", Kind::Bench),
        ];
        for (target, path, kind) in table {
            assert_eq!(kind_of(target, path), kind, "{} {path}", target.name);
        }
    }

    #[test]
    fn long_is_a_prefix_of_a_name_and_not_a_part_of_a_word() {
        let faults = target("e2e", "faults", "/r/tests/e2e", true);
        assert!(is_long(&faults, "long_soak"));
        assert!(is_long(&faults, "long_runs::soak"));
        assert!(is_long(&target("e2e", "long_soak", "/r/tests/e2e", true), "a_day"));
        assert!(!is_long(&faults, "pods_belong_to_their_fleet"));
    }
}

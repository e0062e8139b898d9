//! Which versions follow a changed Connection, and what becomes of those that don't.

use std::collections::BTreeMap;
use std::time::Duration;

use operator_core::connection::{Attached, Attachment};
use operator_core::observed::{ChildState, Observation, TemporalState, VersionInfo, VersionStatus};
use operator_core::plan::{Action, Plan, PlanInput, object_key, plan};
use operator_core::scaling::State;
use proptest::prelude::*;
use serde_json::json;

use crate::fixtures::*;

const CASES: u32 = 20_000;
const VERSIONS: [&str; 3] = ["target", "old", "older"];

fn at(host_port: &str, namespace: &str) -> Attached {
    let fleet = fleet(json!({}));
    let mut connection = fleet.attachment.connection;
    connection.host_port = host_port.into();
    Attached::To(Attachment { connection, temporal_namespace: namespace.into() })
}

fn places() -> impl Strategy<Value = Attached> {
    prop_oneof![
        2 => Just(at("t:7233", "default")),
        2 => Just(at("elsewhere:7233", "default")),
        2 => Just(at("t:7233", "sales")),
        1 => Just(Attached::Torn),
    ]
}

/// Name of the Deployment of an older version.
fn child_of(at: usize) -> String {
    format!("orders-{}", VERSIONS[at])
}

/// A fleet of three versions, all seen but the target over for long, at their places.
#[derive(Clone, Debug)]
struct World {
    places: [Attached; 3],
    current: Option<usize>,
    known: [bool; 3],
    fresh: bool,
    applied: bool,
    scaled: bool,
}

fn worlds() -> impl Strategy<Value = World> {
    let places = [places(), places(), places()];
    let known = prop::array::uniform3(any::<bool>());
    let rest = (prop::bool::weighted(0.8), prop::bool::weighted(0.8), any::<bool>());
    (places, prop::option::weighted(0.9, 0..3_usize), known, rest).prop_map(
        |(places, current, known, (fresh, applied, scaled))| World { places, current, known, fresh, applied, scaled },
    )
}

impl World {
    fn new(places: [Attached; 3], current: usize) -> Self {
        Self { places, current: Some(current), known: [true; 3], fresh: true, applied: true, scaled: false }
    }

    fn plan(&self) -> Plan {
        let scaling = if self.scaled { json!({"scaling": {}}) } else { json!({}) };
        let mut fleet = fleet(scaling);
        let target = fleet.build_id.clone().unwrap();
        let id = |at: usize| if at == 0 { target.clone() } else { VERSIONS[at].to_owned() };
        fleet.declared.lanes.insert(lane());
        let mut kube = cluster(&fleet, 1, 0);
        let mut temporal = server(&fleet, 0);
        kube.children[0].attached = self.places[0].clone();
        kube.children.extend((1..3).map(|at| ChildState {
            name: child_of(at),
            uid: format!("c-{at}"),
            build_id: Some(id(at)),
            spec_replicas: 1,
            superseded_at: if self.known[at] { None } else { NOW.checked_sub(Duration::from_secs(400_000)).ok() },
            attached: self.places[at].clone(),
            ..ChildState::default()
        }));
        self.say(&mut temporal, id);
        let digest = |action: &Action| match action {
            Action::Apply { object, digest } => Some((object_key(object), digest.clone())),
            _ => None,
        };
        let state = State::default();
        let input = plan_input(&fleet, &kube, &temporal, &state);
        let applied: BTreeMap<_, _> = plan(&input).actions.iter().filter_map(digest).collect();
        plan(&PlanInput { applied: if self.applied { &applied } else { input.applied }, ..input })
    }

    fn say(&self, temporal: &mut TemporalState, id: impl Fn(usize) -> String) {
        let Observation::Known { value: Some(info), .. } = &mut temporal.deployment else { unreachable!() };
        info.current_build_id = self.current.map(&id);
        info.manager_identity = "me".into();
        for at in 0..3 {
            let status = if self.current == Some(at) { VersionStatus::Current } else { VersionStatus::Drained };
            let info_of = VersionInfo {
                status,
                lanes: [lane()].into(),
                drainage_changed_at: NOW.checked_sub(Duration::from_secs(400_000)).ok(),
                ..VersionInfo::default()
            };
            info.versions.insert(id(at), known(self.known[at].then_some(info_of)));
        }
        if !self.fresh {
            let value = Some(info.clone());
            temporal.deployment = Observation::Stale { value, age: Duration::from_secs(900) };
        }
    }

    fn attached(&self) -> Vec<String> {
        let child = |action: Action| match action {
            Action::Attach { child, .. } => Some(child),
            _ => None,
        };
        self.plan().actions.into_iter().filter_map(child).collect()
    }

    /// Whether the version's Deployment or replicas are taken away.
    fn loses(&self, at: usize) -> bool {
        let name = child_of(at);
        self.plan().actions.iter().any(|action| match action {
            Action::DeleteChild { child, .. } => *child == name,
            Action::Scale { child, from, to, .. } => *child == name && to < from,
            _ => false,
        })
    }
}

#[test]
fn the_current_version_follows_the_connection_once_the_server_says_that_it_is_current() {
    let elsewhere = at("elsewhere:7233", "default");
    let mut world = World::new([at("t:7233", "default"), elsewhere.clone(), elsewhere], 1);
    assert_eq!(world.attached(), ["orders-old"], "the older one keeps what it had");
    world.fresh = false;
    assert_eq!(world.attached(), Vec::<String>::new());
}

#[test]
fn what_is_left_of_another_connection_in_the_target_is_mended_once_it_was_applied() {
    let here = at("t:7233", "default");
    let mut world = World::new([Attached::Torn, here.clone(), here], 1);
    let [child] = &world.attached()[..] else { panic!("{:?}", world.attached()) };
    assert!(child.starts_with("orders-v1"), "{child}");
    world.applied = false;
    assert_eq!(world.attached(), Vec::<String>::new(), "first it is applied");
}

#[test]
fn a_version_in_another_namespace_keeps_its_pods_whatever_this_one_says() {
    let here = at("t:7233", "default");
    for (place, loses) in [(&here, true), (&at("t:7233", "sales"), false)] {
        let mut world = World::new([here.clone(), here.clone(), place.clone()], 1);
        assert_eq!(world.loses(2), loses, "{place:?}");
        world.scaled = true;
        assert_eq!(world.loses(2), loses, "{place:?}");
    }
}

#[test]
fn a_version_at_another_address_goes_only_if_the_server_knows_it() {
    let here = at("t:7233", "default");
    let mut world = World::new([here.clone(), here, at("elsewhere:7233", "default")], 1);
    assert!(world.loses(2), "the server is the same, by another name");
    world.known[2] = false;
    assert!(!world.loses(2), "it may be another server");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, ..ProptestConfig::default() })]

    #[test]
    fn a_change_of_the_connection_touches_no_version_but_target_and_current(world in worlds()) {
        let attached = world.attached();
        for at in 1..3 {
            let name = child_of(at);
            let due = world.fresh && world.current == Some(at) && world.places[at] != self::at("t:7233", "default");
            prop_assert_eq!(attached.contains(&name), due);
            let applies = world.plan().actions.iter().any(|action| match action {
                Action::Apply { object, .. } => object["metadata"]["name"] == name,
                _ => false,
            });
            prop_assert!(!applies);
        }
    }

    #[test]
    fn what_works_elsewhere_loses_nothing_by_the_word_of_this_server(world in worlds()) {
        for at in 1..3 {
            let namespace = world.places[at] == self::at("t:7233", "sales");
            let address = world.places[at] == self::at("elsewhere:7233", "default") && !world.known[at];
            if world.current != Some(at) && (namespace || address) {
                prop_assert!(!world.loses(at));
            }
        }
    }
}

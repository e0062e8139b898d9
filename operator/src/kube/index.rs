//! An in-memory index of what the operator needs of one kind, grouped by Kubernetes namespace and a label.
//!
//! A watch's objects are pruned to a view before they are stored: a whole Pod costs twenty times as much.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use kube::runtime::watcher::Event;
use operator_core::border::{self, Border};
use parking_lot::RwLock;

use super::gate::Gate;

/// Kubernetes namespace and value of the grouping label.
pub type Group = (String, String);

/// A pruned object.
pub trait View: Sized + Send + Sync + 'static {
    /// The kind that it is made from.
    type Object;

    /// What keeps those of other namespaces out of a group.
    const BORDER: Border;

    /// The view of an object.
    fn of(object: &Self::Object) -> Self;

    /// Where it is kept.
    fn group(&self) -> Group;

    /// Its name.
    fn name(&self) -> &str;
}

/// Each group by name. A list, as most have a member or two.
type Groups<V> = HashMap<Group, Vec<Arc<V>>>;

/// An index of views, fed by a watch.
pub struct Index<V> {
    groups: RwLock<Groups<V>>,
    filling: RwLock<Groups<V>>,
    ready: Gate,
}

impl<V: View> Default for Index<V> {
    fn default() -> Self {
        Self { groups: RwLock::default(), filling: RwLock::default(), ready: Gate::default() }
    }
}

impl<V: View> Index<V> {
    /// Takes one event of the watch, and gives back the groups that it touched.
    pub fn take(&self, event: &Event<V::Object>) -> Vec<Group> {
        match event {
            Event::Init => self.filling.write().clear(),
            Event::InitApply(object) => {
                insert(&mut self.filling.write(), V::of(object));
            }
            Event::InitDone => return self.swap(),
            Event::Apply(object) => return vec![insert(&mut self.groups.write(), V::of(object))],
            Event::Delete(object) => return vec![remove(&mut self.groups.write(), &V::of(object))],
        }
        Vec::new()
    }

    /// A finished list replaces what was known: what it does not name is gone.
    fn swap(&self) -> Vec<Group> {
        let fresh = mem::take(&mut *self.filling.write());
        let mut groups = self.groups.write();
        let mut touched: Vec<_> = groups.keys().chain(fresh.keys()).cloned().collect();
        touched.sort_unstable();
        touched.dedup();
        *groups = fresh;
        self.ready.open();
        touched
    }

    /// The views of a group, by name.
    pub fn group(&self, namespace: &str, label: &str) -> Vec<Arc<V>> {
        let groups = self.groups.read();
        let group = groups.get(&key::<V>(namespace, label));
        group.cloned().unwrap_or_default()
    }

    /// Every view.
    pub fn all(&self) -> Vec<Arc<V>> {
        self.groups.read().values().flatten().cloned().collect()
    }

    /// Waits for the first finished list.
    pub async fn wait_until_ready(&self) {
        self.ready.passed().await;
    }
}

/// Where a group is kept.
fn key<V: View>(namespace: &str, label: &str) -> Group {
    (border::within(V::BORDER, namespace).to_owned(), label.to_owned())
}

/// Where a name stands in a group, or would.
fn place<V: View>(members: &[Arc<V>], name: &str) -> Result<usize, usize> {
    members.binary_search_by(|member| member.name().cmp(name))
}

fn insert<V: View>(groups: &mut Groups<V>, view: V) -> Group {
    let group = view.group();
    let members = groups.entry(key::<V>(&group.0, &group.1)).or_default();
    match place(members, view.name()) {
        Ok(at) => members[at] = Arc::new(view),
        Err(at) => members.insert(at, Arc::new(view)),
    }
    group
}

fn remove<V: View>(groups: &mut Groups<V>, view: &V) -> Group {
    let group = view.group();
    let key = key::<V>(&group.0, &group.1);
    if let Some(members) = groups.get_mut(&key) {
        if let Ok(at) = place(members, view.name()) {
            members.remove(at);
        }
        if members.is_empty() {
            groups.remove(&key);
        }
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(String);

    impl View for Named {
        type Object = String;

        const BORDER: Border = Border::Pods;

        fn of(object: &String) -> Self {
            Self(object.clone())
        }

        fn group(&self) -> Group {
            ("ns".into(), self.0[..1].into())
        }

        fn name(&self) -> &str {
            &self.0
        }
    }

    fn names(index: &Index<Named>, label: &str) -> Vec<String> {
        index.group("ns", label).iter().map(|view| view.0.clone()).collect()
    }

    #[test]
    fn what_a_new_list_does_not_name_is_gone_and_its_group_is_told() {
        let index = Index::<Named>::default();
        for event in [Event::Init, Event::InitApply("a1".into()), Event::InitApply("b1".into())] {
            assert!(index.take(&event).is_empty());
        }
        assert!(names(&index, "a").is_empty(), "an unfinished list shows nothing");
        index.take(&Event::InitDone);
        index.take(&Event::Apply("a2".into()));
        assert_eq!(names(&index, "a"), ["a1", "a2"]);
        index.take(&Event::Init);
        index.take(&Event::InitApply("a2".into()));
        assert_eq!(names(&index, "b"), ["b1"], "the old list stands until the new one is finished");
        let touched = index.take(&Event::InitDone);
        assert_eq!(touched, [("ns".into(), "a".into()), ("ns".to_owned(), "b".to_owned())]);
        assert_eq!((names(&index, "a"), names(&index, "b")), (vec!["a2".to_owned()], vec![]));
    }

    #[test]
    fn a_deleted_object_leaves_its_group() {
        let index = Index::<Named>::default();
        index.take(&Event::Apply("a1".into()));
        assert_eq!(index.take(&Event::Delete("a1".into())), [("ns".to_owned(), "a".to_owned())]);
        assert!(names(&index, "a").is_empty());
    }
}

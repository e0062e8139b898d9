//! The rules of the Temporal server for a Worker Deployment, as it keeps them.

use crate::world::{Child, Id, Manager, Pod, Record, Server, Share, Status, Work, World};

/// What the server says to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Done,
    /// What it was decided on has changed.
    Conflict,
    /// It is refused as the server has it now.
    Refused,
}

impl Server {
    fn record_mut(&mut self, version: Id) -> Option<&mut Record> {
        self.records[usize::from(version)].as_mut()
    }

    /// Takes the traffic, or a share, from a version.
    fn unroute(&mut self, version: Id) {
        if let Some(record) = self.record_mut(version) {
            (record.status, record.since) = (Status::Draining, 0);
        }
    }

    /// Gives a version the traffic, or nobody.
    pub(crate) fn set_current(&mut self, version: Option<Id>) -> Reply {
        let Some(new) = version else {
            let old = self.current.take();
            old.into_iter().for_each(|old| self.unroute(old));
            return Reply::Done;
        };
        if self.record_mut(new).is_none() {
            return Reply::Refused;
        }
        if let Some(old) = self.current.filter(|old| *old != new) {
            self.unroute(old);
        }
        if self.share.as_ref().is_some_and(|share| share.version == new) {
            self.share = None;
        }
        self.current = Some(new);
        if let Some(record) = self.record_mut(new) {
            (record.status, record.since, record.last_current) = (Status::Current, 0, Some(0));
        }
        Reply::Done
    }

    /// Gives a version a share.
    pub(crate) fn set_share(&mut self, version: Id, percent: u8) -> Reply {
        if self.record_mut(version).is_none() || self.current == Some(version) {
            return Reply::Refused;
        }
        if let Some(other) = self.share.as_ref().map(|share| share.version).filter(|other| *other != version) {
            self.unroute(other);
        }
        if self.share.as_ref().is_none_or(|share| (share.version, share.percent) != (version, percent)) {
            self.share = Some(Share { version, percent, since: 0 });
        }
        if let Some(record) = self.record_mut(version) {
            (record.status, record.since) = (Status::Ramping, 0);
        }
        Reply::Done
    }

    /// Takes the share away.
    pub(crate) fn clear_share(&mut self) -> Reply {
        let old = self.share.take();
        old.into_iter().for_each(|old| self.unroute(old.version));
        Reply::Done
    }

    /// Deletes the record of a version.
    pub(crate) fn delete_record(&mut self, version: Id, drained_or_not: bool) -> Reply {
        let Some(record) = self.record_mut(version) else { return Reply::Done };
        let refused = match record.status {
            Status::Current | Status::Ramping => true,
            Status::Draining => !drained_or_not,
            Status::Inactive | Status::Drained => false,
        };
        if refused || record.polled {
            return Reply::Refused;
        }
        self.records[usize::from(version)] = None;
        Reply::Done
    }

    /// Forgets the Worker Deployment.
    pub(crate) fn delete(&mut self) -> Reply {
        if self.records.iter().any(Option::is_some) {
            return Reply::Refused;
        }
        *self = Self::default();
        Reply::Done
    }

    /// A pod of a version polls.
    fn poll(&mut self, version: Id) {
        self.exists = true;
        self.records[usize::from(version)].get_or_insert_default().polled = true;
    }
}

impl World {
    /// What becomes of the pod of a version next, if anything.
    pub(crate) fn next_pod(&self, version: Id) -> Option<Pod> {
        let wanted = self.child(version).is_some_and(|child| child.replicas > 0);
        match (self.cluster.pods[usize::from(version)], wanted) {
            (Pod::None, true) => Some(Pod::Ready),
            (Pod::Ready, true) => Some(Pod::Polls),
            (Pod::Ready | Pod::Polls, false) => Some(Pod::None),
            (Pod::None, false) | (Pod::Polls, true) => None,
        }
    }

    /// Kubernetes and the kubelet do the next thing for the pod of a version. Nothing is to be done: false.
    pub(crate) fn sync_pod(&mut self, version: Id) -> bool {
        let Some(next) = self.next_pod(version) else { return false };
        let at = usize::from(version);
        self.cluster.pods[at] = next;
        if next == Pod::Polls {
            self.server.poll(version);
            self.buried &= !(1 << version);
        }
        if next == Pod::None && self.work[at] == Work::Task {
            // It ran to its end within the grace period, or was started anew elsewhere.
            self.set_work(version, Work::None);
        }
        true
    }

    /// The server finds that no pinned Workflow is open on a version that lost its traffic.
    pub(crate) fn drain(&mut self, version: Id) -> bool {
        let is_open = self.work[usize::from(version)] == Work::Pinned;
        let Some(record) = self.server.record_mut(version).filter(|record| record.status == Status::Draining) else {
            return false;
        };
        if !is_open {
            (record.status, record.since) = (Status::Drained, 0);
        }
        !is_open
    }

    /// What runs on a version.
    pub(crate) fn set_work(&mut self, version: Id, work: Work) {
        self.work[usize::from(version)] = work;
        self.cluster.busy[usize::from(version)] = work == Work::Task;
    }

    /// An hour passes.
    pub(crate) fn pass(&mut self) {
        self.cluster.pass();
        self.server.pass(&self.cluster.pods);
        self.leader.resting = 0;
        // Nothing that was read an hour ago is taken for what is.
        self.leader.seen = None;
    }

    /// A fleet whose first version has all of the traffic.
    #[must_use]
    pub fn settled() -> Self {
        let mut world = Self::default();
        world.cluster.spec.protected = true;
        world.cluster.children[0] = Some(crate::act::new_child());
        world.cluster.pods[0] = Pod::Polls;
        world.server = Server { exists: true, manager: Manager::Operator, by_operator: true, ..Server::default() };
        world.server.poll(0);
        world.server.set_current(Some(0));
        world
    }

    /// The same with the record of a last version, which has no Deployment.
    #[must_use]
    pub fn with_a_forgotten_record() -> Self {
        let mut world = Self::settled();
        let record = Record { status: Status::Drained, ..Record::default() };
        world.server.records[crate::world::VERSIONS - 1] = Some(record);
        world
    }

    /// The same with a version that was current until an hour ago. Nobody manages the routing.
    #[must_use]
    pub fn with_an_old_version() -> Self {
        let mut world = Self::settled();
        world.cluster.children[1] = Some(Child { replicas: 0, superseded: None });
        let record = Record { status: Status::Drained, last_current: Some(1), ..Record::default() };
        world.server.records[1] = Some(record);
        world.server.manager = Manager::Nobody;
        world
    }
}

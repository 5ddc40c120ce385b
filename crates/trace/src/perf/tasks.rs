//! The names and processes of the tasks in a perf.data, which change with its COMM, FORK and EXIT records. The main type is [`Tasks`].

use rustc_hash::FxHashMap;

use crate::event::{Body, StrId, TaskKind};
use crate::store::{Who, Whos};

/// What is known about tasks so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    pub(crate) comms: FxHashMap<u32, StrId>,
    pub(crate) pids: FxHashMap<u32, u32>,
    /// Forks whose child does not have its parent's name yet.
    parents: FxHashMap<u32, u32>,
    /// The thread, process and number in [`Whos`] of the last event of each CPU. It is cleared when a name changes.
    last: Vec<(u32, u32, u32)>,
}

impl Tasks {
    /// Notes that a thread starts.
    pub(crate) fn fork(&mut self, tid: u32, parent: u32) {
        if tid != parent {
            self.parents.insert(tid, parent);
        }
    }

    /// Learns a name, and returns the name of the task.
    pub(crate) fn name(&mut self, kind: TaskKind, tid: u32, comm: StrId) -> StrId {
        self.last.clear();
        match kind {
            TaskKind::Comm { .. } => {
                self.comms.insert(tid, comm);
            }
            TaskKind::Fork => {
                if let Some(c) = self.parents.remove(&tid).and_then(|p| self.comms.get(&p)).copied() {
                    self.comms.insert(tid, c);
                }
            }
            TaskKind::Exit => {}
        }
        self.comms.get(&tid).copied().unwrap_or_default()
    }

    /// Learns from a task record and completes it. Bodies must come in order of time.
    pub(crate) fn passes(&mut self, body: &mut Body) {
        if let Body::Task { kind, tid, comm, .. } = body {
            *comm = self.name(*kind, *tid, *comm);
        }
    }

    /// The number of a pair of CPU and task.
    #[inline]
    pub(crate) fn who(&mut self, cpu: u16, tid: u32, pid: u32, whos: &mut Whos) -> u32 {
        if let Some(l) = self.last.get(cpu as usize)
            && (l.0, l.1) == (tid, pid)
            && l.2 != u32::MAX
        {
            return l.2;
        }
        let known = |n: u32| (n != u32::MAX).then_some(n);
        let comm = self.comms.get(&tid).copied().unwrap_or_default();
        let who = whos.id(Who { cpu, tid: known(tid), pid: known(pid), comm });
        if self.last.len() <= cpu as usize {
            self.last.resize(cpu as usize + 1, (0, 0, u32::MAX));
        }
        self.last[cpu as usize] = (tid, pid, who);
        who
    }
}

//! Which threads belong to one VM: of one process where the recording names processes, and else those that work on the same page tables.
//! [`super::Attribution`] asks for the groups; nothing here looks at an entry's value beyond the page that it links.
//!
//! The rule in five sentences:
//!
//! 1. Threads whose process the recording names, and whose process has one VM, are of that one, and no later step parts or mixes them.
//! 2. Two vCPU threads that worked on one page of a page table (one links it, another fills or unlinks it) are of one VM, the pair with most
//!    such pages first, unless both ran the vCPU of one number at the same time.
//! 3. A thread of the VMM that worked on the tables of two vCPUs joins these, too; kernel threads that serve every VM do not.
//! 4. A vCPU thread that shares no page with any other goes where the reader put it, if no vCPU number speaks against it, and otherwise stands
//!    for a VM of its own; both are marked as guessed where nothing else shows whose it is, and then nothing that rests on its VM is beyond doubt.
//! 5. Any other thread belongs to a VM if all tables that it touched are of that one, and to none otherwise.

use mmuscope_trace::{Body, Event, Strings, Trace, TraceInfo, VmHint};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};

use super::can_be_a_vms;
use super::union::Union;

/// Whether an event shows that its VM has page tables, or is about to make some.
pub(crate) fn works_on_tables(body: &Body) -> bool {
    matches!(
        body.as_traced(),
        Body::Entry { .. }
            | Body::Exit { .. }
            | Body::PageFault { .. }
            | Body::TdpSpteChanged { .. }
            | Body::SetSpte { .. }
            | Body::SpteRequested { .. }
            | Body::MarkMmioSpte { .. }
            | Body::FastPageFault { .. }
            | Body::GetPage { .. }
            | Body::SyncPage { .. }
            | Body::UnsyncPage { .. }
            | Body::PrepareZapPage { .. }
    )
}

/// One VM as threads and page tables show it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) pid: Option<u32>,
    pub(crate) name: String,
    pub(crate) tids: Vec<u32>,
    /// Those of its threads that nothing but their numbers puts here: they worked on no table that another of the group did.
    pub(crate) guesses: Vec<u32>,
    /// It is one of several, of a single thread that shares no table with another: what it does may be another VM's.
    pub(crate) alone: bool,
    pub(crate) provenance: String,
}

/// A thread, as the first pass sees it.
#[derive(Clone, Debug, Default)]
struct Node {
    tid: u32,
    /// Group of the reader whose process is known.
    sure: Option<usize>,
    comm: String,
    /// When it ran which vCPU.
    runs: FxHashMap<u32, (u64, u64)>,
    order: usize,
}

/// What was found in the events so far, so that a growing trace is gone through once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pass: Pass,
    events: usize,
}

/// One vCPU, or one process with everything in it: nothing to find out.
fn as_the_reader_says(guesses: &[VmHint]) -> bool {
    let vcpus: usize = guesses.iter().map(|g| g.vcpus.len()).sum();
    let unsure = guesses.iter().any(|g| g.pid.is_none());
    vcpus < 2 || (!unsure && guesses.len() < 2)
}

fn as_is(guesses: &[VmHint]) -> Vec<Group> {
    let group = |g: &VmHint| Group {
        pid: g.pid,
        name: g.name.clone(),
        tids: g.tids.iter().copied().chain(g.vcpus.iter().map(|v| v.0)).collect(),
        guesses: Vec::new(),
        alone: false,
        provenance: g.provenance.clone(),
    };
    guesses.iter().map(group).collect()
}

/// Threads whose process the reader knows: thread to the reader's VM.
fn sure_threads(guesses: &[VmHint]) -> FxHashMap<u32, usize> {
    let mut sure = FxHashMap::default();
    for (n, g) in guesses.iter().enumerate() {
        // Several VMs of one process are parted by what they fill, like those of no known process.
        if g.pid.is_some() && guesses.iter().filter(|x| x.pid == g.pid).count() == 1 {
            for t in g.tids.iter().chain(g.vcpus.iter().map(|v| &v.0)) {
                sure.insert(*t, n);
            }
        }
    }
    sure
}

/// The VMs of a trace, in the order of their first events.
pub(super) fn groups(trace: &Trace, seen: &mut Seen) -> Vec<Group> {
    let hints = &trace.info.vm_hints;
    if as_the_reader_says(hints) {
        if hints.is_empty() {
            // Any event that can be a VM's shows that there is one.
            seen.pass.any |= trace.events.iter().any(|e| e.tid.is_some() && can_be_a_vms(&e.body));
        }
        return seen.pass.or_the_only_one(as_is(hints));
    }
    let sure = sure_threads(hints);
    if sure != seen.pass.sure || trace.events.len() < seen.events {
        *seen = Seen { pass: Pass { sure, ..Pass::default() }, events: 0 };
    }
    let mut block = Vec::new();
    while seen.events < trace.events.len() {
        trace.events.block(seen.events / mmuscope_trace::BLOCK, &mut block);
        let Some(new) = block.get(seen.events % mmuscope_trace::BLOCK..).filter(|n| !n.is_empty()) else {
            break;
        };
        for e in new {
            seen.pass.event(e, &trace.strings);
        }
        seen.events += new.len();
    }
    seen.pass.or_the_only_one(seen.pass.groups(&trace.info))
}

/// What the events so far show of threads and the pages that they work on.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    /// Some event can be a VM's.
    any: bool,
    sure: FxHashMap<u32, usize>,
    nodes: Vec<Node>,
    ix: FxHashMap<u32, usize>,
    /// Node that linked or first filled a table page.
    owner: FxHashMap<u64, usize>,
    /// How often two nodes worked on one page.
    edges: FxHashMap<(usize, usize), u32>,
    /// Whether the first that any VM did was to make a root, and nothing was lost since; `None` before that.
    clean: Option<bool>,
    /// Greatest level of a page-table page that each thread made.
    made: FxHashMap<u32, u8>,
    /// Threads, with their names, that did what only a thread does that runs a vCPU, while the event does not say which.
    nameless: BTreeMap<u32, String>,
}

impl Pass {
    /// Which threads' processes are known, where that was not so while the events passed.
    fn know(&mut self, guesses: &[VmHint]) {
        self.sure = sure_threads(guesses);
        for node in &mut self.nodes {
            node.sure = self.sure.get(&node.tid).copied();
        }
    }

    fn node(&mut self, e: &Event, strings: &Strings) -> Option<usize> {
        let tid = e.tid?;
        if let Some(i) = self.ix.get(&tid) {
            return Some(*i);
        }
        let i = self.nodes.len();
        self.nodes.push(Node {
            tid,
            sure: self.sure.get(&tid).copied(),
            comm: strings.get(e.comm).to_owned(),
            order: i,
            ..Node::default()
        });
        self.ix.insert(tid, i);
        Some(i)
    }

    fn edge(&mut self, a: usize, page: u64) {
        if let Some(b) = self.owner.get(&page).copied()
            && a != b
        {
            *self.edges.entry((a.min(b), a.max(b))).or_insert(0) += 1;
        }
    }

    /// Takes an event into account.
    pub(super) fn event(&mut self, e: &Event, strings: &Strings) {
        const PAGE: u64 = 0x000f_ffff_ffff_f000;
        self.any |= e.tid.is_some() && can_be_a_vms(&e.body);
        if let Body::Lost { .. } | Body::Damage { .. } = e.body {
            self.clean = Some(false);
        } else if self.clean.is_none() && works_on_tables(&e.body) {
            self.clean = Some(matches!(e.body, Body::GetPage { created: true, .. }));
        }
        match e.body.as_traced() {
            Body::Entry { vcpu, .. }
            | Body::Exit { vcpu: Some(vcpu), .. }
            | Body::PageFault { vcpu: Some(vcpu), .. }
            | Body::FastPageFault { vcpu, .. } => {
                if let Some(n) = self.node(e, strings) {
                    let r = self.nodes[n].runs.entry(vcpu).or_insert((e.ts, e.ts));
                    r.1 = e.ts;
                }
            }
            Body::Exit { .. }
            | Body::PageFault { .. }
            | Body::UserspaceExit { .. }
            | Body::HandleMmioPageFault { .. }
            | Body::Mmio { .. }
            | Body::FastMmio { .. } => {
                if let Some(tid) = e.tid.filter(|t| !self.nameless.contains_key(t)) {
                    self.nameless.insert(tid, strings.get(e.comm).to_owned());
                }
            }
            Body::GetPage { page, created: true } => {
                let Some(tid) = e.tid else { return };
                let made = self.made.entry(tid).or_default();
                *made = page.role.level.max(*made);
            }
            Body::TdpSpteChanged { level, old_spte, new_spte, .. } if level > 1 => {
                let table = |v: u64| v & 0x83 == 3;
                let Some(n) = self.node(e, strings) else { return };
                if table(old_spte) {
                    self.edge(n, old_spte & PAGE);
                }
                if table(new_spte) {
                    // Linked anew: from here on it is this thread's.
                    self.owner.insert(new_spte & PAGE, n);
                }
            }
            Body::SetSpte { sptep, .. } => {
                let Some(n) = self.node(e, strings) else { return };
                let page = sptep & !0xfff;
                self.owner.entry(page).or_insert(n);
                self.edge(n, page);
            }
            _ => {}
        }
    }

    /// The groups, where the events are not kept.
    pub(super) fn into_groups(mut self, info: &TraceInfo) -> Vec<Group> {
        if as_the_reader_says(&info.vm_hints) {
            return self.or_the_only_one(as_is(&info.vm_hints));
        }
        self.know(&info.vm_hints);
        self.or_the_only_one(self.groups(info))
    }

    /// Where nothing names a VM, what is a VM's is that of one.
    fn or_the_only_one(&self, mut groups: Vec<Group>) -> Vec<Group> {
        if groups.is_empty() && self.any {
            groups.push(Group {
                provenance: "the only one: no event names a VM".to_owned(),
                ..Group::default()
            });
        }
        groups
    }

    /// Joins threads in the order of the rule; the groups, in the order of their first events.
    fn groups(&self, info: &TraceInfo) -> Vec<Group> {
        let mut edges: Vec<_> = self.edges.iter().map(|(k, c)| (*c, *k)).collect();
        edges.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut sets = Sets::new(&self.nodes);
        sets.join_processes();
        sets.join_by_pages(&edges);
        sets.join_through_vmm(&edges);
        let members = |g: &VmHint| g.vcpus.iter().filter_map(|v| self.ix.get(&v.0).copied()).collect();
        let unnamed = info.vm_hints.iter().filter(|g| g.pid.is_none()).map(members);
        let guesses = sets.place_lonely(unnamed, &edges);
        sets.join_others(&edges);
        let mut groups = self.described(&mut sets, &guesses, info);
        self.doubt_rootless(&mut groups);
        self.add_nameless(&mut groups);
        groups
    }

    /// The sets that run a vCPU, or whose process is known, as groups.
    fn described(&self, sets: &mut Sets<'_>, guesses: &[bool], info: &TraceInfo) -> Vec<Group> {
        let pid_of = |tid: u32| info.tasks.iter().find(|t| t.tid == tid).and_then(|t| t.pid);
        let mut by_root: FxHashMap<usize, Vec<usize>> = FxHashMap::default();
        for i in 0..self.nodes.len() {
            let r = sets.of.root(i);
            if !sets.runs[r].is_empty() || sets.sure[r].is_some() {
                by_root.entry(r).or_default().push(i);
            }
        }
        let several = by_root.len() > 1;
        let mut out: Vec<(usize, Group)> = Vec::new();
        for (r, members) in by_root {
            let hint = sets.sure[r].and_then(|g| info.vm_hints.get(g));
            let tid = |m: &usize| self.nodes[*m].tid;
            let mut tids: Vec<u32> = members.iter().map(tid).collect();
            if let Some(g) = hint {
                tids.extend(g.tids.iter().copied());
                tids.extend(g.vcpus.iter().map(|v| v.0));
            }
            tids.sort_unstable();
            tids.dedup();
            let first = members.iter().map(|m| self.nodes[*m].order).min().unwrap_or(usize::MAX);
            let vmm = |m: &&usize| {
                let n = &self.nodes[**m];
                n.runs.is_empty() && !n.comm.starts_with("kvm-nx")
            };
            let namer = members.iter().find(vmm).or_else(|| members.first());
            let name = hint.map(|g| g.name.clone()).filter(|n| !n.is_empty());
            let provenance = match hint {
                Some(g) => g.provenance.as_str(),
                None if members.len() > 1 => {
                    "threads that fill the same page tables; the recording does not name processes"
                }
                None => "a vCPU thread; the recording does not name processes",
            };
            let group = Group {
                pid: hint.and_then(|g| g.pid).or_else(|| members.iter().map(tid).find_map(pid_of)),
                name: name.or_else(|| namer.map(|m| self.nodes[*m].comm.clone())).unwrap_or_default(),
                tids,
                guesses: members.iter().filter(|m| guesses[**m]).map(tid).collect(),
                alone: several && hint.is_none() && members.len() == 1,
                provenance: provenance.to_owned(),
            };
            out.push((first, group));
        }
        out.sort_by_key(|x| x.0);
        out.into_iter().map(|x| x.1).collect()
    }

    /// Where the trace holds the making of every root, threads that made none work for a VM that did, though no table shows for which; or for
    /// one that was there before the trace.
    fn doubt_rootless(&self, groups: &mut [Group]) {
        let tallest = self.made.values().copied().max().unwrap_or(0).min(4);
        if groups.len() < 2 || self.clean != Some(true) || tallest < 2 {
            return;
        }
        let has_root = |g: &Group| g.tids.iter().any(|t| self.made.get(t).is_some_and(|l| *l >= tallest));
        for g in groups.iter_mut().filter(|g| g.pid.is_none() && !has_root(g)) {
            g.guesses.clone_from(&g.tids);
            g.alone = true;
            "threads that made no root of page tables, so that they may be another VM's; the recording does not name processes"
                .clone_into(&mut g.provenance);
        }
    }

    /// Beside several VMs, a thread that runs a vCPU whose number no event gives, and that shares no table with another.
    fn add_nameless(&self, groups: &mut Vec<Group>) {
        if groups.len() < 2 {
            return;
        }
        let of = |tid: &u32| groups.iter().any(|g| g.tids.contains(tid));
        let alone: Vec<(&u32, &String)> = self.nameless.iter().filter(|n| !of(n.0)).collect();
        groups.extend(alone.into_iter().map(|(tid, name)| Group {
            pid: None,
            name: name.clone(),
            tids: vec![*tid],
            guesses: vec![*tid],
            alone: true,
            provenance: "a thread that takes faults and shares no table with others, so that it may be another VM's".to_owned(),
        }));
    }
}

/// How often two threads worked on one page, most often first.
type Edge = (u32, (usize, usize));

/// When a thread, or the threads of a set, ran which vCPU.
type Runs = FxHashMap<u32, (u64, u64)>;

/// Threads that belong together, as far as the steps so far have joined them.
struct Sets<'a> {
    nodes: &'a [Node],
    of: Union,
    /// By the root of a set: its vCPUs.
    runs: Vec<Runs>,
    /// By the root of a set: the reader's VM, whose process is known.
    sure: Vec<Option<usize>>,
}

impl<'a> Sets<'a> {
    fn new(nodes: &'a [Node]) -> Self {
        Self {
            nodes,
            of: Union::new(nodes.len()),
            runs: nodes.iter().map(|x| x.runs.clone()).collect(),
            sure: nodes.iter().map(|x| x.sure).collect(),
        }
    }

    fn is_vcpu(&self, i: usize) -> bool {
        !self.nodes[i].runs.is_empty()
    }

    /// Joins the sets of two threads, unless their processes speak against it, or, if it is not `certain`, their vCPUs. Returns whether they are
    /// together.
    fn join(&mut self, a: usize, b: usize, certain: bool) -> bool {
        let (a, b) = (self.of.root(a), self.of.root(b));
        if a == b {
            return true;
        }
        if let (Some(x), Some(y)) = (self.sure[a], self.sure[b])
            && x != y
        {
            return false;
        }
        // A vCPU runs in one thread at a time.
        let clash =
            |(v, x): (&u32, &(u64, u64))| self.runs[b].get(v).is_some_and(|y| x.0 <= y.1 && y.0 <= x.1);
        if !certain && self.runs[a].iter().any(clash) {
            return false;
        }
        let (a, b) = (a.min(b), a.max(b));
        self.of.join(a, b);
        self.sure[a] = self.sure[a].or(self.sure[b]);
        for (v, x) in std::mem::take(&mut self.runs[b]) {
            let r = self.runs[a].entry(v).or_insert(x);
            *r = (r.0.min(x.0), r.1.max(x.1));
        }
        true
    }

    /// Threads of one known process.
    fn join_processes(&mut self) {
        let mut first_of: FxHashMap<usize, usize> = FxHashMap::default();
        for i in 0..self.nodes.len() {
            if let Some(vm) = self.nodes[i].sure {
                let first = *first_of.entry(vm).or_insert(i);
                self.join(first, i, true);
            }
        }
    }

    /// vCPU threads that worked on one page.
    fn join_by_pages(&mut self, edges: &[Edge]) {
        for (_, (a, b)) in edges {
            if self.is_vcpu(*a) && self.is_vcpu(*b) {
                self.join(*a, *b, false);
            }
        }
    }

    /// A thread of the VMM that works on tables of two vCPUs joins them; kernel threads that serve every VM do not.
    fn join_through_vmm(&mut self, edges: &[Edge]) {
        let serves_all = |n: &Node| {
            ["kworker", "kswapd", "khugepaged", "ksmd", "kcompactd", "oom_reaper"]
                .iter()
                .any(|k| n.comm.starts_with(k))
        };
        for x in 0..self.nodes.len() {
            if self.is_vcpu(x) || serves_all(&self.nodes[x]) {
                continue;
            }
            let other = |(_, (a, b)): &Edge| match (*a == x, *b == x) {
                (true, _) => Some(*b),
                (_, true) => Some(*a),
                _ => None,
            };
            let near: Vec<usize> = edges.iter().filter_map(other).filter(|y| self.is_vcpu(*y)).collect();
            for w in near.windows(2) {
                self.join(w[0], w[1], false);
            }
        }
    }

    /// vCPU threads that worked on no table of another go where the reader put them, if nothing speaks against it. Returns which did.
    fn place_lonely(&mut self, hints: impl Iterator<Item = Vec<usize>>, edges: &[Edge]) -> Vec<bool> {
        let mut guessed = vec![false; self.nodes.len()];
        for members in hints {
            let alone: Vec<usize> = members.iter().copied().filter(|m| self.of.is_alone(*m)).collect();
            for m in alone {
                let near = edges
                    .iter()
                    .any(|(_, (a, b))| (*a == m && self.is_vcpu(*b)) || (*b == m && self.is_vcpu(*a)));
                if near {
                    continue;
                }
                // It is put to one that came before it. Two threads that ran a vCPU of the same number are of two VMs, where nothing else
                // is known of them.
                let fits = |o: &usize| {
                    let theirs = self.of.root(*o);
                    *o < m && !self.nodes[m].runs.keys().any(|v| self.runs[theirs].contains_key(v))
                };
                if let Some(other) = members.iter().copied().find(fits) {
                    guessed[m] = self.join(other, m, false);
                }
            }
        }
        guessed
    }

    /// Threads that are no vCPUs (the VMM's, a kernel thread) belong to a VM if all they touched is of that one.
    fn join_others(&mut self, edges: &[Edge]) {
        let mut touched: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.nodes.len()];
        for (_, (a, b)) in edges {
            for (x, y) in [(*a, *b), (*b, *a)] {
                if !self.is_vcpu(x) && self.is_vcpu(y) {
                    touched[x].insert(self.of.root(y));
                }
            }
        }
        for (i, vms) in touched.iter().enumerate() {
            if vms.len() == 1
                && let Some(vm) = vms.first()
            {
                self.join(*vm, i, true);
            }
        }
    }
}

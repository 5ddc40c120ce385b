//! Which threads belong to one VM, where the recording does not name processes: those that fill the same page tables. [`crate::vms`] and the
//! event table of `analysis` ask for the groups ([`VmSearch`]); nothing here looks at an entry's value beyond the page that it links.
//!
//! The rule in five sentences:
//!
//! 1. Threads whose process the recording names are of that process's VM, and no later step parts or mixes them.
//! 2. Two vCPU threads that worked on one page of a page table (one links it, another fills or unlinks it) are of one VM, the pair with most
//!    such pages first, unless both ran the vCPU of one number at the same time.
//! 3. A thread of the VMM that worked on the tables of two vCPUs joins these, too; kernel threads that serve every VM do not.
//! 4. A vCPU thread that shares no page with any other goes where the reader put it, if no vCPU number speaks against it, and is marked as
//!    guessed: then nothing that rests on its VM is beyond doubt.
//! 5. Any other thread belongs to a VM if all tables that it touched are of that one, and to none otherwise.

use mmuscope_trace::{Body, Event, Strings, Trace, TraceInfo, VmGuess};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// Whether an event shows that its VM has page tables, or is about to make some.
pub(crate) fn works_on_tables(body: &Body) -> bool {
    matches!(
        body,
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
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) pid: Option<u32>,
    pub(crate) name: String,
    pub(crate) tids: Vec<u32>,
    /// Nothing but their numbers puts some of them here: they worked on no table that another of the group did.
    pub(crate) guessed: bool,
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

/// One VM of a trace: its process and threads. Its number is its place in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmThreads {
    /// Process of its VMM, where known.
    pub pid: Option<u32>,
    /// Its threads.
    pub tids: Vec<u32>,
}

/// Finds the VMs of a trace as a replay finds and numbers them, while its events pass by: for those who do not hold the events.
///
/// Memory grows with the threads and page tables of the trace, not with its events.
#[derive(Clone, Debug, Default)]
pub struct VmSearch(Pass);

impl VmSearch {
    /// Takes an event into account. All of the trace's must pass, in their order.
    pub fn event(&mut self, e: &Event, strings: &Strings) {
        self.0.event(e, strings);
    }

    /// The VMs, in the order of their numbers; `info` is what the reader says at the end.
    pub fn finish(mut self, info: &TraceInfo) -> Vec<VmThreads> {
        let groups = if as_the_reader_says(&info.vms) {
            as_is(&info.vms)
        } else {
            self.0.know(&info.vms);
            self.0.finish(info)
        };
        groups.into_iter().map(|g| VmThreads { pid: g.pid, tids: g.tids }).collect()
    }

    /// The VMs of a trace in memory.
    pub fn of(trace: &Trace) -> Vec<VmThreads> {
        let groups = groups(trace, &mut Seen::default());
        groups.into_iter().map(|g| VmThreads { pid: g.pid, tids: g.tids }).collect()
    }
}

/// One vCPU, or one process with everything in it: nothing to find out.
fn as_the_reader_says(guesses: &[VmGuess]) -> bool {
    let vcpus: usize = guesses.iter().map(|g| g.vcpus.len()).sum();
    let unsure = guesses.iter().any(|g| g.pid.is_none());
    vcpus < 2 || (!unsure && guesses.len() < 2)
}

fn as_is(guesses: &[VmGuess]) -> Vec<Group> {
    let group = |g: &VmGuess| Group {
        pid: g.pid,
        name: g.name.clone(),
        tids: g.tids.iter().copied().chain(g.vcpus.iter().map(|v| v.0)).collect(),
        guessed: false,
        alone: false,
        provenance: g.provenance.clone(),
    };
    guesses.iter().map(group).collect()
}

/// Threads whose process the reader knows: thread to the reader's VM.
fn sure_threads(guesses: &[VmGuess]) -> FxHashMap<u32, usize> {
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
pub(crate) fn groups(trace: &Trace, seen: &mut Seen) -> Vec<Group> {
    let guesses = &trace.info.vms;
    if as_the_reader_says(guesses) {
        return as_is(guesses);
    }
    let sure = sure_threads(guesses);
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
    seen.pass.finish(&trace.info)
}

#[derive(Clone, Debug, Default)]
struct Pass {
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
    fn know(&mut self, guesses: &[VmGuess]) {
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

    fn event(&mut self, e: &Event, strings: &Strings) {
        const PAGE: u64 = 0x000f_ffff_ffff_f000;
        if let Body::Lost { .. } | Body::Damage { .. } = e.body {
            self.clean = Some(false);
        } else if self.clean.is_none() && works_on_tables(&e.body) {
            self.clean = Some(matches!(e.body, Body::GetPage { created: true, .. }));
        }
        match e.body {
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

    #[expect(
        clippy::too_many_lines,
        reason = "the order in which threads are joined is the rule; it reads as one list"
    )]
    fn finish(&self, info: &TraceInfo) -> Vec<Group> {
        let guesses = &info.vms;
        let n = self.nodes.len();
        let mut to: Vec<usize> = (0..n).collect();
        let mut runs: Vec<FxHashMap<u32, (u64, u64)>> = self.nodes.iter().map(|x| x.runs.clone()).collect();
        let mut sure: Vec<Option<usize>> = self.nodes.iter().map(|x| x.sure).collect();
        let join = |to: &mut Vec<usize>,
                    runs: &mut Vec<FxHashMap<u32, (u64, u64)>>,
                    sure: &mut Vec<Option<usize>>,
                    a: usize,
                    b: usize,
                    force: bool|
         -> bool {
            let (a, b) = (root(to, a), root(to, b));
            if a == b {
                return true;
            }
            if let (Some(x), Some(y)) = (sure[a], sure[b])
                && x != y
            {
                return false;
            }
            // A vCPU runs in one thread at a time.
            if !force && runs[a].iter().any(|(v, x)| runs[b].get(v).is_some_and(|y| x.0 <= y.1 && y.0 <= x.1))
            {
                return false;
            }
            let (a, b) = (a.min(b), a.max(b));
            to[b] = a;
            sure[a] = sure[a].or(sure[b]);
            for (v, x) in std::mem::take(&mut runs[b]) {
                let r = runs[a].entry(v).or_insert(x);
                *r = (r.0.min(x.0), r.1.max(x.1));
            }
            true
        };
        let mut of_guess: FxHashMap<usize, usize> = FxHashMap::default();
        for i in 0..n {
            if let Some(g) = self.nodes[i].sure {
                let first = *of_guess.entry(g).or_insert(i);
                join(&mut to, &mut runs, &mut sure, first, i, true);
            }
        }
        let is_vcpu = |i: usize| !self.nodes[i].runs.is_empty();
        let mut edges: Vec<_> = self.edges.iter().map(|(k, c)| (*c, *k)).collect();
        edges.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        for (_, (a, b)) in &edges {
            if is_vcpu(*a) && is_vcpu(*b) {
                join(&mut to, &mut runs, &mut sure, *a, *b, false);
            }
        }
        // A thread of the VMM that works on tables of two vCPUs joins them; kernel threads that serve every VM do not.
        let serves_all = |i: usize| {
            let c = &self.nodes[i].comm;
            ["kworker", "kswapd", "khugepaged", "ksmd", "kcompactd", "oom_reaper"]
                .iter()
                .any(|k| c.starts_with(k))
        };
        for x in (0..n).filter(|x| !is_vcpu(*x) && !serves_all(*x)) {
            let mut near: Vec<usize> = edges
                .iter()
                .filter_map(|(_, (a, b))| {
                    if *a == x {
                        Some(*b)
                    } else if *b == x {
                        Some(*a)
                    } else {
                        None
                    }
                })
                .collect();
            near.retain(|y| is_vcpu(*y));
            for w in near.windows(2) {
                join(&mut to, &mut runs, &mut sure, w[0], w[1], false);
            }
        }
        // vCPU threads that touched no table of another go where the reader put them, if nothing speaks against it.
        let mut guessed = vec![false; n];
        for g in guesses.iter().filter(|g| g.pid.is_none()) {
            let members: Vec<usize> = g.vcpus.iter().filter_map(|v| self.ix.get(&v.0).copied()).collect();
            let alone: Vec<usize> = members
                .iter()
                .copied()
                .filter(|m| root(&to, *m) == *m && !(0..n).any(|x| x != *m && root(&to, x) == *m))
                .collect();
            for m in alone {
                let lonely_edges =
                    edges.iter().any(|(_, (a, b))| (*a == m && is_vcpu(*b)) || (*b == m && is_vcpu(*a)));
                // It is put to one that came before it. Two threads that ran a vCPU of the same number are of two VMs, where nothing else
                // is known of them.
                let (own, of) = (&self.nodes[m].runs, |o: usize| root(&to, o));
                let fits = |o: usize| o < m && !own.keys().any(|v| runs[of(o)].contains_key(v));
                if let Some(other) = members.iter().copied().find(|o| fits(*o))
                    && !lonely_edges
                {
                    guessed[m] = join(&mut to, &mut runs, &mut sure, other, m, false);
                }
            }
        }
        // Threads that are no vCPUs (the VMM's, a kernel thread) belong to a VM if all they touched is of that one.
        let mut votes: Vec<FxHashMap<usize, u32>> = vec![FxHashMap::default(); n];
        for (c, (a, b)) in &edges {
            for (x, y) in [(*a, *b), (*b, *a)] {
                if !is_vcpu(x) && is_vcpu(y) {
                    *votes[x].entry(root(&to, y)).or_insert(0) += c;
                }
            }
        }
        for (i, v) in votes.iter().enumerate() {
            if v.len() == 1
                && let Some(g) = v.keys().next()
            {
                join(&mut to, &mut runs, &mut sure, *g, i, true);
            }
        }
        let pid_of = |tid: u32| info.tasks.iter().find(|t| t.tid == tid).and_then(|t| t.pid);
        let mut by_root: FxHashMap<usize, Vec<usize>> = FxHashMap::default();
        for i in 0..n {
            let r = root(&to, i);
            if !runs[r].is_empty() || sure[r].is_some() {
                by_root.entry(r).or_default().push(i);
            }
        }
        let several = by_root.len() > 1;
        let mut out: Vec<(usize, Group)> = by_root
            .into_iter()
            .map(|(r, members)| {
                let guess = sure[r].and_then(|g| guesses.get(g));
                let mut tids: Vec<u32> = members.iter().map(|m| self.nodes[*m].tid).collect();
                let guessed = members.iter().any(|m| guessed[*m]);
                if let Some(g) = guess {
                    tids.extend(g.tids.iter().copied());
                    tids.extend(g.vcpus.iter().map(|v| v.0));
                }
                tids.sort_unstable();
                tids.dedup();
                let first = members.iter().map(|m| self.nodes[*m].order).min().unwrap_or(usize::MAX);
                let namer = members
                    .iter()
                    .copied()
                    .find(|m| {
                        !is_vcpu(*m)
                            && !self.nodes[*m].comm.starts_with("kvm-nx")
                            && !self.nodes[*m].runs.contains_key(&0)
                    })
                    .or_else(|| members.first().copied());
                let name = guess
                    .map(|g| g.name.clone())
                    .filter(|n| !n.is_empty())
                    .or_else(|| namer.map(|m| self.nodes[m].comm.clone()));
                let provenance = match guess {
                    Some(g) => g.provenance.clone(),
                    None if members.len() > 1 => {
                        "threads that fill the same page tables; the recording does not name processes"
                            .to_owned()
                    }
                    None => "a vCPU thread; the recording does not name processes".to_owned(),
                };
                let pid = guess
                    .and_then(|g| g.pid)
                    .or_else(|| members.iter().find_map(|m| pid_of(self.nodes[*m].tid)));
                let alone = several && guess.is_none() && members.len() == 1;
                (first, Group { pid, name: name.unwrap_or_default(), tids, guessed, alone, provenance })
            })
            .collect();
        out.sort_by_key(|x| x.0);
        let mut groups: Vec<Group> = out.into_iter().map(|x| x.1).collect();
        self.doubt_rootless(&mut groups);
        self.add_nameless(&mut groups);
        groups
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
            (g.guessed, g.alone) = (true, true);
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
            guessed: true,
            alone: true,
            provenance: "a thread that takes faults and shares no table with others, so that it may be another VM's".to_owned(),
        }));
    }
}

/// The first of the nodes that belong together.
fn root(to: &[usize], mut x: usize) -> usize {
    while to[x] != x {
        x = to[x];
    }
    x
}

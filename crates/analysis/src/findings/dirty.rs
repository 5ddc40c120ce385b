//! The rule `dirty-logging`: what write-protection for the dirty log cost, round by round.

use super::cause::{Cause, What};
use super::moment::{At, Change};
use super::{Finding, Rule, Seen, Severity, Sure, counted, share, task};
use mmuscope_replay::Fault;
use mmuscope_spte::{Decoded, Layout, State};
use mmuscope_trace::{Body, FastPfResult};
use mmuscope_units::{bytes, count, duration};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

/// A round ends when nothing was protected for this many nanoseconds, or when an entry is protected that was already.
const APART: u64 = 100_000_000;
/// Most threads in a call at a time.
const CALLS: usize = 4096;
/// Protecting fewer entries than this is no round worth naming.
const MANY: u64 = 16;

pub(super) static RULE: Rule = Rule {
    id: "dirty-logging",
    severity: Severity::Info,
    seen: "a thread takes Writable or Dirty away from 16 present entries or more that keep their host frame and that KVM may make writable again. \
           A round ends when an entry is protected a second time, or nothing is for 100 ms. Only the TDP MMU since 5.11 traces this; of other \
           MMUs a round is a call of `kvm_get_dirty_log_protect` or `kvm_clear_dirty_log_protect` that changes 16 entries or more, where probes show it",
    why: "the VMM logs dirty pages (live migration, snapshots, a display): KVM write-protects entries, or clears Dirty where the CPU logs writes \
          (PML), and the next write to each page needs a fault",
    remedy: "fewer rounds, or smaller ones (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 and KVM_CLEAR_DIRTY_LOG), PML on the host (kvm_intel.pml), and \
             eager splitting of huge pages (kvm.eager_page_split, since 5.18) so that vCPUs do not split them in faults",
    refuted: "KVM_MEM_LOG_DIRTY_PAGES is set on none of the VM's memory slots at that time",
    find,
};

/// Entries that were protected in one go, and what became of them.
#[derive(Clone, Debug, Default)]
struct Round {
    vm: u16,
    tid: u32,
    comm: String,
    first: (u64, u32),
    last: (u64, u32),
    protected: u64,
    cleared: u64,
    bytes: u64,
    /// First and last frame.
    gfns: Option<(u64, u64)>,
    fast: u64,
    slow: u64,
    /// It is a call that a probe shows. The entries that it changed are counted, not looked at.
    probed: bool,
    /// Thread, event and time of what made an entry writable again.
    faults: Vec<(u32, u32, u64)>,
}

impl Round {
    fn is_round(&self) -> bool {
        self.protected + self.cleared >= MANY
    }
}

type Key = (u16, u8, u8, u64);

/// The rounds of dirty logging.
#[derive(Debug, Default)]
pub(super) struct Logging {
    rounds: Vec<Round>,
    /// The round in which an entry was protected that still is.
    protected: HashMap<Key, usize>,
    /// The round that is going on, by VM.
    now: HashMap<u16, usize>,
    /// The call that a thread is in, as a probe shows it, and the last one of each VM that protected something.
    call: HashMap<u32, Round>,
    called: HashMap<u16, usize>,
}

impl Logging {
    /// The rounds that are worth naming. Where changes of entries show the rounds of a VM, they say more than the calls that probes show.
    fn rounds(&self) -> impl Iterator<Item = &Round> {
        let changes: HashSet<u16> =
            self.rounds.iter().filter(|r| !r.probed && r.is_round()).map(|r| r.vm).collect();
        self.rounds.iter().filter(move |r| r.is_round() && !(r.probed && changes.contains(&r.vm)))
    }

    /// What each round is in the rows of causes.
    pub(super) fn causes(&self) -> impl Iterator<Item = Cause> + '_ {
        self.rounds().map(|r| Cause {
            end: Some(r.last.0),
            last_event: r.last.1,
            gfns: r.gfns,
            ..Cause::new(
                r.tid,
                r.first,
                What::Round {
                    protected: r.protected,
                    cleared: r.cleared,
                    bytes: r.bytes,
                    again: r.fast + r.slow,
                },
            )
        })
    }

    pub(super) fn change(&mut self, c: &Change, comm: &str) {
        let key = (c.vm, c.as_id, c.level, c.gfn);
        let (old, new) = (&c.old, &c.new);
        if old.state != State::Present || new.state != State::Present || old.pfn != new.pfn {
            if old.state == State::Present {
                self.protected.remove(&key);
            }
            return;
        }
        // Protection of a guest's page tables takes MMU-writable away, too.
        let wrote = old.w == Some(true) && new.w == Some(false) && new.mmu_writable != Some(false);
        let dirty = old.w == new.w && old.dirty == Some(true) && new.dirty == Some(false);
        if wrote || dirty {
            self.protect(c, key, wrote, comm);
        } else if old.w == Some(false) && new.w == Some(true) {
            self.written(key, false, (c.tid, c.event, c.ts));
        }
    }

    /// What probes show of the calls that read or clear the dirty log.
    fn probe(&mut self, at: &At<'_>, body: &Body) {
        match body {
            Body::ProbeDirtyLog { .. } => {
                self.returned(at.tid);
                let (vm, tid, comm, first) = (at.vm, at.tid, at.comm.to_owned(), (at.ts, at.event));
                let call = Round { vm, tid, comm, first, last: first, probed: true, ..Round::default() };
                if self.call.len() < CALLS {
                    self.call.insert(tid, call);
                }
            }
            // `mmu_spte_update` calls the other function, whose probe is hit, too.
            Body::ProbeSpteUpdate { no_track: false, .. } => {
                if let Some(c) = self.call.get_mut(&at.tid) {
                    c.protected += 1;
                    c.last = (at.ts, at.event);
                }
            }
            Body::ProbeSpteUpdate { .. } => {}
            _ => self.returned(at.tid),
        }
    }

    /// A thread does something else: the call that it was in is over.
    fn returned(&mut self, tid: u32) {
        let Some(round) = self.call.remove(&tid).filter(|r| r.protected >= MANY) else { return };
        self.called.insert(round.vm, self.rounds.len());
        self.rounds.push(round);
    }

    pub(super) fn event(&mut self, at: &At<'_>, body: &Body, layout: &Layout) {
        self.probe(at, body);
        let Body::FastPageFault { cr2_or_gpa, old_spte, new_spte, result: FastPfResult::Fixed, .. } = *body
        else {
            return;
        };
        let gained = |d: Decoded, e: Decoded| d.w == Some(false) && e.w == Some(true);
        if let Some(round) = self.called.get(&at.vm).and_then(|r| self.rounds.get_mut(*r))
            && gained(layout.decode(old_spte, 1), layout.decode(new_spte, 1))
        {
            round.fast += 1;
            round.faults.push((at.tid, at.event, at.ts));
        }
        if self.protected.is_empty() {
            return;
        }
        for level in [1, 2, 3] {
            let gfn = (cr2_or_gpa >> 12) & !((1 << (9 * (level - 1))) - 1);
            let key = (at.vm, 0, level as u8, gfn);
            let (old, new) = (layout.decode(old_spte, level as u8), layout.decode(new_spte, level as u8));
            if self.protected.contains_key(&key) && gained(old, new) {
                self.written(key, true, (at.tid, at.event, at.ts));
                return;
            }
        }
    }

    fn protect(&mut self, c: &Change, key: Key, wrote: bool, comm: &str) {
        let now = self.now.get(&c.vm).copied();
        let goes_on = now.filter(|r| {
            let round = &self.rounds[*r];
            round.tid == c.tid
                && c.ts.saturating_sub(round.last.0) < APART
                && self.protected.get(&key) != Some(r)
                && round.fast + round.slow == 0
        });
        let r = goes_on.unwrap_or_else(|| {
            self.rounds.push(Round {
                vm: c.vm,
                tid: c.tid,
                comm: comm.to_owned(),
                first: (c.ts, c.event),
                ..Round::default()
            });
            self.rounds.len() - 1
        });
        self.now.insert(c.vm, r);
        self.protected.insert(key, r);
        let round = &mut self.rounds[r];
        round.last = (c.ts, c.event);
        round.protected += u64::from(wrote);
        round.cleared += u64::from(!wrote);
        round.bytes += c.new.size();
        let last = c.gfn.saturating_add(c.new.size() / 4096 - 1);
        let (lo, hi) = round.gfns.unwrap_or((c.gfn, last));
        round.gfns = Some((lo.min(c.gfn), hi.max(last)));
    }

    fn written(&mut self, key: Key, fast: bool, by: (u32, u32, u64)) {
        let Some(r) = self.protected.remove(&key) else { return };
        let round = &mut self.rounds[r];
        round.fast += u64::from(fast);
        round.slow += u64::from(!fast);
        round.faults.push(by);
    }
}

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    seen.vms().filter_map(|vm| one(seen, vm)).collect()
}

fn one(seen: &Seen<'_>, vm: u16) -> Option<Finding> {
    let rounds: Vec<&Round> = seen.noted.logging.rounds().filter(|r| r.vm == vm).collect();
    let first = rounds.first()?;
    let mut out = Finding::new(&RULE, String::new());
    let sum = |what: fn(&Round) -> u64| rounds.iter().map(|r| what(r)).sum::<u64>();
    let (protected, cleared) = (sum(|r| r.protected), sum(|r| r.cleared));
    let (fast, slow) = (sum(|r| r.fast), sum(|r| r.slow));
    for r in &rounds {
        out.see(r.first.0, r.first.1);
        out.see(r.last.0, r.last.1);
    }
    let mut faults: Vec<&Fault> =
        rounds.iter().flat_map(|r| &r.faults).filter_map(|(t, e, ts)| seen.fault_of(*t, *e, *ts)).collect();
    faults.dedup_by_key(|f| f.event);
    for f in faults {
        out.pay(f);
    }
    (out.count, out.vm, out.sure) = (protected + cleared, Some(vm), Sure::Likely);
    let by = task(&first.comm, first.tid);
    let mut what = Vec::new();
    if protected > 0 {
        what.push(format!("write-protected {}", counted(protected, "time")));
    }
    if cleared > 0 {
        what.push(format!("cleared of Dirty {}", counted(cleared, "time")));
    }
    let written = if fast + slow == 0 {
        String::from("no fault made one writable again")
    } else {
        format!(
            "{} of them were made writable again by faults, {} without the MMU lock and {} with it{}",
            count(fast + slow),
            count(fast),
            count(slow),
            share(seen, vm, out.cost)
        )
    };
    let each: Vec<String> = rounds
        .iter()
        .take(4)
        .map(|r| {
            // How much memory an entry maps, a probe does not show.
            let size = if r.probed { String::new() } else { format!(" ({})", bytes(r.bytes)) };
            format!(
                "{}{size} in {}, {} written again",
                crate::words::counted(r.protected + r.cleared, "entry", "entries"),
                duration(r.last.0 - r.first.0),
                count(r.fast + r.slow)
            )
        })
        .collect();
    let more = if rounds.len() > 4 { format!(", and {} more", rounds.len() - 4) } else { String::new() };
    out.title = format!(
        "dirty logging{}, {} by {by}: entries were {}; {written}. Rounds: {}{more}",
        seen.of_vm(vm),
        counted(rounds.len() as u64, "round"),
        what.join(" and "),
        each.join("; "),
    );
    Some(out)
}

//! [`Stat`]: how often vCPUs left the guest and why, what their faults came to, what was zapped, which devices were accessed, and where the vCPUs'
//! time went. `mmuscope stat` prints it, and `mmuscope diff` compares two of them.
//!
//! Outcomes and times of faults, zaps and MMIO accesses are the replay's ([`Fault`], [`Zap`], [`MmioAccesses`]); what is
//! counted here are exits and entries, in `vcpus`. What the trace does not hold is `None`, never 0.

mod table;
mod vcpus;

pub use table::{STAT, push};

use crate::between::{By, Who};
use crate::findings::{CauseKind, Survey, causes_with};
use crate::findings::{faults_are_timed, timed_faults};
use crate::latency::Latency;
use crate::part::Part;
use crate::places::usually_in;
use mmuscope_replay::{
    Attribution, Coverage, Fault, MmioAccesses, MmuKind, Timeline, VmId, Zap, ZapCause, pages_of,
};
use mmuscope_trace::{Isa, Trace};
use mmuscope_units::level_size;
use rustc_hash::FxHashMap as HashMap;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// From this time of the trace's clock on.
    pub from: Option<u64>,
    /// Up to this time, included.
    pub to: Option<u64>,
    /// Only of this VM.
    pub vm: Option<u16>,
    /// Only of these guest frames: the first and one past the last. Exits, returns to the VMM and the time of the vCPUs are of no frame.
    pub gfns: Option<(u64, u64)>,
    /// Only of this vCPU.
    pub vcpu: Option<u32>,
    /// Each vCPU on its own.
    pub by_vcpu: bool,
}

impl Query {
    /// A part of a trace, the vCPUs of a VM together.
    pub const fn of(part: &Part) -> Self {
        Self { from: part.from, to: part.to, vm: part.vm, gfns: part.gfns, vcpu: None, by_vcpu: false }
    }

    /// The part that is asked for.
    const fn part_of_trace(&self) -> Part {
        Part { from: self.from, to: self.to, vm: self.vm, gfns: self.gfns }
    }

    /// Whether a time is asked for.
    pub fn holds(&self, ts: u64) -> bool {
        self.part_of_trace().holds(ts)
    }

    /// The part of a stretch of time that is asked for.
    fn part(&self, start: u64, end: u64) -> Option<u64> {
        let (a, b) = (start.max(self.from.unwrap_or(0)), end.min(self.to.unwrap_or(u64::MAX)));
        // A stretch of no length counts where it is.
        (a < b || a == b && start == end).then(|| b - a)
    }
}

/// What a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Stretches of a vCPU's time, by what it did.
    Time,
    /// Exits from the guest, by reason.
    Exit,
    /// Returns to the VMM, by reason.
    Vmm,
    /// Faults, by outcome.
    Fault,
    /// Faults that installed a leaf, by its size.
    Install,
    /// Zaps, by how they are known.
    Zap,
    /// Zaps, by what for.
    ZapFor,
    /// Huge pages lost and won, by cause.
    Huge,
    /// MMIO faults, by guest frame.
    Mmio,
}

impl Kind {
    /// Every kind, in the order of rows.
    pub const ALL: [Self; 9] = [
        Self::Time,
        Self::Exit,
        Self::Vmm,
        Self::Fault,
        Self::Install,
        Self::Zap,
        Self::ZapFor,
        Self::Huge,
        Self::Mmio,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Exit => "exit",
            Self::Vmm => "vmm",
            Self::Fault => "fault",
            Self::Install => "install",
            Self::Zap => "zap",
            Self::ZapFor => "zap-for",
            Self::Huge => "huge",
            Self::Mmio => "mmio",
        }
    }
}

/// What a row of [`Kind::Time`] is called where people read it.
pub fn time_words(name: &str) -> &str {
    match name {
        "guest" => "in the guest",
        "fault" => "KVM's page faults",
        "mmio" => "KVM's MMIO",
        "halt" => "halted",
        "kvm" => "other exits in KVM",
        "vmm" => "VMM",
        "unknown" => "not known",
        other => other,
    }
}

/// Whose rows are: a VM's, or one vCPU's of it. A vCPU whose number no event names is known by its thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Whose {
    /// The VM; `None` where nothing says which.
    pub vm: Option<u16>,
    /// The vCPU, where each is on its own.
    pub vcpu: Option<u32>,
    /// Its thread, where its number is not known.
    pub tid: Option<u32>,
}

/// One row: how often something happened, and how long it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// What happened: the name of an exit reason, of an outcome, of a cause.
    pub name: Cow<'static, str>,
    /// How often it happened.
    pub count: u64,
    /// How long it took, as often as that is known.
    pub times: Latency,
    /// How much of the time of exits was the VMM's; `None` where returns to it are not recorded.
    pub vmm: Option<u64>,
    /// The number of an exit's reason, and its back-end.
    pub reason: Option<(u32, Option<Isa>)>,
    /// The guest frame of an MMIO access.
    pub gfn: Option<u64>,
    /// MMIO accesses: one fault may make several. `None` where they are not recorded.
    pub accesses: Option<u64>,
    /// Huge pages lost and won: bytes of guest memory that they map.
    pub bytes: Option<u64>,
    /// Sum of the squares of the sizes of bursts: how much the count varies by chance if bursts come independently of each other. A burst is what
    /// one thread does again and again at one place: faults at one frame, exits at one instruction; and the zaps of one event.
    pub bursts: u64,
}

/// What the vCPU that is in it for longest at the end of the trace is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stays {
    /// Whose it is.
    pub whose: Whose,
    /// The reason of the exit.
    pub reason: Cow<'static, str>,
    /// Time of the exit on the trace's clock.
    pub since: u64,
}

/// What a trace says of exits, faults, zaps and MMIO.
#[derive(Clone, Debug, Default)]
pub struct Stat {
    /// The rows, by whose they are and what they count; those with most time first.
    pub rows: BTreeMap<(Whose, Kind), Vec<Row>>,
    /// vCPUs that left the guest and do not enter it again before the trace ends, and have been out for longer than ever before.
    pub stays: Vec<Stays>,
    /// What is not in the rows because it was not recorded, one sentence each.
    pub missing: Vec<String>,
    /// The kinds that are not known, because the events that show them were not recorded.
    pub unknown: Vec<Kind>,
    /// The kinds that are known in part: a filter let only some of their events pass.
    pub partial: Vec<Kind>,
}

/// What is being counted of one thing.
#[derive(Debug, Default)]
struct Gathered {
    count: u64,
    durations: Vec<u64>,
    vmm: Option<u64>,
    reason: Option<(u32, Option<Isa>)>,
    gfn: Option<u64>,
    accesses: Option<u64>,
    bytes: Option<u64>,
    /// The place and the size of each thread's burst that goes on.
    burst: HashMap<u32, (u64, u64)>,
    bursts: u64,
}

impl Gathered {
    /// Counts one more, which a thread did at a place.
    fn hit(&mut self, tid: u32, place: u64) {
        self.count += 1;
        let b = self.burst.entry(tid).or_insert((place, 0));
        if b.0 != place {
            *b = (place, 0);
        }
        b.1 += 1;
        // The square of n is the sum of the first n odd numbers.
        self.bursts = self.bursts.saturating_add(2 * b.1 - 1);
    }
}

/// Everything that is being counted, by whose it is, what kind of thing it is, its name, and the number that distinguishes those of one name.
#[derive(Debug, Default)]
struct Sums(BTreeMap<(Whose, Kind), ByName>);

/// What is being counted of one kind, by name and number.
type ByName = BTreeMap<(Cow<'static, str>, u64), Gathered>;

impl Sums {
    fn of(
        &mut self,
        whose: Whose,
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
        number: u64,
    ) -> &mut Gathered {
        self.0.entry((whose, kind)).or_default().entry((name.into(), number)).or_default()
    }

    fn rows(self) -> BTreeMap<(Whose, Kind), Vec<Row>> {
        let row = |((name, _), g): ((Cow<'static, str>, u64), Gathered)| Row {
            name,
            count: g.count,
            times: Latency::of(g.durations),
            vmm: g.vmm,
            reason: g.reason,
            gfn: g.gfn,
            accesses: g.accesses,
            bytes: g.bytes,
            bursts: g.bursts,
        };
        let list = |(key, all): ((Whose, Kind), ByName)| {
            let mut rows: Vec<Row> = all.into_iter().map(row).collect();
            // Sorting keeps the order of names among equals.
            rows.sort_by_key(|r| Reverse((r.times.total, r.count)));
            (key, rows)
        };
        self.0.into_iter().map(list).collect()
    }
}

/// What is looked at.
struct Seen<'a> {
    trace: &'a Trace,
    timeline: &'a Timeline,
    /// In the order of their events; without the times of their ends where those measure no time.
    faults: Cow<'a, [Fault]>,
    q: Query,
    /// Whether the clock counts nanoseconds and entries into the guest were recorded.
    timed: bool,
}

impl Seen<'_> {
    fn whose_are(&self) -> &Attribution {
        self.timeline.attribution()
    }

    /// Whose rows something counts in; `None` where it is not asked for.
    fn whose(&self, vm: Option<VmId>, vcpu: Option<u32>, tid: Option<u32>) -> Option<Whose> {
        let vm = vm.map(|v| v.0);
        let asked = self.q.vm.is_none_or(|v| vm == Some(v)) && self.q.vcpu.is_none_or(|v| vcpu == Some(v));
        let own = self.q.by_vcpu;
        asked.then(|| Whose { vm, vcpu: vcpu.filter(|_| own), tid: tid.filter(|_| own && vcpu.is_none()) })
    }

    /// Whether all events of a name are in the trace, as far as none was lost.
    fn has(&self, event: &str) -> bool {
        self.timeline.coverage(event) == Some(Coverage::Recorded)
    }
}

/// What needs no causes of changes to be counted: all of a [`Stat`] but zaps by what for, and huge pages. It can be counted while the causes are
/// looked for.
pub struct Tally<'a> {
    seen: Seen<'a>,
    sums: Sums,
    stays: Vec<Stays>,
}

impl<'a> Tally<'a> {
    /// Counts; `faults` are those of the trace, in the order of their events.
    pub fn new(trace: &'a Trace, timeline: &'a Timeline, faults: &'a [Fault], q: &Query) -> Self {
        let timed = faults_are_timed(trace, timeline);
        let faults = timed_faults(trace, timeline, faults);
        let seen = Seen { trace, timeline, faults, q: *q, timed };
        let mut sums = Sums::default();
        // What has no guest frame is not counted where frames are asked for.
        let stays = if q.gfns.is_none() { vcpus::gather(&seen, &mut sums) } else { Vec::new() };
        count_faults(&seen, &mut sums);
        count_accesses(&seen, &mut sums);
        count_zaps(&seen, &mut sums);
        Self { seen, sums, stays }
    }

    /// Counts what the causes of changes ([`survey`](crate::findings::survey)) are needed for.
    pub fn with(self, survey: &Survey) -> Stat {
        let Self { seen, mut sums, stays } = self;
        count_reasons(&seen, survey, &mut sums);
        count_huge(&seen, survey, &mut sums);
        Stat {
            rows: sums.rows(),
            stays,
            missing: missing(&seen),
            unknown: unknown(&seen),
            partial: partial(&seen),
        }
    }
}

impl Stat {
    /// Counts what is asked for.
    pub fn new(trace: &Trace, timeline: &Timeline, q: &Query) -> Self {
        let faults = timeline.faults_by_event();
        Tally::new(trace, timeline, &faults, q).with(&causes_with(trace, timeline, &faults))
    }

    /// The rows of one kind of one VM or vCPU.
    pub fn of(&self, whose: Whose, kind: Kind) -> &[Row] {
        self.rows.get(&(whose, kind)).map_or(&[], Vec::as_slice)
    }

    /// Whose rows there are.
    pub fn whose(&self) -> Vec<Whose> {
        let mut all: Vec<Whose> = self.rows.keys().map(|k| k.0).collect();
        all.dedup();
        all
    }
}

fn count_faults(seen: &Seen<'_>, sums: &mut Sums) {
    let part = seen.q.part_of_trace();
    for f in seen.faults.iter().filter(|f| part.fault(f)) {
        let Some(whose) = seen.whose(Some(f.vm), f.vcpu, Some(f.tid)) else { continue };
        let mut one = |kind, name: Cow<'static, str>, number| {
            let g = sums.of(whose, kind, name, number);
            g.hit(f.tid, f.gfn.or(f.gva).unwrap_or(u64::MAX));
            g.durations.extend(f.duration());
            g.gfn = f.gfn.filter(|_| kind == Kind::Mmio);
        };
        one(Kind::Fault, f.outcome.name().into(), 0);
        if let Some(level) = f.level {
            one(Kind::Install, level_size(level).into(), level.into());
        }
        if f.mmio {
            one(Kind::Mmio, device(f.gfn), f.gfn.unwrap_or(u64::MAX));
        }
    }
}

/// What usually lies at a frame, by its address alone.
fn device(gfn: Option<u64>) -> Cow<'static, str> {
    let Some(gfn) = gfn else { return "frame not known".into() };
    usually_in(gfn, gfn.saturating_add(1)).map_or("".into(), Cow::Owned)
}

fn count_accesses(seen: &Seen<'_>, sums: &mut Sums) {
    if !seen.timeline.mmio_accesses_traced() {
        return;
    }
    // A frame that faulted and was not accessed has no access, which is known.
    for ((_, kind), rows) in &mut sums.0 {
        if *kind == Kind::Mmio {
            for g in rows.values_mut() {
                g.accesses = Some(0);
            }
        }
    }
    let mut accesses = MmioAccesses::default();
    for e in &seen.trace.events {
        let Some(gpa) = accesses.address(&e) else { continue };
        let owner = seen.whose_are();
        let gfn = gpa >> 12;
        let asked = seen.q.holds(e.ts) && seen.q.part_of_trace().holds_frame(gfn);
        let Some(vm) = owner.vm(&e).filter(|_| asked) else { continue };
        if let Some(whose) = seen.whose(Some(vm), owner.vcpu(&e), e.tid) {
            let g = sums.of(whose, Kind::Mmio, device(Some(gfn)), gfn);
            (g.gfn, g.accesses) = (Some(gfn), Some(g.accesses.unwrap_or(0) + 1));
        }
    }
}

/// The zaps that are asked for, each with its VM.
fn zaps<'a>(seen: &'a Seen<'_>) -> impl Iterator<Item = (Zap, VmId)> + 'a {
    let part = seen.q.part_of_trace();
    seen.timeline.all_zaps().filter(move |z| part.holds(z.ts)).filter_map(move |z| {
        let entry = seen.timeline.entry(z.entry);
        part.entry(&entry).then_some((z, entry.vm))
    })
}

/// Zaps are a VM's, whichever thread made them: where one vCPU is asked for, there are none.
fn count_zaps(seen: &Seen<'_>, sums: &mut Sums) {
    for (z, vm) in zaps(seen) {
        if let Some(whose) = seen.whose(Some(vm), None, None) {
            sums.of(whose, Kind::Zap, z.cause.name(), z.cause as u64).hit(0, z.event.into());
        }
    }
}

/// What zaps were for, by what the thread that zapped was doing; zaps that are only implied say nothing of who did it.
fn count_reasons(seen: &Seen<'_>, survey: &Survey, sums: &mut Sums) {
    // That a huge page went is what such a zap did; what it was for, another cause says.
    let agents =
        survey.causes.iter().filter(|c| !matches!(c.kind(), CauseKind::HugeLost | CauseKind::HugeWon));
    let who = Who::new(agents, seen.faults.iter().copied());
    let won = Who::new(survey.causes.iter().filter(|c| c.kind() == CauseKind::HugeWon), []);
    // In the order of their events, so that each block of events is decoded once.
    let mut all: Vec<(Zap, VmId)> = zaps(seen).collect();
    all.sort_by_key(|(z, _)| z.event);
    let mut events = seen.trace.events.cursor();
    for (z, vm) in all {
        let Some(whose) = seen.whose(Some(vm), None, None) else { continue };
        let tid = events.get(z.event as usize).and_then(|e| e.tid);
        let end = seen.timeline.vms().iter().find(|v| v.id == vm).and_then(|v| v.ended.as_ref());
        let name = match z.cause {
            ZapCause::Obsolete => By::Cause(CauseKind::ZapAll).words(),
            ZapCause::Ended => By::Cause(CauseKind::Teardown).words(),
            _ if end.is_some_and(|e| z.ts >= e.start) => By::Cause(CauseKind::Teardown).words(),
            c if c.implied() => NOT_RECORDED.to_owned(),
            _ => match (who.by(tid, z.event), won.by(tid, z.event)) {
                (By::Event | By::NotTraced, by @ By::Cause(_)) => by.words(),
                (By::Event | By::NotTraced, _) => NOT_RECORDED.to_owned(),
                (by, _) => by.words(),
            },
        };
        sums.of(whose, Kind::ZapFor, name, 0).hit(0, z.event.into());
    }
}

/// What a zap is for where no event says it.
const NOT_RECORDED: &str = "not recorded";

/// Huge pages lost and won, by cause.
fn count_huge(seen: &Seen<'_>, survey: &Survey, sums: &mut Sums) {
    let part = seen.q.part_of_trace();
    for c in survey.sizes.iter().filter(|c| part.holds(c.ts)) {
        let frames = pages_of(c.level);
        if !part.holds_frames(c.gfn, c.gfn.saturating_add(frames)) {
            continue;
        }
        let Some(whose) = seen.whose(Some(c.vm), None, None) else { continue };
        let verb = if c.lost { "lost" } else { "won" };
        let g = sums.of(whose, Kind::Huge, format!("{verb}: {}", c.why), 0);
        g.hit(c.tid, 0);
        g.bytes = Some(g.bytes.unwrap_or(0).saturating_add(frames * 4096));
    }
}

/// The kinds of which no row does not mean that there was none.
fn unknown(seen: &Seen<'_>) -> Vec<Kind> {
    let installs =
        ["kvm_mmu_set_spte", "kvm_tdp_mmu_spte_changed"].iter().any(|e| seen.timeline.has_events(e));
    let some = |event: &str| seen.has(event) || seen.timeline.has_events(event);
    let known = |kind: &Kind| match kind {
        Kind::Time | Kind::Exit | Kind::Vmm if seen.q.gfns.is_some() => false,
        Kind::Time => seen.timed && some("kvm_exit") && some("kvm_entry"),
        Kind::Exit => some("kvm_exit"),
        Kind::Vmm => some("kvm_userspace_exit"),
        Kind::Fault => some("kvm_page_fault"),
        Kind::Install => some("kvm_page_fault") && installs,
        Kind::Zap | Kind::ZapFor | Kind::Huge | Kind::Mmio => true,
    };
    Kind::ALL.into_iter().filter(|k| !known(k)).collect()
}

/// The kinds that are known in part, because the recorder let only some of their events pass.
fn partial(seen: &Seen<'_>) -> Vec<Kind> {
    let part = |event: &str| !seen.has(event) && seen.timeline.has_events(event);
    let of = |kind: &Kind| match kind {
        Kind::Time => part("kvm_exit") || part("kvm_entry") || part("kvm_userspace_exit"),
        Kind::Exit => part("kvm_exit"),
        Kind::Vmm => part("kvm_userspace_exit"),
        Kind::Fault | Kind::Install => part("kvm_page_fault"),
        Kind::Zap | Kind::ZapFor | Kind::Huge | Kind::Mmio => false,
    };
    Kind::ALL.into_iter().filter(of).collect()
}

/// What is not known because it was not recorded.
fn missing(seen: &Seen<'_>) -> Vec<String> {
    const EVENTS: [(&str, &str); 5] = [
        ("kvm_exit", "exits, and the time in the guest, are not known"),
        ("kvm_entry", "how long exits and faults took is not known"),
        (
            "kvm_userspace_exit",
            "the VMM's time is not known: it is part of the time of the exits that returned to it",
        ),
        ("kvm_page_fault", "faults do not show, except where an MMIO event does"),
        ("kvm_mmio", "MMIO accesses are not known"),
    ];
    let mut out = Vec::new();
    if seen.q.gfns.is_some() {
        out.push("exits, returns to the VMM and the time of the vCPUs are of no guest frame: they are not counted where frames are asked for".into());
    }
    let of_frames =
        |event: &&str| seen.q.gfns.is_none() || !["kvm_exit", "kvm_userspace_exit"].contains(event);
    for (event, without) in EVENTS.into_iter().filter(|(event, _)| of_frames(event)) {
        let some = seen.timeline.has_events(event);
        match seen.timeline.coverage(event) {
            Some(Coverage::Recorded) | None => {}
            Some(_) if some => {
                out.push(format!(
                    "{event} was recorded in part, as its filter says: the rest is not counted"
                ));
            }
            // A VM need not access any device.
            Some(Coverage::NotKnown) if event == "kvm_mmio" => {}
            Some(c) => out.push(format!("{event} is {}: {without}", c.name())),
        }
    }
    if !seen.timed && seen.timeline.has_events("kvm_entry") {
        out.push("the clock of this trace does not count nanoseconds: times are not known".to_owned());
    }
    let probed = seen.timeline.zap_causes().contains_key(&ZapCause::Probed);
    let silent = seen.timeline.vms().iter().filter(|v| seen.q.vm.is_none_or(|q| q == v.id.0));
    if !probed
        && silent.into_iter().any(|v| matches!(v.kind, MmuKind::Direct | MmuKind::Shadow | MmuKind::Mixed))
    {
        out.push(
            "zaps: an MMU of this trace does not trace its zaps; there may have been more than later events show"
                .to_owned(),
        );
    }
    out
}

#[cfg(test)]
mod tests;

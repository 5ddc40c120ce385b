//! Who did it, and what for: what the same thread traced before.

use std::collections::HashMap;
use std::rc::Rc;

use mmuscope_spte::State;
use mmuscope_trace::{BLOCK, Body, Cursor, ErrorEncoding, Event, Kind, Trace};

use crate::ends::{Ends, after, is_one_page};
use crate::model::{NX_RECOVERY, VmId, pages_of};
use crate::timeline::Timeline;
use mmuscope_units::duration;

/// Events of all threads to look back over.
const LOOK_BACK: u32 = 100_000;
/// And ahead, for the table that a leaf was zapped with.
const LOOK_AHEAD: usize = 4_000;
/// Blocks of events of which is remembered what a thread did in them: some megabytes.
const KNOWN: usize = 2048;
/// What a thread does for one reason it does without pausing for longer.
const PAUSE: u64 = 20_000_000;

/// What is asked the reason of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It needs none.
    Clear,
    /// A leaf of this level was zapped.
    Zap(u8),
    /// A table was unlinked from an entry of this level.
    Unlink(u8),
    /// A huge page was replaced by a table.
    Split,
    /// A table was replaced by the page that it mapped in parts.
    Collapse,
    /// Accessed, or all permissions, were taken away.
    Aged,
}

/// Events of one thread in a block, with their numbers.
type Own = Rc<[(u32, Event)]>;

/// Looks up who was behind events.
pub(super) struct Actors<'a> {
    timeline: &'a Timeline,
    trace: &'a Trace,
    vm: VmId,
    cursor: Cursor<'a>,
    /// Telling events of a thread in a block of events, by both: lines next to each other look back over the same ones.
    known: HashMap<(u32, u32), Own>,
    /// Kinds of events that tell.
    telling: [bool; 256],
    /// Returns to user space are recorded.
    leaving_is_traced: bool,
}

/// Who was behind an event.
#[derive(Clone, Debug, Default)]
pub(super) struct Actor {
    /// `vCPU 0 (qemu-111)`; outside `KVM_RUN`, or where that is not known, `qemu-111 (thread of vCPU 0)`.
    pub(super) who: String,
    /// Why, where what the thread traced before shows it: follows "4K entry zapped".
    pub(super) cause: Option<String>,
}

impl<'a> Actors<'a> {
    pub(super) fn new(timeline: &'a Timeline, trace: &'a Trace, vm: VmId) -> Self {
        let mut telling = [false; 256];
        for kind in [
            Kind::Entry,
            Kind::Exit,
            Kind::UserspaceExit,
            Kind::PageFault,
            Kind::SetSpte,
            Kind::PrepareZapPage,
            Kind::SplitHugePage,
            Kind::TdpSpteChanged,
            Kind::ProbeSpteChanged,
            Kind::UnmapHvaRange,
            Kind::ZapAllFast,
            Kind::AgeHva,
            Kind::Marker,
        ] {
            telling[usize::from(kind as u8)] = true;
        }
        let leaving_is_traced = timeline.has_events("kvm_userspace_exit");
        Self {
            timeline,
            trace,
            vm,
            cursor: trace.events.cursor(),
            known: HashMap::new(),
            telling,
            leaving_is_traced,
        }
    }

    /// Who was behind event `ev`, and why, as far as `why` asks; `gfn`: the frame the story is about.
    pub(super) fn of(&mut self, ev: Option<u32>, why: Why, gfn: u64) -> Actor {
        let Some((ev, e)) = ev.and_then(|ev| Some((ev, self.event(ev as usize)?))) else {
            return Actor::default();
        };
        let comm = self.trace.strings.get(e.comm);
        let task = match e.tid {
            Some(t) if comm.is_empty() => format!("task {t}"),
            Some(t) => format!("{comm}-{t}"),
            None => comm.to_owned(),
        };
        let Some(tid) = e.tid else { return Actor { who: task, ..Actor::default() } };
        // A leaf that goes with its table goes for the same reason.
        let why = match (&e.body, why) {
            // What goes with a table goes with all of it.
            (Body::TdpSpteChanged { level, .. }, Why::Unlink(_)) => Why::Unlink(*level),
            (_, w) => w,
        };
        let (asked, why) = match why {
            Why::Zap(level) => match self.table_of(ev, &e, level) {
                Some(t) => (t, Why::Unlink(level + 1)),
                None => (ev, why),
            },
            w => (ev, w),
        };
        let back = match self.event(asked as usize) {
            Some(e) => self.look_back(asked, tid, &e, why),
            None => Back::default(),
        };
        let runs = back.runs;
        let cause = (why != Why::Clear).then(|| self.cause(asked, comm, why, &back, gfn)).flatten();
        let ending = self.ending(ev);
        let who = match self.timeline.attribution().vcpu_of(tid) {
            Some(v) if runs == Some(true) && !ending => format!("vCPU {v} ({task})"),
            Some(v) => format!("{task} (thread of vCPU {v})"),
            None => task,
        };
        Actor { who, cause }
    }

    /// Whether an event is part of the VM's teardown.
    fn ending(&self, ev: u32) -> bool {
        let end = self.timeline.vms().iter().find(|v| v.id == self.vm).and_then(|v| v.ended.as_ref());
        end.is_some_and(|e| (e.event..=e.last_event).contains(&ev))
    }

    fn cause(&mut self, ev: u32, comm: &str, why: Why, back: &Back, gfn: u64) -> Option<String> {
        let gone = matches!(why, Why::Zap(_) | Why::Unlink(_));
        if gone && self.ending(ev) {
            return Some("as the VM is torn down".to_owned());
        }
        if let Some(c) = &back.cause {
            return Some(format!("{c}{}", back.fault_words(why, gfn)));
        }
        if comm.starts_with(NX_RECOVERY) {
            // It gives up tables that stand where a huge page may not be executed: no higher ones.
            return matches!(why, Why::Unlink(2 | 3) | Why::Zap(1 | 2)).then(|| {
                "to recover a huge page that NX huge pages had split (nx_huge_pages_recovery)".to_owned()
            });
        }
        if let Some(f) = back.fault {
            return ((gone || why == Why::Split) && f != gfn).then(|| format!("by the fault on {f:#x}"));
        }
        // Nothing else unlinks one table alone, or replaces it, outside of a fault; a kernel worker zaps roots that became obsolete.
        let collapsed = matches!(why, Why::Unlink(2 | 3) | Why::Collapse)
            && back.alone
            && back.runs != Some(true)
            && !comm.starts_with("kworker")
            && !self.obsoleted_before(ev);
        collapsed
            .then(|| "so that a huge page may map it again: dirty logging ended for its memslot".to_owned())
    }

    /// Whether all roots became obsolete shortly before, by whichever thread.
    fn obsoleted_before(&mut self, ev: u32) -> bool {
        let Some(e) = self.cursor.get(ev as usize) else { return false };
        let kind = Kind::ZapAllFast as u8;
        let kinds = &self.timeline.store().ev_kind;
        let last = (0..ev as usize).rev().take(LOOK_BACK as usize).find(|i| kinds.get(*i) == Some(&kind));
        last.and_then(|i| self.cursor.get(i)).is_some_and(|z| e.ts.saturating_sub(z.ts) < 50 * PAUSE)
    }

    fn event(&mut self, i: usize) -> Option<Event> {
        self.cursor.get(i).map(|e| self.timeline.counts_as(i as u32, e))
    }

    /// The event that unlinks the table in which event `ev` zaps a leaf.
    fn table_of(&mut self, ev: u32, e: &Event, level: u8) -> Option<u32> {
        let Body::TdpSpteChanged { gfn, .. } = e.body else { return None };
        let l = &self.timeline.layout(self.vm).layout;
        let block = pages_of(level + 1);
        let unlinks = |b: &Body| match b {
            Body::TdpSpteChanged { gfn: g, level: up, old_spte, new_spte, .. } => {
                *up == level + 1
                    && g / block == gfn / block
                    && l.state(*old_spte, *up) == State::Table
                    && l.state(*new_spte, *up) != State::Table
            }
            _ => false,
        };
        // Its page is named before its entries, its link cut before that, or (7.2 and later) after them.
        let mut named = false;
        for i in (0..ev as usize).rev().take(LOOK_AHEAD) {
            let Some(x) = self.event(i).filter(|x| x.tid == e.tid) else { continue };
            match &x.body {
                b if unlinks(b) => return Some(i as u32),
                Body::TdpSpteChanged { level: of, gfn: g, .. }
                    if *of == level && g / block == gfn / block => {}
                Body::PrepareZapPage { page }
                    if page.role.level == level && page.gfn.is_some_and(|g| g / block == gfn / block) =>
                {
                    named = true;
                }
                Body::ProbeSpteChanged { .. } => {}
                _ => break,
            }
        }
        if !named {
            return None;
        }
        for i in (ev as usize + 1..).take(LOOK_AHEAD) {
            let x = self.event(i)?;
            if x.tid == e.tid {
                match &x.body {
                    b if unlinks(b) => return Some(i as u32),
                    Body::TdpSpteChanged { .. }
                    | Body::ProbeSpteChanged { .. }
                    | Body::PrepareZapPage { .. } => {}
                    _ => return None,
                }
            }
        }
        None
    }

    /// The last telling event of a thread before one event and not before another.
    fn before(&mut self, tid: u32, mut ev: u32, first: u32) -> Option<(u32, Event)> {
        while ev > first {
            let block = (ev - 1) / BLOCK as u32;
            let own = self.of_thread(tid, block);
            let n = own.partition_point(|x| x.0 < ev);
            if let Some(found) = n.checked_sub(1).map(|n| own[n]) {
                return Some(found).filter(|x| x.0 >= first);
            }
            ev = block * BLOCK as u32;
        }
        None
    }

    fn of_thread(&mut self, tid: u32, block: u32) -> Own {
        if let Some(own) = self.known.get(&(tid, block)) {
            return Rc::clone(own);
        }
        let kinds = &self.timeline.store().ev_kind;
        let tells = |i: usize| kinds.get(i).is_some_and(|k| self.telling[usize::from(*k)]);
        let mut own = Vec::new();
        self.trace.events.block_of_thread(block as usize, tid, |i, event| {
            if tells(i) {
                let e = self.timeline.counts_as(i as u32, event());
                // Where the kernel's own event is there as well, a probe says nothing more.
                if !matches!(e.body, Body::ProbeSpteChanged { .. }) {
                    own.push((i as u32, e));
                }
            }
        });
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        let own: Rc<[_]> = own.into();
        self.known.insert((tid, block), Rc::clone(&own));
        own
    }

    fn look_back(&mut self, ev: u32, tid: u32, e: &Event, why: Why) -> Back {
        let timeline = self.timeline;
        let l = &timeline.layout(self.vm).layout;
        let leaf = |level: u8, old: u64| l.state(old, level) == State::Present;
        let mut back = Back { alone: true, ..Back::default() };
        if matches!(e.body, Body::Marker { .. } | Body::UserspaceExit { .. }) {
            back.runs = Some(false);
            return back;
        }
        // What the thread did since, the latest first, for whether a fault can have made it.
        let mut since: Vec<Body> = vec![e.body];
        let ts = e.ts;
        let mut last = ts;
        // Frames whose leaves this thread zapped since, the event itself included.
        let mut zapped = match e.body {
            Body::TdpSpteChanged { level, old_spte, .. } if leaf(level, old_spte) => pages_of(level),
            _ => 0,
        };
        let mut largest = zapped.max(1);
        // A table goes with a range only if all it maps does.
        let least = match why {
            Why::Unlink(level) => pages_of(level),
            _ => 0,
        };
        let mut looking = true;
        let gone = matches!(why, Why::Zap(_) | Why::Unlink(_));
        let mut edge = None;
        let mut upto = ev;
        while let Some((i, e)) = self.before(tid, upto, ev.saturating_sub(LOOK_BACK)) {
            upto = i;
            if last.saturating_sub(e.ts) > PAUSE {
                looking = false;
            }
            last = e.ts;
            match e.body {
                Body::UnmapHvaRange { start, end } if looking && gone => {
                    // A range that is too small for what was zapped since was not what it was for.
                    let size = end.saturating_sub(start);
                    let pages = size.div_ceil(4096).max(1);
                    // A huge page goes whole, wherever in it the range begins or ends.
                    if pages >= least && zapped <= pages.saturating_add(2 * (largest - 1)) {
                        back.notifier = Some((start, end));
                        back.cause = Some(format!(
                            "for the mmu_notifier: the host invalidates {} at hva {start:#x}",
                            bytes(size)
                        ));
                    }
                    looking = false;
                }
                Body::AgeHva { .. } if looking && why == Why::Aged => {
                    back.cause = Some("as the host ages its pages".to_owned());
                    looking = false;
                }
                Body::ZapAllFast { .. } if looking && gone => {
                    back.cause = Some(match ts - e.ts {
                        0..1000 => "with all roots of the VM (kvm_mmu_zap_all_fast)".to_owned(),
                        d => {
                            format!("with all roots of the VM (kvm_mmu_zap_all_fast {} before)", duration(d))
                        }
                    });
                    looking = false;
                }
                Body::TdpSpteChanged { level, old_spte, new_spte, .. } => {
                    match l.state(new_spte, level) {
                        State::Present | State::Table => looking = false,
                        _ if leaf(level, old_spte) => {
                            zapped = zapped.saturating_add(pages_of(level));
                            largest = largest.max(pages_of(level));
                        }
                        // Part of something larger that goes.
                        _ if looking && l.state(old_spte, level) == State::Table => {
                            back.alone &= !matches!(why, Why::Unlink(of) if level > of);
                        }
                        _ => {}
                    }
                }
                Body::SetSpte { .. } => looking = false,
                Body::PageFault { .. }
                | Body::Exit { .. }
                | Body::Entry { .. }
                | Body::UserspaceExit { .. }
                | Body::Marker { .. } => {
                    edge = Some(e.body);
                    break;
                }
                _ => {}
            }
            since.push(e.body);
        }
        back.settle(edge, &since, self.leaving_is_traced, l);
        back
    }
}

/// Host memory for people: `4K`, `1M`, `2.5M`.
fn bytes(bytes: u64) -> String {
    match bytes {
        b if b.is_multiple_of(1 << 30) => format!("{}G", b >> 30),
        b if b.is_multiple_of(1 << 20) => format!("{}M", b >> 20),
        b => format!("{}K", b >> 10),
    }
}

/// What a thread traced before an event.
#[derive(Debug, Default)]
struct Back {
    /// In `KVM_RUN` or outside of it; `None` where no event shows it.
    runs: Option<bool>,
    /// Frame of the fault it was in, where events give it.
    fault: Option<u64>,
    /// It was in a fault, and whether for a write.
    write: Option<bool>,
    cause: Option<String>,
    /// The range of the host's memory that it invalidated.
    notifier: Option<(u64, u64)>,
    /// No table above the one that is asked about went with it.
    alone: bool,
}

impl Back {
    /// Whether the thread was in `KVM_RUN`, and in a fault: from the last event that shows it, and what it did since (the latest first).
    fn settle(
        &mut self,
        edge: Option<Body>,
        since: &[Body],
        leaving_is_traced: bool,
        l: &mmuscope_spte::Layout,
    ) {
        let (fault, access) = match edge {
            Some(Body::PageFault { address, encoding, error_code, .. }) => (
                (encoding != ErrorEncoding::PageFault).then_some(address >> 12),
                // Write is bit 1 of every encoding.
                Some(error_code & 2 != 0),
            ),
            _ => (None, None),
        };
        let mut ends = Ends::No;
        let mut notifying = false;
        for b in since.iter().rev() {
            ends = match after(l, b, fault, notifying, leaving_is_traced) {
                Ends::No => ends,
                other => other,
            };
            if ends != Ends::No {
                break;
            }
            if !matches!(b, Body::TdpSpteChanged { .. } | Body::PrepareZapPage { .. }) {
                notifying = matches!(b, Body::UnmapHvaRange { .. });
            }
        }
        let inside = matches!(edge, Some(Body::PageFault { .. } | Body::Exit { .. } | Body::Entry { .. }));
        self.runs = match (edge, ends) {
            (Some(Body::UserspaceExit { .. } | Body::Marker { .. }), _) | (Some(_), Ends::Left) => {
                Some(false)
            }
            _ if inside && (ends == Ends::No && access.is_some() || leaving_is_traced) => Some(true),
            // What installs is in KVM_RUN; what else is traced after an exit need not be.
            _ if since.first().is_some_and(|b| installs(l, b)) => Some(true),
            _ => None,
        };
        if ends == Ends::No {
            (self.fault, self.write) = (fault, access);
        }
    }

    /// How an invalidation of the host's memory goes with the fault that its thread was in.
    fn fault_words(&self, why: Why, gfn: u64) -> String {
        let (Some((start, end)), Some(write)) = (self.notifier, self.write) else { return String::new() };
        let level = match why {
            Why::Zap(l) => l,
            _ => 1,
        };
        match self.fault {
            _ if !is_one_page(start, end) => String::new(),
            Some(f) if f / pages_of(level) != gfn / pages_of(level) => format!(" during the fault on {f:#x}"),
            Some(_) if write => " in this fault (copy-on-write)".to_owned(),
            _ => " in this fault".to_owned(),
        }
    }
}

/// Whether an event is one of a fault that maps something.
fn installs(l: &mmuscope_spte::Layout, b: &Body) -> bool {
    match *b {
        Body::TdpSpteChanged { level, old_spte, new_spte, .. } => {
            !l.is_shadow_present(old_spte)
                && matches!(l.state(new_spte, level), State::Present | State::Table | State::Mmio)
        }
        Body::SetSpte { .. }
        | Body::PageFault { .. }
        | Body::FastPageFault { .. }
        | Body::MarkMmioSpte { .. }
        | Body::HandleMmioPageFault { .. } => true,
        _ => false,
    }
}

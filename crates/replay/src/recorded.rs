//! Which classes of events were recorded. What a trace holds none of may not have happened, or may not have been recorded: recording less
//! must never make anything more certain. Rules that rest on the absence of an event ask here.

use mmuscope_spte::{Kernel, Traces};
use mmuscope_trace::{FormatKind, Kind, Trace, Tracepoint};

use crate::kinds::{COUNT, kind_by_name, kinds, name_of};
use crate::model::{Coverage, MmuKind, Unrecorded};

/// Kinds that rules ask for, as the numbers that the store keeps.
pub(crate) mod kind {
    use mmuscope_trace::Kind;

    pub(crate) const WALK: u8 = Kind::PagetableWalk as u8;
    pub(crate) const ELEMENT: u8 = Kind::PagingElement as u8;
    pub(crate) const GET_PAGE: u8 = Kind::GetPage as u8;
    pub(crate) const SYNC_PAGE: u8 = Kind::SyncPage as u8;
    pub(crate) const UNSYNC_PAGE: u8 = Kind::UnsyncPage as u8;
    pub(crate) const PREPARE_ZAP: u8 = Kind::PrepareZapPage as u8;
    pub(crate) const FAST_FAULT: u8 = Kind::FastPageFault as u8;
    pub(crate) const ZAP_ALL: u8 = Kind::ZapAllFast as u8;
    pub(crate) const SET_SPTE: u8 = Kind::SetSpte as u8;
    pub(crate) const CHANGED: u8 = Kind::TdpSpteChanged as u8;
    pub(crate) const PAGE_FAULT: u8 = Kind::PageFault as u8;
    pub(crate) const EXIT: u8 = Kind::Exit as u8;
    pub(crate) const ENTRY: u8 = Kind::Entry as u8;
    pub(crate) const USERSPACE_EXIT: u8 = Kind::UserspaceExit as u8;
    pub(crate) const UNMAP_HVA: u8 = Kind::UnmapHvaRange as u8;
    pub(crate) const AGE_HVA: u8 = Kind::AgeHva as u8;
    pub(crate) const PROBE_UPDATE: u8 = Kind::ProbeSpteUpdate as u8;
    pub(crate) const PROBE_CLEAR: u8 = Kind::ProbeSpteClear as u8;
    pub(crate) const PROBE_CHANGED: u8 = Kind::ProbeSpteChanged as u8;
    pub(crate) const PROBE_SLOTS: u8 = Kind::ProbeSetMemoryRegion as u8;
}

/// Which MMUs need an event to be known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needed {
    Silent,
    Both,
}

/// An event that rules rest on, and what is not known without it.
struct Class {
    kind: u8,
    needed: Needed,
    /// Whether a kernel has it. Most are older than what anybody records on.
    exists: fn(&Traces) -> bool,
    without: &'static str,
}

const fn class(kind: u8, needed: Needed, without: &'static str) -> Class {
    Class { kind, needed, exists: |_| true, without }
}

const CLASSES: &[Class] = &[
    Class {
        kind: kind::CHANGED,
        needed: Needed::Both,
        exists: |t| t.changes,
        without: "changes of the TDP MMU do not show: what is mapped is known for a moment only",
    },
    Class {
        kind: kind::UNMAP_HVA,
        needed: Needed::Silent,
        exists: |t| t.notifiers,
        without: "the host may take any page away unseen: what is mapped is known for a moment only",
    },
    class(kind::GET_PAGE, Needed::Both, "which page-table pages exist is not known: entries may lie in any"),
    class(kind::PREPARE_ZAP, Needed::Silent, "page-table pages may go unseen: no entry is known to last"),
    class(kind::ZAP_ALL, Needed::Both, "all page tables may have been made anew unseen"),
    class(kind::SET_SPTE, Needed::Silent, "installs do not show"),
    class(kind::FAST_FAULT, Needed::Both, "entries may have become writable unseen"),
    class(kind::PAGE_FAULT, Needed::Silent, "what guests write to their own page tables does not show"),
    class(
        kind::EXIT,
        Needed::Silent,
        "when a vCPU goes on does not show: entries are known for a moment only",
    ),
    class(
        kind::ENTRY,
        Needed::Silent,
        "when a vCPU goes on does not show: entries are known for a moment only",
    ),
    class(kind::WALK, Needed::Silent, "which of its page tables a guest writes does not show"),
    class(kind::ELEMENT, Needed::Silent, "which of its page tables a guest writes does not show"),
];

/// What is known of each kind of event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    declared: [Coverage; COUNT],
    /// Only some of the events of this kind passed the recorder's filter.
    filtered: [bool; COUNT],
    seen: [bool; COUNT],
    /// Updates of the MMU that leave out some of its bookkeeping (aging) are probed.
    pub(crate) no_track: bool,
    /// The recorder stopped recording it.
    stopped: [bool; COUNT],
    /// The kernel, where the recording names it.
    kernel: Option<Kernel>,
    /// The format does not say which events were recorded.
    pub(crate) text: bool,
}

impl Default for Recorded {
    fn default() -> Self {
        Self {
            declared: [Coverage::NotKnown; COUNT],
            filtered: [false; COUNT],
            seen: [false; COUNT],
            no_track: false,
            stopped: [false; COUNT],
            kernel: None,
            text: true,
        }
    }
}

impl Recorded {
    /// What a recording says of itself.
    pub(crate) fn of(trace: &Trace) -> Self {
        let mut r = Self::default();
        let info = &trace.info;
        r.text = info.format.is_text() || info.format == FormatKind::RawPages;
        let facts = |name: &'static str| {
            info.host.facts.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
        };
        let listed: Vec<&str> = facts("record.events")
            .flat_map(|l| l.split(','))
            .map(|e| e.rsplit(':').next().unwrap_or(e))
            .flat_map(|e| [e, Tracepoint::find(e).map_or(e, |t| t.names[0])])
            .collect();
        let no_track = "mmu_spte_update_no_track";
        r.no_track = listed.contains(&no_track)
            || info.recorded.as_ref().is_some_and(|e| e.all && e.names.contains(no_track));
        for (n, name) in kinds() {
            let i = usize::from(n);
            if !listed.is_empty() {
                let has = listed.contains(&name);
                r.declared[i] = if has { Coverage::Recorded } else { Coverage::NotRecorded };
            } else if let Some(events) = &info.recorded {
                r.declared[i] = match (events.names.contains(name), events.all) {
                    (false, _) => Coverage::NotRecorded,
                    (true, true) => Coverage::Recorded,
                    (true, false) => Coverage::NotKnown,
                };
            }
            r.filtered[i] = facts("record.filter")
                .any(|f| f.split_whitespace().next().is_some_and(|e| e.rsplit(':').next() == Some(name)));
        }
        // Up to 6.12 the compiler puts this function, which only takes a lock, into its caller and leaves a symbol that nobody calls. That the
        // probe is hit shows that it is not so here; the function inside shows it at once.
        let inner = "__kvm_set_memory_region";
        let named =
            listed.contains(&inner) || info.recorded.as_ref().is_some_and(|e| e.names.contains(inner));
        let slots = &mut r.declared[usize::from(kind::PROBE_SLOTS)];
        if *slots == Coverage::Recorded && !named {
            *slots = Coverage::NotKnown;
        }
        let words =
            |w: &str| info.host.cmdline.as_ref().is_some_and(|c| c.split_whitespace().any(|x| x == w));
        if words("--filter") {
            r.filtered = [true; COUNT];
        }
        r.kernel = info.host.os_release.as_deref().and_then(Kernel::parse);
        r
    }

    /// An event of this kind is in the trace.
    #[inline]
    pub(crate) fn see(&mut self, kind: u8) {
        self.seen[usize::from(kind).min(COUNT - 1)] = true;
    }

    /// Events of this kind are not recorded from here on.
    pub(crate) fn stop(&mut self, kind: u8) {
        self.stopped[usize::from(kind).min(COUNT - 1)] = true;
    }

    /// Whether the recorder stopped recording events of this kind.
    pub(crate) fn is_stopped(&self, kind: u8) -> bool {
        self.stopped[usize::from(kind).min(COUNT - 1)]
    }

    /// Whether the recording says of itself what another one did.
    pub(crate) fn declares(&self, other: &Self) -> bool {
        (&self.declared, &self.filtered, self.kernel) == (&other.declared, &other.filtered, other.kernel)
    }

    pub(crate) fn coverage(&self, kind: u8) -> Coverage {
        let i = usize::from(kind).min(COUNT - 1);
        match self.declared[i] {
            _ if self.filtered[i] || self.stopped[i] => Coverage::NotRecorded,
            _ if self.seen[i] => Coverage::Recorded,
            c => c,
        }
    }

    /// All events of this kind are in the trace.
    #[inline]
    pub(crate) fn has(&self, kind: u8) -> bool {
        self.coverage(kind) == Coverage::Recorded
    }

    /// This kernel has such an event, and it was not recorded.
    pub(crate) fn lacks(&self, kind: u8, traces: &Traces) -> bool {
        let exists = CLASSES.iter().find(|c| c.kind == kind).is_none_or(|c| self.may_exist(c, traces));
        exists && self.coverage(kind) == Coverage::NotRecorded
    }

    /// Whether this kernel may have an event: where the recording does not name the kernel, what it traces may be a guess.
    fn may_exist(&self, class: &Class, traces: &Traces) -> bool {
        self.kernel.is_none() || (class.exists)(traces)
    }

    /// Whether the trace holds no event at all: a snapshot of a moment.
    pub(crate) fn no_events(&self) -> bool {
        Kind::ALL.iter().all(|k| !self.seen[*k as usize] || k.class() == mmuscope_trace::Class::Note)
    }

    /// What was not, or may not have been, recorded of what these MMUs are known by.
    pub(crate) fn missing(&self, mmus: &[MmuKind], traces: &Traces) -> Vec<Unrecorded> {
        let tdp = mmus.iter().any(|k| matches!(k, MmuKind::Tdp | MmuKind::Mixed));
        let silent = mmus.iter().any(|k| !matches!(k, MmuKind::Tdp));
        let needed = |c: &&Class| match c.needed {
            Needed::Silent => silent,
            Needed::Both => tdp || silent,
        };
        let classes = CLASSES.iter().filter(needed).filter(|c| self.may_exist(c, traces));
        classes
            .filter_map(|c| {
                let coverage = self.coverage(c.kind);
                let event = name_of(c.kind);
                (coverage != Coverage::Recorded).then_some(Unrecorded { event, coverage, without: c.without })
            })
            .collect()
    }

    /// What is known of an event by its name.
    pub(crate) fn by_name(&self, name: &str) -> Option<Coverage> {
        kind_by_name(name).map(|k| self.coverage(k))
    }
}

#[cfg(test)]
mod tests {
    use mmuscope_spte::{Known, LayoutSpec, Mode};

    use super::*;

    #[test]
    fn what_a_named_kernel_does_not_have_is_not_lacking() {
        let of = |release: &str| {
            let spec = LayoutSpec {
                kernel: Kernel::parse(release).map(Known::measured),
                mode: Some(Known::given(Mode::Npt)),
                ..LayoutSpec::default()
            };
            let mut r = Recorded { kernel: Kernel::parse(release), ..Recorded::default() };
            r.declared = [Coverage::NotRecorded; COUNT];
            let traces = spec.resolve().expect("a layout").traces;
            let named = (r.lacks(kind::CHANGED, &traces), r.lacks(kind::UNMAP_HVA, &traces));
            r.kernel = None;
            assert!(r.lacks(kind::CHANGED, &traces), "{release}: where no kernel is named, it may have all");
            named
        };
        assert_eq!(of("5.10.0-30-amd64"), (false, false));
        assert_eq!(of("5.12.9"), (true, false));
        assert_eq!(of("6.1.0-55-cloud-amd64"), (true, true));
        // An old number, and the KVM of 5.13.
        assert_eq!(of("4.18.0-348.el8.x86_64"), (true, true));
    }
}

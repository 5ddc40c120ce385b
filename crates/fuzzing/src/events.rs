//! Sequences of events as bytes that a fuzzer can change piece by piece: a head of eight bytes, then forty bytes for each event.

use arbitrary::{Arbitrary, Unstructured};
use mmuscope_replay::{LayoutOverride, ReplayOptions};
use mmuscope_spte::LayoutSpec;
use mmuscope_trace::{
    Body, ErrorEncoding, Event, EventStore, FastPfResult, Isa, Page, RecordedEvents, Role, StrId, TaskInfo,
    TaskKind, Trace, VmHint,
};

/// Layouts that a scenario may be of, each with its own rules of what the kernel traces. One index more stands for none: it is inferred.
pub const LAYOUTS: [&str; 18] = [
    "5.2/npt",
    "5.2/ept",
    "5.4/npt",
    "5.4/ept",
    "5.10/npt",
    "5.10/ept",
    "5.11/npt",
    "5.12/ept",
    "6.1/npt",
    "6.1/ept",
    "6.1/ept-noad",
    "6.1/shadow64",
    "5.10/shadow64",
    "6.12/npt",
    "6.12/ept",
    "6.18/npt",
    "7.2/npt",
    "7.2/ept",
];

/// A sequence of events, with what is known of the host that recorded it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scenario {
    /// What is known besides the events.
    pub head: Head,
    /// The events, in order.
    pub steps: Vec<Step>,
}

/// What is known besides the events of a scenario.
#[derive(Arbitrary, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Index into [`LAYOUTS`], modulo one more than their number.
    pub layout: u8,
    /// Bit 0: the trace says which events were recorded. Bit 1: and these were all that the layout's kernel has. Bit 2: threads are known to
    /// be of two VMs, the odd and the even ones.
    pub flags: u8,
    /// Not used yet, so that corpora stay valid when it is.
    pub spare: [u8; 6],
}

/// An event. What its fields mean depends on the kind; those that a kind does not have are ignored.
#[derive(Arbitrary, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Which event, modulo the number of kinds.
    pub kind: u8,
    /// Booleans of the event.
    pub flags: u8,
    /// The thread.
    pub tid: u8,
    /// Level in the low four bits, address space in the high ones.
    pub level: u8,
    /// Microseconds since the event before.
    pub later: u16,
    /// A small number of the event: a vCPU, an access, an error number.
    pub small: i16,
    /// A guest frame, or the start of a range.
    pub gfn: u64,
    /// An address: of the entry, of the fault, or the end of a range.
    pub address: u64,
    /// The value after the event.
    pub new: u64,
    /// The value before it.
    pub old: u64,
}

impl<'a> Arbitrary<'a> for Scenario {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let head = Head::arbitrary(u)?;
        let mut steps = Vec::new();
        while !u.is_empty() {
            steps.push(Step::arbitrary(u)?);
        }
        Ok(Self { head, steps })
    }
}

impl Scenario {
    /// The bytes that are read as this scenario.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![self.head.layout, self.head.flags];
        out.extend(self.head.spare);
        for s in &self.steps {
            out.extend([s.kind, s.flags, s.tid, s.level]);
            out.extend(s.later.to_le_bytes());
            out.extend(s.small.to_le_bytes());
            for v in [s.gfn, s.address, s.new, s.old] {
                out.extend(v.to_le_bytes());
            }
        }
        out
    }

    /// The scenario that some events of a trace are, as far as a step can hold an event.
    pub fn of(head: Head, events: impl Iterator<Item = Event>) -> Self {
        let mut steps = Vec::new();
        let mut last = None;
        for e in events {
            let Some(step) = Step::of(&e) else { continue };
            let later = (e.ts - last.unwrap_or(e.ts)) / 1000;
            last = Some(e.ts);
            let tid = e.tid.unwrap_or(0) as u8;
            steps.push(Step { later: u16::try_from(later).unwrap_or(u16::MAX), tid, ..step });
        }
        Self { head, steps }
    }

    /// The trace, and how it is replayed.
    ///
    /// # Panics
    ///
    /// If a name in [`LAYOUTS`] is of no layout.
    pub fn trace(&self) -> (Trace, ReplayOptions) {
        let name = LAYOUTS.get(usize::from(self.head.layout) % (LAYOUTS.len() + 1));
        let spec = name.map(|n| LayoutSpec::named(n).unwrap_or_else(|e| panic!("{n}: {e}")));
        let options = ReplayOptions {
            layout: LayoutOverride { spec: spec.unwrap_or_default() },
            threads: 1,
            progress: None,
        };
        let mut t = Trace::default();
        let text = t.strings.intern("phase");
        let mut ts = 1_000_000;
        t.info.first_ts = ts + self.steps.first().map_or(0, |s| u64::from(s.later) * 1000);
        let mut events = EventStore::new();
        for s in &self.steps {
            ts += u64::from(s.later) * 1000;
            let tid = Some(u32::from(s.tid));
            let cpu = u16::from(s.tid % 4);
            events.push(&Event { ts, cpu, tid, pid: None, comm: StrId::default(), body: s.body(text) });
        }
        t.info.last_ts = ts;
        t.info.events = events.len() as u64;
        t.events = events;
        if self.head.flags & 1 != 0 {
            t.info.recorded =
                Some(RecordedEvents { all: self.head.flags & 2 != 0, ..RecordedEvents::default() });
        }
        if self.head.flags & 4 != 0 {
            for pid in [1000, 1001] {
                let tids: Vec<u32> = (0..=255).filter(|t| t % 2 == pid % 2).collect();
                let task = |tid: &u32| TaskInfo { tid: *tid, pid: Some(pid), ..TaskInfo::default() };
                t.info.tasks.extend(tids.iter().map(task));
                let provenance = "scenario".to_owned();
                t.info.vm_hints.push(VmHint { pid: Some(pid), tids, provenance, ..VmHint::default() });
            }
        }
        (t, options)
    }
}

impl Step {
    /// How many kinds there are.
    pub const KINDS: u8 = 39;

    fn flag(&self, bit: u8) -> bool {
        self.flags >> bit & 1 != 0
    }

    fn page(&self) -> Page {
        let role = Role {
            raw: None,
            level: self.level & 15,
            gpte_bytes: Some(8),
            quadrant: 0,
            direct: self.flag(1),
            r: true,
            w: true,
            u: true,
            x: true,
            invalid: self.flag(2),
            nxe: None,
            ad_disabled: self.flag(3),
            guest_mode: Some(self.flag(4)),
            smm: Some(self.level >> 4 & 1 != 0),
            mirror: Some(self.flag(5)),
        };
        let gfn = (!self.flag(7)).then_some(self.gfn);
        Page { gfn, role, mmu_valid_gen: Some(self.new), root_count: self.small.into(), unsync: self.flag(6) }
    }

    #[expect(clippy::too_many_lines, reason = "a table: one arm for each event that can be made up")]
    fn body(&self, text: StrId) -> Body {
        let Self { gfn, address, new, old, .. } = *self;
        let (level, as_id) = (self.level & 15, self.level >> 4);
        let small = u32::from(self.small.unsigned_abs());
        let place = self.flag(0).then_some(address);
        match self.kind % Self::KINDS {
            0 => Body::GetPage { page: self.page(), created: self.flag(0) },
            1 => Body::TdpSpteChanged { as_id, gfn, level, old_spte: old, new_spte: new },
            2 => Body::SetSpte {
                gfn,
                spte: new,
                sptep: address,
                level,
                r: true,
                w: self.flag(1),
                x: true,
                u: None,
            },
            3 => Body::SpteRequested { gfn, pfn: new, level, access: self.flag(0).then_some(small) },
            4 => Body::PrepareZapPage { page: self.page() },
            5 => Body::SyncPage { page: self.page() },
            6 => Body::UnsyncPage { page: self.page() },
            7 => Body::MarkMmioSpte { sptep: place, gfn, access: small, generation: new as u32 },
            8 => Body::HandleMmioPageFault { addr: address, gfn, access: small },
            9 => Body::CheckMmioSpte { spte: new, kvm_gen: small, spte_gen: old as u32 },
            10 => {
                let result = [
                    FastPfResult::Invalid,
                    FastPfResult::Fixed,
                    FastPfResult::Spurious,
                    FastPfResult::Retry,
                    FastPfResult::Emulate,
                    FastPfResult::Other(self.small.into()),
                ];
                let result = result[usize::from(self.flags >> 1) % result.len()];
                let (cr2_or_gpa, error_code) = (gfn << 12, u64::from(small));
                let vcpu = u32::from(self.tid);
                Body::FastPageFault {
                    vcpu,
                    cr2_or_gpa,
                    error_code,
                    sptep: place,
                    old_spte: old,
                    new_spte: new,
                    result,
                }
            }
            11 => Body::ZapAllFast { mmu_valid_gen: new, mmu_used_pages: small },
            12 => Body::SplitHugePage { gfn, spte: new, level, errno: self.small.into() },
            13 => {
                let encoding = [
                    ErrorEncoding::EptQualification,
                    ErrorEncoding::NestedPageFault,
                    ErrorEncoding::PageFault,
                    ErrorEncoding::Ambiguous,
                ];
                let encoding = encoding[usize::from(self.flags >> 1) % encoding.len()];
                let vcpu = self.flag(0).then_some(small);
                Body::PageFault { vcpu, rip: None, address, error_code: new, encoding }
            }
            14 => Body::Exit {
                vcpu: self.flag(0).then_some(u32::from(self.tid)),
                reason: self.flag(1).then_some(new as u32),
                reason_name: StrId::default(),
                isa: self.flag(2).then_some(if self.flag(3) { Isa::Vmx } else { Isa::Svm }),
                rip: old,
                info1: Some(gfn),
                info2: Some(address),
                intr_info: None,
                error_code: None,
                requests: None,
            },
            15 => Body::Entry {
                vcpu: small,
                rip: None,
                immediate_exit: None,
                intr_info: None,
                error_code: None,
            },
            16 => Body::UserspaceExit { reason: new as u32, errno: self.small.into() },
            17 => Body::Mmio { kind: small, len: 4, gpa: address, val: new },
            18 => {
                Body::VcpuMatchMmio { gva: old, gpa: address, write: self.flag(0), gpa_match: self.flag(1) }
            }
            19 => Body::FastMmio { gpa: address },
            20 => Body::UnmapHvaRange { start: gfn, end: address },
            21 => Body::AgeHva { start: gfn, end: address },
            22 => Body::TestAgeHva { hva: address },
            23 => Body::SetSpteHva { hva: address },
            24 => Body::AgePage { hva: address, gfn, level, young: self.flag(0) },
            25 => Body::TryAsyncGetPage { gva: address, gfn, repeated: self.flag(0) },
            26 => Body::PagetableWalk { addr: address, pferr: small },
            27 => Body::PagingElement { pte: new, level: level.into() },
            28 => Body::WalkerError { pferr: small },
            29 => Body::SetMemAttributes { start: gfn, end: address, attributes: new },
            30 => Body::Marker { text },
            31 => Body::Lost { count: self.flag(0).then_some(new), event: None },
            32 => {
                let kind = match self.flags & 3 {
                    0 => TaskKind::Fork,
                    1 => TaskKind::Exit,
                    f => TaskKind::Comm { exec: f == 3 },
                };
                Body::Task { kind, tid: small, pid: self.flag(2).then_some(new as u32), comm: text }
            }
            33 => Body::EmulateInsn { rip: old, failed: self.flag(0) },
            34 => Body::ProbeSpteUpdate {
                no_track: self.flag(0),
                kvm: self.flag(1).then_some(old),
                sptep: address,
                new_spte: new,
            },
            35 => Body::ProbeSpteClear { kvm: None, sptep: address, old_spte: self.flag(1).then_some(old) },
            36 => Body::ProbeSpteChanged { kvm: None, as_id, gfn, old_spte: old, new_spte: new, level },
            37 => Body::ProbeSetMemoryRegion {
                kvm: None,
                slot: self.flag(0).then_some(small),
                flags: None,
                gpa: self.flag(1).then_some(address),
                size: self.flag(2).then_some(new),
                hva: self.flag(3).then_some(old),
            },
            _ => Body::ProbeDirtyLog { clear: self.flag(0), kvm: None, slot: self.flag(1).then_some(small) },
        }
    }

    fn of_page(kind: u8, p: &Page) -> Self {
        let r = &p.role;
        let smm = u8::from(r.smm == Some(true));
        let bits = [
            (1, r.direct),
            (2, r.invalid),
            (3, r.ad_disabled),
            (4, r.guest_mode == Some(true)),
            (5, r.mirror == Some(true)),
            (6, p.unsync),
            (7, p.gfn.is_none()),
        ];
        Self {
            kind,
            flags: bits.iter().map(|(n, on)| u8::from(*on) << n).sum(),
            level: r.level & 15 | smm << 4,
            small: p.root_count as i16,
            gfn: p.gfn.unwrap_or(0),
            new: p.mmu_valid_gen.unwrap_or(0),
            ..Self::default()
        }
    }

    fn of_probe(body: &Body) -> Option<Self> {
        let none = Self::default();
        Some(match *body {
            Body::ProbeSpteUpdate { sptep, new_spte, .. } => {
                Self { kind: 34, address: sptep, new: new_spte, ..none }
            }
            Body::ProbeSpteClear { sptep, .. } => Self { kind: 35, address: sptep, ..none },
            Body::ProbeSpteChanged { as_id, gfn, old_spte, new_spte, level, .. } => {
                Self { kind: 36, level: level & 15 | as_id << 4, gfn, old: old_spte, new: new_spte, ..none }
            }
            _ => return None,
        })
    }

    /// The step that is most like an event, for the kinds that a replay learns most from.
    fn of(e: &Event) -> Option<Self> {
        let none = Self::default();
        Some(match e.body {
            Body::GetPage { page, created } => {
                let s = Self::of_page(0, &page);
                Self { flags: s.flags | u8::from(created), ..s }
            }
            Body::TdpSpteChanged { as_id, gfn, level, old_spte, new_spte } => {
                Self { kind: 1, level: level & 15 | as_id << 4, gfn, old: old_spte, new: new_spte, ..none }
            }
            Body::SetSpte { gfn, spte, sptep, level, w, .. } => {
                let flags = u8::from(w) << 1;
                Self { kind: 2, level: level & 15, flags, gfn, new: spte, address: sptep, ..none }
            }
            Body::SpteRequested { gfn, pfn, level, access } => Self {
                kind: 3,
                flags: u8::from(access.is_some()),
                level: level & 15,
                small: access.unwrap_or(0) as i16,
                gfn,
                new: pfn,
                ..none
            },
            Body::PrepareZapPage { page } => Self::of_page(4, &page),
            Body::SyncPage { page } => Self::of_page(5, &page),
            Body::UnsyncPage { page } => Self::of_page(6, &page),
            Body::MarkMmioSpte { sptep, gfn, access, generation } => Self {
                kind: 7,
                flags: u8::from(sptep.is_some()),
                small: access as i16,
                gfn,
                address: sptep.unwrap_or(0),
                new: generation.into(),
                ..none
            },
            Body::HandleMmioPageFault { addr, gfn, access } => {
                Self { kind: 8, small: access as i16, gfn, address: addr, ..none }
            }
            Body::FastPageFault { cr2_or_gpa, error_code, sptep, old_spte, new_spte, result, .. } => {
                let fixed = if result == FastPfResult::Fixed { 2 } else { 0 };
                Self {
                    kind: 10,
                    flags: u8::from(sptep.is_some()) | fixed,
                    small: error_code as i16,
                    gfn: cr2_or_gpa >> 12,
                    address: sptep.unwrap_or(0),
                    old: old_spte,
                    new: new_spte,
                    ..none
                }
            }
            Body::ZapAllFast { mmu_valid_gen, .. } => Self { kind: 11, new: mmu_valid_gen, ..none },
            Body::SplitHugePage { gfn, spte, level, errno } => {
                Self { kind: 12, level: level & 15, small: errno as i16, gfn, new: spte, ..none }
            }
            Body::PageFault { address, error_code, encoding, .. } => {
                let flags = match encoding {
                    ErrorEncoding::EptQualification => 0,
                    ErrorEncoding::NestedPageFault => 2,
                    ErrorEncoding::PageFault => 4,
                    ErrorEncoding::Ambiguous => 6,
                };
                Self { kind: 13, flags, address, new: error_code, ..none }
            }
            Body::Exit { reason, isa, info1, info2, .. } => Self {
                kind: 14,
                flags: u8::from(reason.is_some()) << 1
                    | u8::from(isa.is_some()) << 2
                    | u8::from(isa == Some(Isa::Vmx)) << 3,
                gfn: info1.unwrap_or(0),
                address: info2.unwrap_or(0),
                new: reason.unwrap_or(0).into(),
                ..none
            },
            Body::Entry { vcpu, .. } => Self { kind: 15, small: vcpu as i16, ..none },
            Body::UserspaceExit { reason, errno } => {
                Self { kind: 16, small: errno as i16, new: reason.into(), ..none }
            }
            Body::Mmio { kind, gpa, val, .. } => {
                Self { kind: 17, small: kind as i16, address: gpa, new: val, ..none }
            }
            Body::UnmapHvaRange { start, end } => Self { kind: 20, gfn: start, address: end, ..none },
            Body::AgeHva { start, end } => Self { kind: 21, gfn: start, address: end, ..none },
            Body::SetSpteHva { hva } => Self { kind: 23, address: hva, ..none },
            Body::PagetableWalk { addr, pferr } => {
                Self { kind: 26, small: pferr as i16, address: addr, ..none }
            }
            Body::PagingElement { pte, level } => {
                Self { kind: 27, level: level as u8 & 15, new: pte, ..none }
            }
            Body::WalkerError { pferr } => Self { kind: 28, small: pferr as i16, ..none },
            Body::Lost { count, .. } => {
                Self { kind: 31, flags: u8::from(count.is_some()), new: count.unwrap_or(0), ..none }
            }
            ref probe => return Self::of_probe(probe),
        })
    }
}

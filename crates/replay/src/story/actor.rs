//! Who did it, and what for: what the same thread traced before.

use mmuscope_trace::{Body, Cursor, ErrorEncoding, Trace};

use super::human_ns;
use crate::series::kind_by_name;
use crate::timeline::Timeline;

/// Events of all threads to look back over.
const LOOK_BACK: usize = 100_000;
/// What a thread does for one reason it does without pausing for longer.
const PAUSE: u64 = 20_000_000;

/// Looks up who was behind events.
pub(super) struct Actors<'a> {
    timeline: &'a Timeline,
    trace: &'a Trace,
    cursor: Cursor<'a>,
    /// Kinds of events that tell.
    telling: [bool; 256],
}

/// Who was behind an event.
#[derive(Clone, Debug, Default)]
pub(super) struct Actor {
    /// `vCPU 0 (qemu-111)`; outside `KVM_RUN` `qemu-111`.
    pub(super) who: String,
    /// Why, where what the thread traced before tells: follows "4K entry zapped".
    pub(super) cause: Option<String>,
    /// The frame of the fault that its thread was in, where events give it.
    pub(super) fault: Option<u64>,
}

impl<'a> Actors<'a> {
    pub(super) fn new(timeline: &'a Timeline, trace: &'a Trace) -> Self {
        let mut telling = [false; 256];
        for name in [
            "kvm_entry",
            "kvm_exit",
            "kvm_userspace_exit",
            "kvm_page_fault",
            "kvm_tdp_mmu_spte_changed",
            "kvm_unmap_hva_range",
            "kvm_mmu_zap_all_fast",
            "kvm_age_hva",
        ] {
            if let Some(k) = kind_by_name(name) {
                telling[usize::from(k)] = true;
            }
        }
        Self { timeline, trace, cursor: trace.events.cursor(), telling }
    }

    /// Who was behind event `ev`.
    pub(super) fn of(&mut self, ev: Option<u32>) -> Actor {
        let Some((ev, e)) = ev.and_then(|ev| Some((ev, self.cursor.get(ev as usize)?))) else {
            return Actor::default();
        };
        let comm = self.trace.strings.get(e.comm);
        let task = match e.tid {
            Some(t) if comm.is_empty() => format!("task {t}"),
            Some(t) => format!("{comm}-{t}"),
            None => comm.to_owned(),
        };
        let Some(tid) = e.tid else { return Actor { who: task, ..Actor::default() } };
        let back = self.look_back(ev, tid, e.ts, &e.body);
        let who = match self.timeline.engine.vms.vcpu_of.get(&tid) {
            Some(v) if back.runs != Some(false) => format!("vCPU {v} ({task})"),
            Some(v) => format!("{task} (thread of vCPU {v})"),
            None => task,
        };
        let nx = comm.starts_with("kvm-nx-");
        let cause = back.cause.or(nx.then(|| "to recover huge pages from the NX mitigation".to_owned()));
        Actor { who, cause, fault: back.fault }
    }

    fn look_back(&mut self, ev: u32, tid: u32, ts: u64, body: &Body) -> Back {
        let kinds = &self.timeline.store().ev_kind;
        let mut back = Back::default();
        let mut last = ts;
        // Frames this thread zapped since, the event itself included.
        let mut zapped = u64::from(matches!(body, Body::TdpSpteChanged { .. }));
        let mut looking = true;
        for i in (0..ev as usize).rev().take(LOOK_BACK) {
            if !kinds.get(i).is_some_and(|k| self.telling[usize::from(*k)]) {
                continue;
            }
            let Some(e) = self.cursor.get(i).filter(|e| e.tid == Some(tid)) else { continue };
            if last.saturating_sub(e.ts) > PAUSE {
                looking = false;
            }
            last = e.ts;
            match e.body {
                Body::UnmapHvaRange { start, end } if looking => {
                    // A range that is too small for what was zapped since was not what it was for.
                    if zapped <= (end.saturating_sub(start)).div_ceil(4096).max(1) {
                        let size = size(end.saturating_sub(start));
                        back.cause = Some(format!(
                            "for the mmu_notifier: the host invalidates {size} at hva {start:#x}"
                        ));
                    }
                    looking = false;
                }
                Body::AgeHva { .. } if looking => {
                    back.cause = Some("as the host ages its pages".to_owned());
                    looking = false;
                }
                Body::ZapAllFast { .. } if looking => {
                    back.cause = Some(match ts - e.ts {
                        0..1000 => "with all roots of the VM (kvm_mmu_zap_all_fast)".to_owned(),
                        d => {
                            format!("with all roots of the VM (kvm_mmu_zap_all_fast {} before)", human_ns(d))
                        }
                    });
                    looking = false;
                }
                Body::TdpSpteChanged { level, .. } => {
                    zapped = zapped.saturating_add(crate::model::pages_of(level));
                }
                Body::PageFault { address, encoding, .. } => {
                    back.runs = Some(true);
                    back.fault = (encoding != ErrorEncoding::PageFault).then_some(address >> 12);
                    break;
                }
                Body::Exit { .. } | Body::Entry { .. } => {
                    back.runs = Some(true);
                    break;
                }
                Body::UserspaceExit { .. } => {
                    back.runs = Some(false);
                    break;
                }
                _ => {}
            }
        }
        if back.runs == Some(true)
            && let Some(c) = &mut back.cause
            && c.contains("mmu_notifier")
        {
            c.push_str(" in this fault (copy-on-write, or a page brought in)");
        }
        back
    }
}

/// Host memory for people: `4K`, `1M`, `2.5M`.
fn size(bytes: u64) -> String {
    match bytes {
        b if b.is_multiple_of(1 << 30) => format!("{}G", b >> 30),
        b if b.is_multiple_of(1 << 20) => format!("{}M", b >> 20),
        b => format!("{}K", b >> 10),
    }
}

/// What a thread traced before an event.
#[derive(Debug, Default)]
struct Back {
    /// In `KVM_RUN` or outside of it; `None` where nothing tells.
    runs: Option<bool>,
    fault: Option<u64>,
    cause: Option<String>,
}

//! What a text shows about its recording: clock, losses, gaps, damage, and facts about the host.

use super::{State, TextReader};
use crate::info::{Clock, ClockUnit, FormatKind, TraceInfo};
use crate::reader::{Cx, damage};
use mmuscope_units::counted;

impl State {
    pub(super) fn describe(&self, info: &mut TraceInfo, cx: &mut Cx, r: &TextReader) {
        let digits = self.digits.unwrap_or(6);
        if digits == 0 {
            info.clock = Clock { name: String::new(), unit: ClockUnit::Ordinal };
            info.notes.push(
                "The stamps are whole numbers: the trace was recorded with a clock that does not count time (counter, uptime or x86-tsc); \
                 only the order of events is known. Record with: echo mono > /sys/kernel/tracing/trace_clock"
                    .to_owned(),
            );
            info.resolution_ns = 1;
        } else {
            info.clock = Clock::default();
            info.resolution_ns = 10u32.pow(9u32.saturating_sub(u32::from(digits)));
        }
        // Only whole output shows that nothing was lost: a fragment may have been cut out between two lines that report a loss, and
        // perf script prints no losses.
        info.lost.known |=
            r.kind != FormatKind::PerfScriptText && self.events && self.head && !self.skipped.filtered;
        if let Some((kept, written)) = self.overwritten
            && written > kept
        {
            info.notes.push(format!(
                "{} overwritten before the oldest one kept: the recording is longer than this trace. A larger buffer: \
                 echo 65536 > /sys/kernel/tracing/buffer_size_kb",
                counted(written - kept, "event was", "events were")
            ));
        }
        self.gap_notes(info);
        info.notes.extend(self.mended.words());
        self.skipped.notes(info);
        if self.likely_whole {
            info.notes.push(
                "The text has no line end behind its last event: the last number is taken for a whole one, because it is as long as in the other \
                 events of this kind"
                    .to_owned(),
            );
        }
        let mut damaged = |at: Option<u64>, expected: &str, message: String, resumed: bool| {
            if let Some(at) = at {
                let _ = cx.damaged(damage(&r.path, at, expected, message, resumed));
            }
        };
        let unread = format!(
            "{} kept as text",
            counted(self.gaps.unread, "event could not be read and is", "events could not be read and are")
        );
        damaged(self.first_unread, "the fields that this event prints", unread, true);
        let junk = format!(
            "{} of any known format",
            counted(self.junk, "line is not an event", "lines are not events")
        );
        damaged(self.first_junk, "an event", junk, true);
        let cut = "the text ends within a line, which was left out".to_owned();
        damaged(self.cut, "the end of the line", cut, false);
        let open = "the text has no line end behind its last event, whose last number may be cut short: it is counted, but its values are not used; if the \
                    text is whole, put a line end behind it"
            .to_owned();
        damaged(self.open, "the end of the line", open, false);
        if let Some(v) = self.long_page_fault {
            info.dialect.long_page_fault.get_or_insert_with(|| crate::info::Sourced {
                value: v,
                from: "the text of kvm_page_fault".to_owned(),
            });
        }
        self.host_facts(info);
    }

    /// Adds a remark for each kind of gap in the texts of events.
    fn gap_notes(&self, info: &mut TraceInfo) {
        let g = &self.gaps;
        if g.page_gfn > 0 {
            info.notes.push(format!(
                "The kvm plugin of trace-cmd dropped the gfn of {}: use the trace.dat itself, or trace-cmd report -R",
                counted(g.page_gfn, "shadow-page event", "shadow-page events")
            ));
        }
        if g.exit_vcpu > 0 {
            info.notes.push(format!(
                "{} vCPU (the kvm plugin drops it, and kernels before 5.4 do not record it)",
                counted(g.exit_vcpu, "kvm_exit event does not say its", "kvm_exit events do not say their")
            ));
        }
        if g.old_role > 0 {
            info.notes.push(format!(
                "The kvm plugin of an old trace-cmd splits the role of {} as KVM did in its first years, which is wrong since long before Linux 4.14: \
                 kept as text. Use the trace.dat itself, or trace-cmd report -R",
                counted(g.old_role, "shadow-page event", "shadow-page events")
            ));
        }
        if g.hashed > 0 {
            info.notes.push(format!(
                "{} left out: record with trace-cmd or perf, or boot with no_hash_pointers",
                counted(
                    g.hashed,
                    "pointer (sptep) is hashed by the kernel and was",
                    "pointers (sptep) are hashed by the kernel and were"
                )
            ));
        }
        if g.emptied > 0 {
            info.notes.push(format!(
                "In {} the kernel dropped strings (6.1 does so with the option nohash-ptr): letters and exit reasons are missing there. \
                 Record with trace-cmd or perf",
                counted(g.emptied, "line", "lines")
            ));
        }
    }

    /// Adds the facts in the header of `perf script --header`.
    fn host_facts(&self, info: &mut TraceInfo) {
        for (k, v) in &self.facts {
            match k.as_str() {
                "hostname" => info.host.hostname = Some(v.clone()),
                "os release" => info.host.os_release = Some(v.clone()),
                "arch" => info.host.arch = Some(v.clone()),
                "cpudesc" => info.host.cpu_desc = Some(v.clone()),
                "cpuid" => info.host.set_cpuid(v),
                "cmdline" => info.host.cmdline = Some(v.clone()),
                "nrcpus online" => info.host.nr_cpus = v.parse().ok(),
                _ => info.host.facts.push((k.clone(), v.clone())),
            }
        }
    }
}

//! The rule `stuck-removed`: an entry stays removed (frozen) while faults on it keep coming to nothing.

use super::{Finding, Rule, Seen, Severity, Sure};
use mmuscope_replay::EvidenceKind;

pub(super) static RULE: Rule = Rule {
    id: "stuck-removed",
    severity: Severity::Error,
    seen: "the last value of an entry of a linked table is the removed (frozen) one, and for 20 ms or longer faults of two vCPUs or more on its \
           frame have come to nothing",
    why: "the TDP MMU freezes an entry while it changes it; whoever faults on it meanwhile must try again. An entry that stays frozen was left so: \
          the thread that froze it is stuck, or a path of the kernel does not release it",
    remedy: "look where the thread of the freezing event is (its stack in /proc/PID/stack, `crash`); report it to kvm@vger.kernel.org",
    refuted: "the entry's value in the kernel's memory is 0 (`mmuscope snapshot`): kernels up to 6.9 do not trace the release",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let stuck = |e: &&mmuscope_replay::Evidence| e.kind == EvidenceKind::StuckRemoved && !e.after_loss;
    let one = |e: &mmuscope_replay::Evidence| {
        let value = e.found.map_or_else(String::new, |v| format!(" ({v:#x})"));
        let title = format!(
            "the level-{} entry of gfn {:#x} was left removed{value} by event {}, and faults of several vCPUs on it came to nothing from then on",
            e.level, e.gfn, e.event
        );
        let mut out = Finding::new(&RULE, title);
        (out.vm, out.gfn, out.sure) = (Some(e.vm.0), Some(e.gfn), Sure::Likely);
        out.see(e.ts, e.event);
        out.see_faults(seen.faults.iter().filter(|f| f.gfn == Some(e.gfn) && f.vm == e.vm && f.ts >= e.ts));
        out
    };
    seen.timeline.evidence().iter().filter(stuck).map(one).collect()
}

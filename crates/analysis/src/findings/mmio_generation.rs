//! The rule `mmio-generation`: MMIO SPTEs are out of date when they are used.

use super::moment::At;
use super::{Finding, Rule, Seen, Severity, counted};
use mmuscope_trace::Body;
use mmuscope_units::{count, percent};
use rustc_hash::FxHashMap as HashMap;

/// Fewer than this many checks that fail are the price of one change of the memory slots.
const MANY: u64 = 16;
/// At least one check of this many fails.
const ONE_OF: u64 = 20;

pub(super) static RULE: Rule = Rule {
    id: "mmio-generation",
    severity: Severity::Warning,
    seen: "16 `check_mmio_spte` events or more, and at least 5 % of all, find an MMIO SPTE of another generation than the memory slots'",
    why: "each change of a memory slot makes all MMIO SPTEs out of date, and each is made anew by the next access",
    remedy: "let the VMM change memory slots less often, and all at once",
    refuted: "no memory slot changes at that time: then the generation in the SPTEs is read wrongly (`mmuscope layout`)",
    find,
};

/// Checks of one VM.
#[derive(Clone, Debug, Default)]
struct Of {
    valid: u64,
    stale: Vec<(u64, u32)>,
    first: u32,
    last: u32,
}

/// `check_mmio_spte` events.
#[derive(Debug, Default)]
pub(super) struct Checks(HashMap<u16, Of>);

impl Checks {
    pub(super) fn event(&mut self, at: &At<'_>, body: &Body) {
        let Body::CheckMmioSpte { kvm_gen, spte_gen, .. } = *body else { return };
        let of = self.0.entry(at.vm).or_insert_with(|| Of { first: kvm_gen, ..Of::default() });
        of.last = kvm_gen;
        if kvm_gen == spte_gen {
            of.valid += 1;
        } else {
            of.stale.push((at.ts, at.event));
        }
    }
}

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let one = |vm: u16| {
        let of = seen.noted.checks.0.get(&vm)?;
        let stale = of.stale.len() as u64;
        let all = stale + of.valid;
        if stale < MANY || stale * ONE_OF < all {
            return None;
        }
        let title = format!(
            "{} of {} ({}) found an MMIO SPTE of an older generation: the generation of the memory slots went from {} to {}",
            count(stale),
            counted(all, "check"),
            percent(stale, all),
            of.first,
            of.last
        );
        let mut out = Finding::new(&RULE, title);
        out.see_all(of.stale.iter().copied());
        out.vm = Some(vm);
        Some(out)
    };
    seen.vms().filter_map(one).collect()
}

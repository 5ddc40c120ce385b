//! The rule `shadow-refill`: shadow pages that are zapped and made again.

use super::moment::At;
use super::{Finding, Rule, Seen, Severity, Sure, counted};
use mmuscope_trace::Body;
use mmuscope_units::{count, percent};
use rustc_hash::FxHashMap as HashMap;

/// A page that is made again within this many nanoseconds was needed still.
const SOON: u64 = 10_000_000;
/// Fewer are no pressure …
const MANY: u64 = 256;
/// … nor are fewer than one of this many of all that are made.
const ONE_OF: u64 = 4;

pub(super) static RULE: Rule = Rule {
    id: "shadow-refill",
    severity: Severity::Warning,
    seen: "256 shadow pages of the guest's tables or more, and at least a quarter of all that were made, had been zapped less than 10 ms before",
    why: "the guest writes to its page tables (KVM zaps a shadow page after a few writes to what it shadows), changes roots often, or KVM's limit of \
          shadow pages is too low, so that it recycles pages that are in use. Under nested virtualization the guest's hypervisor does this to the \
          tables of its own guest",
    remedy: "EPT or NPT where the host has it (kvm_intel.ept, kvm_amd.npt); a higher limit (KVM_SET_NR_MMU_PAGES); in the guest fewer changes of \
             page tables (huge pages, no page-table isolation)",
    refuted: "the pages that are made again are of other tables that reuse the same guest frames",
    find,
};

/// One shadow page's identity: VM, frame, level, quadrant, direct.
type Key = (u16, u64, u8, u8);

/// Shadow pages that came and went.
#[derive(Debug, Default)]
pub(super) struct Shadows {
    zapped: HashMap<Key, u64>,
    of: HashMap<u16, (u64, Vec<(u64, u32)>)>,
}

impl Shadows {
    pub(super) fn event(&mut self, at: &At<'_>, body: &Body) {
        let key = |p: &mmuscope_trace::Page| {
            Some((at.vm, p.gfn?, p.role.level, p.role.quadrant)).filter(|_| !p.role.direct)
        };
        match body {
            Body::PrepareZapPage { page } => {
                if let Some(k) = key(page) {
                    self.zapped.insert(k, at.ts);
                }
            }
            Body::GetPage { page, created: true } => {
                let Some(k) = key(page) else { return };
                let of = self.of.entry(at.vm).or_default();
                of.0 += 1;
                if self.zapped.remove(&k).is_some_and(|ts| at.ts.saturating_sub(ts) <= SOON) {
                    of.1.push((at.ts, at.event));
                }
            }
            _ => {}
        }
    }
}

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let one = |vm: u16| {
        let (made, again) = seen.noted.shadows.of.get(&vm)?;
        let n = again.len() as u64;
        if n < MANY || n * ONE_OF < *made {
            return None;
        }
        let title = format!(
            "{} of {} ({}) were made less than 10 ms after the same page was zapped",
            count(n),
            counted(*made, "shadow page"),
            percent(n, *made)
        );
        let mut out = Finding::new(&RULE, title);
        out.see_all(again.iter().copied());
        (out.vm, out.sure) = (Some(vm), Sure::Likely);
        Some(out)
    };
    seen.vms().filter_map(one).collect()
}

//! [`compare`]: what a loop looks like among the known bugs of KVM (`mmuscope_spte::bugs`).

use super::{Finding, Seen};
use mmuscope_replay::VmId;
use mmuscope_spte::Mode;
use mmuscope_spte::bugs::{Bugs, Trait};
use std::borrow::Cow;

/// Adds to a finding which known bugs it looks like under this kernel, and what would confirm each. `seen_here` are the traits of the finding
/// itself; the others are those of the whole trace.
pub(super) fn compare(seen: &Seen<'_>, finding: &mut Finding, seen_here: &[Trait]) {
    let Ok(known) = Bugs::known() else { return };
    let loops = [Trait::FaultLoop, Trait::SpuriousLoop];
    let mut traits = mmuscope_replay::evidence(seen.trace).traits;
    // Another finding's loop is no trait of this one.
    traits.retain(|t| !loops.contains(t));
    traits.extend(seen_here);
    let resolved = &seen.timeline.layout(VmId(0)).resolved;
    if resolved.layout.mode == Mode::Npt {
        traits.push(Trait::Npt);
    }
    let era = resolved.era.as_ref().map(|e| e.value);
    let releases = match (&resolved.kernel, era.zip(mmuscope_spte::eras().ok())) {
        (Some(k), _) => (k.value.release(), k.value.release()),
        (None, Some((id, eras))) => match eras.iter().find(|e| e.id == id) {
            Some(e) => (e.first, e.last),
            None => return,
        },
        (None, None) => return,
    };
    for bug in known.like(&traits, releases) {
        finding.why = Cow::Owned(format!(
            "{}. It looks like a known bug of {}: {}. Fixed: {}",
            finding.why,
            bug.releases(),
            bug.title,
            bug.fixed
        ));
        finding.remedy = Cow::Owned(format!(
            "{}. The bug would be confirmed if {}",
            finding.remedy,
            bug.confirm.join("; or if ")
        ));
        finding.sure = super::Sure::Possible;
    }
}

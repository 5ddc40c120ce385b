//! Tables that are not of the host's KVM: the judge asks [`leave_out`] whether such a layout may be offered. It never scores anything.

use alloc::vec::Vec;

use super::{
    Candidate,
    evidence::{Claim, Modes},
    tries::Trial,
};
use crate::{Distro, Error, Known, LayoutSpec, Mode, bits};

/// The hypervisors that are no part of Linux.
const FOREIGN: [Mode; 2] = [Mode::Pkvm, Mode::Pvm];

/// The bits of an address in an entry.
const ADDRESS: u64 = bits::range(51, 12);

/// Removes the layouts of hypervisors that are no part of Linux, unless something names them or the values can be nothing else: what few
/// rules their entries have, almost any word fits.
pub(super) fn leave_out(
    trial: &Trial<'_>,
    spec: &LayoutSpec,
    candidates: &mut Vec<Candidate>,
) -> Result<(), Error> {
    let mode = |c: &Candidate| c.resolved.layout.mode;
    let named = |mode: Mode| {
        let only = Claim::Modes(Modes::of(&[mode]));
        spec.mode.is_some_and(|m| m.value == mode) || trial.evidence.facts.iter().any(|f| f.claim == only)
    };
    let unnamed = |c: &Candidate| FOREIGN.contains(&mode(c)) && !named(mode(c));
    let Some(best) = candidates.first() else { return Ok(()) };
    // Small numbers pass for entries of frame 0.
    let wanted = unnamed(best)
        && best.misfits == 0
        && best.readings.iter().all(|d| !(d.pfn.is_some() || d.host_entry) || d.raw & ADDRESS != 0)
        && !is_of_a_distributor(trial, spec)
        && !something_else_fits(trial, spec)?;
    if !wanted && !candidates.iter().all(unnamed) {
        candidates.retain(|c| !unnamed(c));
    }
    Ok(())
}

/// Whether the kernel is one that a distributor ships: none of those has such a hypervisor.
fn is_of_a_distributor(trial: &Trial<'_>, spec: &LayoutSpec) -> bool {
    let kernel = spec.kernel.map(|k| k.value).or_else(|| trial.evidence.kernel());
    kernel.is_some_and(|k| k.distro != Distro::Mainline)
}

/// Whether some layout of Linux fits every value, of whatever release.
fn something_else_fits(trial: &Trial<'_>, spec: &LayoutSpec) -> Result<bool, Error> {
    for (at, era) in trial.eras.iter().enumerate() {
        for mode in Mode::ALL {
            if FOREIGN.contains(&mode) || !trial.library.era_has(trial.eras, at, mode) {
                continue;
            }
            let mut this = LayoutSpec { kernel: None, masks: Vec::new(), file: None, ..spec.clone() };
            this.era = Some(Known::inferred(era.id.into()));
            this.mode = Some(Known::inferred(mode));
            this.host.vendor = None;
            if trial.candidate(this, at, mode)?.misfits == 0 {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

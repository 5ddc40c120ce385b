//! [`SpKey`]: what distinguishes one shadow page from another, as its events print it. All rules of the silent MMUs use it; two pages may share one,
//! because text does not print all of a role.

use mmuscope_trace::{Page, Role};

/// What makes a shadow page: its frame and role, without what changes while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SpKey {
    pub(super) vm: u16,
    pub(super) gfn: Option<u64>,
    pub(super) role: Role,
    pub(super) generation: Option<u64>,
}

impl SpKey {
    /// The frame of the guest's table that a page shadows, and what it allows; `None` for pages that map guest-physical addresses.
    pub(crate) fn shadows(&self) -> Option<(u64, Role)> {
        self.gfn.filter(|_| !self.role.direct).map(|g| (g, self.role))
    }

    pub(super) fn of(vm: u16, p: &Page) -> Self {
        Self {
            vm,
            gfn: p.gfn,
            role: Role { raw: None, invalid: false, ..p.role },
            generation: p.mmu_valid_gen,
        }
    }
}

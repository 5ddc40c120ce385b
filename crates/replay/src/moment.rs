//! [`At`]: when an event was made, by which thread, and for which VM. The engine makes one for each event and hands it to every rule; nothing
//! keeps one longer than the event.

use crate::keys::ThreadIx;

/// The VM of an event where the trace has several, and nothing shows which of them its thread works for. No VM has this number, so that what
/// is looked up under it is not found; rules that would make a table for it, or end one, ask [`At::nobodys`].
pub(crate) const NO_VM: u16 = u16::MAX;

/// When and by whom an event was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    /// Number of the thread.
    pub(crate) th: ThreadIx,
    /// The VM it is taken to work for; [`NO_VM`] where there are several and nothing shows which.
    pub(crate) vm: u16,
    /// That is beyond doubt.
    pub(crate) vm_known: bool,
    pub(crate) ev: u32,
    pub(crate) ts: u64,
}

impl At {
    /// Whether the trace has several VMs, and nothing shows which of them the event is of: it makes no table in any.
    pub(crate) fn nobodys(self) -> bool {
        self.vm == NO_VM
    }
}

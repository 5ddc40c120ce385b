//! [`At`]: when an event was made, by which thread, and for which VM. The engine makes one for each event and hands it to every rule; nothing
//! keeps one longer than the event.

use crate::threads::ThreadIx;

/// When and by whom an event was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    /// Number of the thread.
    pub(crate) th: ThreadIx,
    /// The VM it is taken to work for.
    pub(crate) vm: u16,
    /// That is beyond doubt.
    pub(crate) vm_known: bool,
    pub(crate) ev: u32,
    pub(crate) ts: u64,
}

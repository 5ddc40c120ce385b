//! [`Links`], the entries above the 4K level that were seen without a mapping. [`linking`](super::linking) fills it and asks it; it knows no engine.

use std::collections::BTreeSet;

use crate::keys::EntryIx;

/// Entries that were seen without a mapping.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    /// In direct tables, by VM, level and frame: the tables that can be linked there are of the same frame.
    pub(super) direct: BTreeSet<(u16, u8, u64, EntryIx)>,
    /// In tables that shadow a guest's, by VM and level: any table may be linked there.
    pub(super) shadow: BTreeSet<(u16, u8, EntryIx)>,
}

impl Links {
    /// Takes out the entries of a VM at this level to which a table of this frame may be linked; all of the level where the frame is not known.
    pub(super) fn take(&mut self, vm: u16, level: u8, gfn: Option<u64>) -> Vec<EntryIx> {
        let frames = gfn.map_or((0, u64::MAX), |g| (g, g));
        let ((first, last), none, most) = (frames, EntryIx(0), EntryIx::NONE);
        let direct: Vec<_> =
            self.direct.range((vm, level, first, none)..=(vm, level, last, most)).copied().collect();
        let shadow: Vec<_> = self.shadow.range((vm, level, none)..=(vm, level, most)).copied().collect();
        for x in &direct {
            self.direct.remove(x);
        }
        for x in &shadow {
            self.shadow.remove(x);
        }
        direct.into_iter().map(|x| x.3).chain(shadow.into_iter().map(|x| x.2)).collect()
    }

    /// Takes out all.
    pub(super) fn take_all(&mut self) -> Vec<EntryIx> {
        let Self { direct, shadow } = std::mem::take(self);
        direct.into_iter().map(|x| x.3).chain(shadow.into_iter().map(|x| x.2)).collect()
    }
}

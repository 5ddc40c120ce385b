//! [`Slots`]: the memory slots of every VM over time, the one list that every face and every rule asks.
//!
//! Slots come from snapshots of KVM's memory (all of a VM's at a time) and from the VMM's requests, where `kvm_set_memory_region` is probed. A
//! request that the probe reads whole changes the list at once; one of which only the moment is known leaves it open what changed until the
//! recorder has read the slots again. What is asked for may also be refused, so that a request is no more than that until a reading shows it.
//!
//! The rules about `mmu_notifier` ranges ask [`Slots::delta`] and [`Slots::frames`], which answer only while the slots are beyond doubt.

use std::collections::{BTreeMap, BTreeSet};

use mmuscope_trace::snapshot::Slot;
use mmuscope_units::ranges;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{MemSlot, SlotAt, SlotKnown, VmId};

/// After this long a request was carried out, even if its thread never makes another event, in nanoseconds. KVM waits for readers of the old
/// slots (SRCU), which are vCPUs on their way into the guest, and for the zap of all page tables.
const CARRIED_OUT: u64 = 2_000_000_000;
/// Most stretches of slots that are kept: made-up files may ask for any number.
const MOST: usize = 1 << 18;
/// Most slots of a VM that the rules about host addresses look at; KVM allows 32,767 in each of two address spaces.
const MOST_NOW: usize = 1 << 16;
/// Most requests under way that are distinguished.
const MOST_ASKED: usize = 256;

/// What the VMM asks KVM for; as much of it as the probe reads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Request {
    /// Address space in the upper 16 bits, number of the slot in the lower.
    pub slot: Option<u32>,
    pub flags: Option<u32>,
    pub gpa: Option<u64>,
    /// In bytes; 0 deletes the slot.
    pub size: Option<u64>,
    pub hva: Option<u64>,
}

/// A reading of KVM's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub at: u64,
    /// The number of the snapshot that it is a part of; `None` between snapshots.
    pub snapshot: Option<usize>,
    /// Every later change will be an event.
    pub requests_recorded: bool,
    /// A slot that goes, or moves, will be an event.
    pub lasting: bool,
}

/// A request that may not be carried out yet.
#[derive(Clone, Copy, Debug)]
struct Asked {
    vm: u16,
    tid: u32,
    ts: u64,
    /// When its thread was first seen to do something else.
    done: Option<u64>,
}

/// The slots of one VM that are there now.
#[derive(Clone, Debug, Default)]
struct Now {
    /// By address space and first frame: the place in the list.
    by_gfn: BTreeMap<(u8, u64), usize>,
    /// Those whose host address is known, by that.
    by_hva: BTreeSet<(u64, usize)>,
    /// By address space and number.
    by_id: FxHashMap<(u8, u16), usize>,
    /// The size of the largest there ever was, in bytes.
    longest: u64,
    /// All of them are known.
    complete: bool,
    /// None of them may have changed since.
    trusted: bool,
    /// Requests since the last reading, and when the first came.
    requests: u32,
    since: u64,
    /// Until when requests may be under way that are not among those that are followed.
    unsettled_until: u64,
    /// When they were last read, and whether they may have changed since without an event.
    last_read: Option<u64>,
    doubted: bool,
    /// The snapshot, by its number, of which the VM's slots were read.
    read_in: Option<usize>,
    /// Since when all slots have been known without doubt.
    known_from: Option<u64>,
    /// Earlier such stretches of time.
    known: Vec<(u64, u64)>,
    /// A list that comes in several parts.
    parts: Vec<Slot>,
}

impl Now {
    fn doubt(&mut self, ts: u64) {
        (self.trusted, self.doubted) = (false, true);
        if let Some(from) = self.known_from.take() {
            self.known.push((from, ts));
        }
    }
}

/// The memory slots of all VMs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    list: Vec<MemSlot>,
    now: FxHashMap<u16, Now>,
    asked: Vec<Asked>,
    index: FxHashMap<(u16, u8), Index>,
    indexed: usize,
}

/// Slots of one address space by their first frame, with the greatest end so far.
#[derive(Clone, Debug, Default)]
struct Index {
    by_gfn: Vec<(u64, u64, usize)>,
}

impl Slots {
    /// Every slot there was, in the order in which they became known.
    pub(crate) fn list(&self) -> &[MemSlot] {
        &self.list
    }

    /// Whether some request may not be carried out yet.
    pub(crate) fn asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// A thread does something else than what it was asked for.
    pub(crate) fn went_on(&mut self, tid: u32, ts: u64) {
        for a in self.asked.iter_mut().filter(|a| a.tid == tid && a.done.is_none()) {
            a.done = Some(ts);
        }
        let unstated = |vm: u16, now: &FxHashMap<u16, Now>| now.get(&vm).is_none_or(|n| !n.trusted);
        let now = &self.now;
        self.asked.retain(|a| a.done.is_none() || unstated(a.vm, now));
    }

    /// The VMM asks for a slot, for another place or size of it, or for its end.
    pub(crate) fn requested(&mut self, vm: u16, tid: u32, ts: u64, r: Request) {
        self.asked.retain(|a| (a.vm, a.tid) != (vm, tid));
        if self.asked.len() >= MOST_ASKED {
            let a = self.asked.swap_remove(0);
            let n = self.now.entry(a.vm).or_default();
            n.unsettled_until = n.unsettled_until.max(a.ts.saturating_add(CARRIED_OUT));
        }
        self.asked.push(Asked { vm, tid, ts, done: None });
        let now = self.now.entry(vm).or_default();
        if now.requests == 0 {
            now.since = ts;
        }
        now.requests = now.requests.saturating_add(1);
        let (Some(slot), Some(gpa), Some(size)) = (r.slot, r.gpa, r.size) else {
            now.doubt(ts);
            return;
        };
        let (as_id, id) = ((slot >> 16).min(255) as u8, slot as u16);
        let before = now.by_id.get(&(as_id, id)).copied();
        let (gfn, pages) = (gpa >> 12, size >> 12);
        let hva = r.hva.filter(|h| *h != 0);
        let flags = r.flags.unwrap_or_default();
        if let Some(i) = before {
            let s = &self.list[i];
            // KVM refuses to change the size of a slot, or where in the host it lies.
            if pages > 0 && (s.pages != pages || hva.is_some_and(|h| s.hva.is_some_and(|own| own != h))) {
                return;
            }
            self.end(vm, i, ts);
        }
        if pages == 0 {
            return;
        }
        let moved = before.is_some_and(|i| self.list[i].gfn != gfn);
        let known = SlotKnown::Requested;
        let new = MemSlot {
            vm: VmId(vm),
            as_id,
            id,
            gfn,
            pages,
            hva: hva.or(before.and_then(|i| self.list[i].hva)),
            flags,
            start: ts,
            end: None,
            known,
        };
        // KVM refuses a slot that lies over another; that it was asked for shows then that the list is wrong.
        let last = gfn.saturating_add(pages - 1);
        let over = self.now.get(&vm).is_some_and(|n| {
            let before = n.by_gfn.range(..=(as_id, last)).next_back();
            before.is_some_and(|((a, _), i)| *a == as_id && self.list[*i].end_gfn() > gfn)
        });
        if moved || over {
            // Until it is carried out, entries of the old place may be there.
            if let Some(n) = self.now.get_mut(&vm) {
                n.doubt(ts);
            }
        }
        if !over {
            self.begin(new);
            let n = self.now.entry(vm).or_default();
            n.trusted |= !n.complete && n.requests == 1 && n.read_in.is_none();
        }
    }

    fn begin(&mut self, s: MemSlot) {
        if self.list.len() >= MOST {
            if let Some(n) = self.now.get_mut(&s.vm.0) {
                (n.trusted, n.complete) = (false, false);
            }
            return;
        }
        let i = self.list.len();
        let n = self.now.entry(s.vm.0).or_default();
        n.by_gfn.insert((s.as_id, s.gfn), i);
        n.by_id.insert((s.as_id, s.id), i);
        n.longest = n.longest.max(s.pages.saturating_mul(4096));
        if let Some(h) = s.hva {
            n.by_hva.insert((h, i));
        }
        self.list.push(s);
    }

    fn end(&mut self, vm: u16, i: usize, ts: u64) {
        let s = &mut self.list[i];
        s.end = Some(ts.max(s.start));
        let (key, id, hva) = ((s.as_id, s.gfn), (s.as_id, s.id), s.hva);
        if let Some(n) = self.now.get_mut(&vm) {
            if n.by_id.get(&id) == Some(&i) {
                n.by_id.remove(&id);
            }
            if n.by_gfn.get(&key) == Some(&i) {
                n.by_gfn.remove(&key);
            }
            if let Some(h) = hva {
                n.by_hva.remove(&(h, i));
            }
        }
    }

    /// A part of the list of a VM's slots that is too long for one piece of a snapshot. Gives the whole list once it is there.
    pub(crate) fn part(&mut self, vm: u16, slots: &[Slot], more: bool) -> Option<Vec<Slot>> {
        let n = self.now.entry(vm).or_default();
        let mut all = std::mem::take(&mut n.parts);
        if all.len() + slots.len() <= MOST {
            all.extend_from_slice(slots);
        }
        if more {
            n.parts = all;
            return None;
        }
        Some(all)
    }

    /// All slots of a VM were read in KVM's memory.
    pub(crate) fn read(&mut self, vm: u16, slots: &[Slot], r: Reading) {
        let Reading { at, snapshot, requests_recorded, lasting } = r;
        let n = self.now.entry(vm).or_default();
        // Of a process with two VMs it is not known whose they are.
        let twice = snapshot.is_some() && n.read_in == snapshot;
        n.read_in = snapshot.or(n.read_in);
        let changed = if n.requests == 1 { n.since.min(at) } else { at };
        let mut new: FxHashSet<Signature> = slots.iter().filter(|s| s.pages > 0).map(signature).collect();
        let before: Vec<usize> = if twice { Vec::new() } else { n.by_gfn.values().copied().collect() };
        let (mut same, earlier) = (!new.is_empty(), n.last_read.replace(at));
        for i in before {
            let s = &self.list[i];
            if new.remove(&(s.as_id, s.id, s.gfn, s.pages, s.hva.unwrap_or_default(), s.flags)) {
                self.list[i].known = SlotKnown::Read;
            } else {
                same = false;
                self.end(vm, i, changed);
            }
        }
        for s in slots.iter().filter(|s| new.remove(&signature(s))) {
            same = false;
            let (hva, id) = ((s.hva != 0).then_some(s.hva), VmId(vm));
            let (known, start, end) = (SlotKnown::Read, changed, None);
            let Slot { as_id, gfn, pages, flags, .. } = *s;
            self.begin(MemSlot { vm: id, as_id, id: s.id, gfn, pages, hva, flags, start, end, known });
        }
        let open =
            |a: &Asked| a.vm == vm && at < a.ts.saturating_add(CARRIED_OUT) && a.done.is_none_or(|d| d >= at);
        let settled = !self.asked.iter().any(open) && self.list.len() < MOST;
        let n = self.now.entry(vm).or_default();
        let settled = settled && n.unsettled_until <= at && n.by_gfn.len() <= MOST_NOW;
        let undoubted = !std::mem::take(&mut n.doubted);
        n.requests = 0;
        if !settled || twice || slots.is_empty() {
            n.doubt(at);
            return;
        }
        (n.trusted, n.complete) = (lasting, n.by_hva.len() == n.by_gfn.len());
        if requests_recorded {
            n.known_from.get_or_insert(at);
        } else if let Some(earlier) = earlier.filter(|_| same && undoubted) {
            // Nobody changes slots and changes them back.
            n.known.push((earlier, at));
        }
        self.asked.retain(|a| a.vm != vm);
    }

    /// Slots may have changed without an event: of one VM, or of all.
    pub(crate) fn doubt(&mut self, vm: Option<u16>, ts: u64) {
        for (_, n) in self.now.iter_mut().filter(|(v, _)| vm.is_none_or(|own| own == **v)) {
            n.doubt(ts);
        }
    }

    /// The distance between host-virtual and guest-physical addresses of these frames, where that is beyond doubt.
    pub(crate) fn delta(&self, vm: u16, as_id: u8, first: u64, last: u64) -> Option<u64> {
        let n = self.now.get(&vm).filter(|n| n.trusted)?;
        let ((own, _), i) = n.by_gfn.range(..=(as_id, first)).next_back()?;
        let s = &self.list[*i];
        (*own == as_id && last < s.end_gfn()).then(|| Some(s.hva?.wrapping_sub(s.gfn << 12)))?
    }

    /// Whether every frame of a VM is in a slot that is known, or in none.
    pub(crate) fn complete(&self, vm: u16) -> bool {
        self.now.get(&vm).is_some_and(|n| n.trusted && n.complete)
    }

    /// The frames that lie at a range of host addresses: address space, first and last.
    pub(crate) fn frames(&self, vm: u16, start: u64, end: u64) -> impl Iterator<Item = (u8, u64, u64)> + '_ {
        self.now.get(&vm).filter(|n| n.trusted).into_iter().flat_map(move |n| {
            let from = start.saturating_sub(n.longest);
            n.by_hva.range((from, 0)..(end.max(from), 0)).filter_map(move |(hva, i)| {
                let s = &self.list[*i];
                let own = (*hva, hva.saturating_add(s.pages.saturating_mul(4096)));
                let (a, b) = ranges::common((start, end), own)?;
                let frame = |address: u64| s.gfn.saturating_add((address - hva) >> 12);
                Some((s.as_id, frame(a), frame(b - 1)))
            })
        })
    }

    /// Ranges of frames of the usual address space that lie in no slot, first and last.
    pub(crate) fn gaps(&self, vm: u16) -> impl Iterator<Item = (u64, u64)> + '_ {
        let now = self.now.get(&vm).into_iter().flat_map(|n| n.by_gfn.range((0, 0)..(1, 0)));
        let slots = now.map(|(_, i)| (self.list[*i].gfn, self.list[*i].end_gfn()));
        let mut next = 0;
        // The last frame there can be stands for the end.
        slots.chain([(u64::MAX, u64::MAX)]).filter_map(move |(first, end)| {
            let gap = (next < first).then(|| (next, first - 1));
            next = next.max(end);
            gap
        })
    }

    /// Prepares [`Self::at`]. To be called after slots were taken in.
    pub(crate) fn seal(&mut self) {
        if self.indexed == self.list.len() {
            return;
        }
        self.index.clear();
        for (i, s) in self.list.iter().enumerate() {
            self.index.entry((s.vm.0, s.as_id)).or_default().by_gfn.push((s.gfn, s.end_gfn(), i));
        }
        for x in self.index.values_mut() {
            x.by_gfn.sort_unstable();
            let mut most = 0;
            for s in &mut x.by_gfn {
                most = s.1.max(most);
                s.1 = most;
            }
        }
        self.indexed = self.list.len();
    }

    /// What is known of a frame at a time.
    pub(crate) fn at(&self, vm: u16, as_id: u8, gfn: u64, ts: u64) -> SlotAt<'_> {
        if let Some(x) = self.index.get(&(vm, as_id)) {
            let before = x.by_gfn.partition_point(|s| s.0 <= gfn);
            for (_, most, i) in x.by_gfn[..before].iter().rev() {
                if *most <= gfn {
                    break;
                }
                let s = &self.list[*i];
                if gfn < s.end_gfn() && s.at(ts) {
                    return SlotAt::In(s);
                }
            }
        }
        if self.known(vm, ts) { SlotAt::Outside } else { SlotAt::NotKnown }
    }

    /// Whether all slots of a VM are known at a time.
    pub(crate) fn known(&self, vm: u16, ts: u64) -> bool {
        let Some(n) = self.now.get(&vm) else { return false };
        if n.known_from.is_some_and(|from| from <= ts) {
            return true;
        }
        let i = n.known.partition_point(|k| k.1 <= ts);
        n.known.get(i).is_some_and(|k| k.0 <= ts)
    }
}

/// All of a slot.
type Signature = (u8, u16, u64, u64, u64, u32);

fn signature(s: &Slot) -> Signature {
    (s.as_id, s.id, s.gfn, s.pages, s.hva, s.flags)
}

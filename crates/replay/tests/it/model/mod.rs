//! A naive model of KVM's page tables against the replay: random work by several vCPUs and VMs, shown as each kernel era shows it.
//!
//! The model holds every table as 512 plain values and emits, for each step, the events the era's kernel emits (and none for what it does
//! without an event). Where the kernel speaks the replay must hold exactly the model's leaves, at every moment; where it is silent, or events are
//! missing, nothing it calls a fact may be false. This guards kernels and sequences that no recording shows.

#![allow(clippy::too_many_arguments, reason = "the fields of one event travel together")]
#![allow(clippy::verbose_bit_mask, reason = "permission bits read better as a mask")]

mod host;
mod kernel;
mod ops;

use std::collections::BTreeMap;

use kernel::{Kernel, Mapped};
use mmuscope_replay::{
    Certainty, LayoutOverride, Reason, ReplayOptions, State, StateFilter, Timeline, VmId, replay,
};
use mmuscope_trace::{Body, Event, EventStore, Trace};
use ops::{
    E5_10, E5_11, E5_12, E6_1, E6_1_NOAD, E6_6, E6_12, E6_12_NOAD, E6_18, E7_2, E7_9, Era, LEGACY,
    LEGACY_5_10, Op, TDX, ops,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

impl Kernel {
    fn replay(&self, trace: &Trace) -> Timeline {
        let spec = self.era.spec();
        replay(trace, &ReplayOptions { layout: LayoutOverride { spec }, ..ReplayOptions::default() })
    }

    /// The leaves that the replay shows.
    fn shown(&self, t: &Timeline, ts: u64) -> Vec<Mapped> {
        let mut v: Vec<Mapped> = t
            .state_at(ts, &StateFilter::default())
            .into_iter()
            .filter(|(_, s)| matches!(s.state, State::Present | State::Mmio))
            .map(|(e, s)| (e.vm.0, e.as_id, e.level, e.gfn, self.still(s.spte.unwrap_or(0))))
            .collect();
        v.sort_unstable();
        v
    }

    /// What the replay calls a fact and the model does not hold.
    fn false_facts(&self, t: &Timeline) -> Vec<String> {
        t.state_at(t.range().1, &StateFilter::default())
            .into_iter()
            .filter_map(|(e, s)| {
                let (sptep, value) = (e.sptep?, s.spte?);
                let held = self.mem.get(&(sptep & !0xfff)).map(|p| p[(sptep >> 3 & 511) as usize]);
                // What was torn down is frozen until its memory is freed, which is some time later.
                let dying = held.is_none() && s.state == State::Removed;
                let right = dying || held.is_some_and(|h| self.still(h) == self.still(value));
                (s.certainty <= Certainty::Observed && !right).then(|| {
                    format!("{e:x?} {:x?} {} {:?}, model {held:x?}", s.spte, s.state.name(), s.reason)
                })
            })
            .collect()
    }
}

/// A trace without what `lose` says, noticed by each CPU with its next event (or at the end); the first `late` events unnoticed.
fn without(trace: &Trace, late: usize, lose: impl Fn(usize) -> bool) -> Trace {
    let mut events = EventStore::new();
    let mut lost = BTreeMap::<u16, u64>::new();
    let record =
        |e: Event, count| Event { tid: None, body: Body::Lost { count: Some(count), event: None }, ..e };
    for (i, e) in trace.events.iter().enumerate().skip(late) {
        if lose(i) {
            *lost.entry(e.cpu).or_default() += 1;
            continue;
        }
        if let Some(n) = lost.remove(&e.cpu) {
            events.push(&record(e, n));
        }
        events.push(&e);
    }
    if let Some(last) = trace.events.iter().last() {
        for (cpu, n) in lost {
            events.push(&record(Event { cpu, ..last }, n));
        }
    }
    let mut info = trace.info.clone();
    info.events = events.len() as u64;
    Trace { info, strings: trace.strings.clone(), events }
}

fn exact(era: Era, ops: &[Op], binary: bool) -> Result<(), TestCaseError> {
    let mut k = Kernel::new(era, binary);
    // Without addresses fast faults do not tell which address space they were in.
    k.smm &= binary || !k.traces.fast_faults;
    k.run(ops);
    let t = k.replay(&k.trace);
    for (ts, held) in &k.snaps {
        let shown = k.shown(&t, *ts);
        prop_assert_eq!(&shown, held, "at {}: {:x?} and {:x?}", ts, shown, held);
    }
    prop_assert_eq!(k.false_facts(&t), Vec::<String>::new());
    // The state at a moment is what replaying until then gives.
    let n = k.trace.events.len();
    if n > 8 {
        let part = without(&k.trace, 0, |_| false);
        let mut events = EventStore::new();
        part.events.range(0..n / 2).for_each(|e| events.push(&e));
        let at = events.ts(events.len() - 1);
        let half = k.replay(&Trace { events, ..part });
        let state = |t: &Timeline| {
            let mut v: Vec<(VmId, u8, u8, u64, Option<u64>, State)> = t
                .state_at(at, &StateFilter::default())
                .into_iter()
                // What was there before its first event, only that event shows it.
                .filter(|(_, s)| s.reason != Reason::OldValue)
                .map(|(e, s)| (e.vm, e.as_id, e.level, e.gfn, s.spte, s.state))
                .filter(|x| matches!(x.5, State::Present | State::Mmio | State::Table))
                .collect();
            v.sort_unstable_by_key(|x| (x.0, x.1, x.2, x.3, x.4));
            v
        };
        prop_assert_eq!(state(&t), state(&half));
    }
    Ok(())
}

fn honest(era: Era, ops: &[Op], seed: u64) -> Result<(), TestCaseError> {
    let mut k = Kernel::new(era, seed & 1 << 40 != 0);
    k.run(ops);
    let n = k.trace.events.len();
    let mix = |i: usize| {
        let mut x = (i as u64 ^ seed.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^= x >> 29;
        x.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
    };
    let at = seed as usize % n.max(1);
    let cpus: Vec<u16> = k.trace.events.iter().map(|e| e.cpu).collect();
    let cut = match seed % 5 {
        0 => without(&k.trace, 0, |_| false),
        1 => without(&k.trace, 0, |i| mix(i) % 16 == 0),
        2 => without(&k.trace, 0, |i| i >= at && i < at + n / 6),
        3 => without(&k.trace, 0, |i| i >= at && i < at + n / 3 && u64::from(cpus[i]) == seed / 5 % 3),
        _ => without(&k.trace, at, |_| false),
    };
    prop_assert_eq!(k.false_facts(&k.replay(&cut)), Vec::<String>::new());
    Ok(())
}

/// The same each time and done in seconds; `PROPTEST_CASES` asks for more, and then for others each time, unless `PROPTEST_RNG_SEED` says.
fn config() -> ProptestConfig {
    let given = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return given;
    }
    ProptestConfig { cases: 64, rng_seed: RngSeed::Fixed(20_611), ..given }
}

macro_rules! models {
    ($($exact:ident $honest:ident $era:expr;)*) => {
        proptest! {
            #![proptest_config(config())]
            $(
                #[test]
                fn $exact(ops in ops(), binary in any::<bool>()) { exact($era, &ops, binary)?; }
                #[test]
                fn $honest(ops in ops(), seed in any::<u64>()) { honest($era, &ops, seed)?; }
            )*
        }
    };
}

models! {
    exact_5_11 honest_5_11 E5_11;
    exact_5_12 honest_5_12 E5_12;
    exact_6_1 honest_6_1 E6_1;
    exact_6_1_noad honest_6_1_noad E6_1_NOAD;
    exact_6_6 honest_6_6 E6_6;
    exact_6_12 honest_6_12 E6_12;
    exact_6_12_noad honest_6_12_noad E6_12_NOAD;
    exact_6_18 honest_6_18 E6_18;
    exact_7_2 honest_7_2 E7_2;
    exact_7_9 honest_7_9 E7_9;
    exact_tdx honest_tdx TDX;
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn honest_5_10(ops in ops(), seed in any::<u64>()) { honest(E5_10, &ops, seed)?; }
    #[test]
    fn honest_legacy(ops in ops(), seed in any::<u64>()) { honest(LEGACY, &ops, seed)?; }
    #[test]
    fn honest_legacy_5_10(ops in ops(), seed in any::<u64>()) { honest(LEGACY_5_10, &ops, seed)?; }
}

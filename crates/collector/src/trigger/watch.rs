//! Evaluates a trigger while recording. The main type is [`Watcher`]; the flight recorder shows it every event of the trigger.

use std::collections::HashMap;

use super::{Condition, Exit, Per, Rate, Trigger, describe};
use crate::rates::Rates;
use crate::tracefs::{Tracefs, Tracepoint};

/// A tracepoint that is watched for the trigger, with its filter.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub tracepoint: Tracepoint,
    pub filter: String,
}

/// The place of a field in a raw record.
#[derive(Clone, Copy, Debug)]
struct Field {
    at: usize,
    len: usize,
}

impl Field {
    fn of(tp: &Tracepoint, name: &str) -> Option<Self> {
        tp.field(name).map(|(at, len)| Self { at, len })
    }

    fn get(self, raw: &[u8]) -> Option<u64> {
        let b = raw.get(self.at..self.at + self.len)?;
        let mut w = [0u8; 8];
        w.get_mut(..b.len())?.copy_from_slice(b);
        Some(u64::from_le_bytes(w))
    }
}

enum Rule {
    Exit { reason: Field, errno: Option<Field>, want: Exit },
    Faults { per: Per, address: Field, rates: Rates },
    FaultStart { slot: usize },
    FaultEnd { slot: usize },
    Any { rates: Option<Rates> },
}

/// The faults that a fault-time condition is timing: its limit in nanoseconds, and the start of each thread's fault.
struct Open {
    longer: u64,
    since: HashMap<u32, u64>,
}

/// Evaluates a trigger over the records of the watched events.
pub(crate) struct Watcher {
    /// The rules for each event type, each with the number of its condition.
    rules: HashMap<u16, Vec<(usize, Rule)>>,
    open: Vec<Open>,
    texts: Vec<String>,
}

/// One occurrence of a watched event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit<'a> {
    pub pid: u32,
    pub tid: u32,
    pub time: u64,
    pub raw: &'a [u8],
}

impl Watcher {
    /// Makes the watcher, and returns what must be watched for this trigger on this kernel.
    pub(crate) fn new(trigger: &Trigger, fs: &Tracefs) -> Result<(Self, Vec<Watched>), String> {
        let mut w = Self { rules: HashMap::new(), open: Vec::new(), texts: Vec::new() };
        let mut watched: Vec<Watched> = Vec::new();
        let find = |names: &[&str]| -> Result<Tracepoint, String> {
            for n in names {
                let (system, name) = n.split_once(':').map_or((None, *n), |(s, n)| (Some(s), n));
                for s in system.map_or(vec!["kvmmmu", "kvm"], |s| vec![s]) {
                    if let Ok(tp) = fs.tracepoint(s, name) {
                        return Ok(tp);
                    }
                }
            }
            Err(format!(
                "trigger {trigger:?}: this kernel has no event {}",
                names.join(" or "),
                trigger = trigger.text
            ))
        };
        let need = |tp: &Tracepoint, field: &str| {
            Field::of(tp, field)
                .ok_or_else(|| format!("{} has no field {field} on this kernel", tp.full_name()))
        };
        for (i, c) in trigger.any.iter().enumerate() {
            w.texts.push(describe(c));
            let mut add = |tp: Tracepoint, filter: String, rule: Rule| {
                w.rules.entry(tp.id as u16).or_default().push((i, rule));
                match watched.iter_mut().find(|x| x.tracepoint.id == tp.id) {
                    // Two conditions watch one event, so its filter must let through what either of them needs.
                    Some(x) if x.filter.is_empty() || filter.is_empty() => x.filter = String::new(),
                    Some(x) if x.filter != filter => x.filter = format!("({})||({filter})", x.filter),
                    Some(_) => {}
                    None => watched.push(Watched { tracepoint: tp, filter }),
                }
            };
            match c {
                Condition::ReservedBits | Condition::Exit(_) => {
                    let want = match c {
                        Condition::Exit(e) => e.clone(),
                        _ => Exit::Error(Some(22)),
                    };
                    let tp = find(&["kvm:kvm_userspace_exit"])?;
                    let (reason, errno) = (need(&tp, "reason")?, Field::of(&tp, "errno"));
                    add(tp, String::new(), Rule::Exit { reason, errno, want });
                }
                Condition::Faults(per, rate) => {
                    let tp = find(&["kvm:kvm_page_fault"])?;
                    let address = need(&tp, "fault_address")?;
                    add(tp, String::new(), Rule::Faults { per: *per, address, rates: rates(*rate) });
                }
                Condition::FaultTime(longer) => {
                    let slot = w.open.len();
                    w.open.push(Open { longer: longer.as_nanos() as u64, since: HashMap::new() });
                    add(find(&["kvm:kvm_page_fault"])?, String::new(), Rule::FaultStart { slot });
                    add(find(&["kvm:kvm_entry"])?, String::new(), Rule::FaultEnd { slot });
                }
                Condition::ZapAll(rate) => {
                    let tp =
                        find(&["kvmmmu:kvm_mmu_zap_all_fast", "kvmmmu:kvm_mmu_invalidate_zap_all_pages"])?;
                    add(tp, String::new(), Rule::Any { rates: rate.map(rates) });
                }
                Condition::Event { name, filter, rate } => {
                    let others = trigger
                        .any
                        .iter()
                        .filter(|o| matches!(o, Condition::Event { name: n, .. } if n == name));
                    if others.count() > 1 && filter.is_some() {
                        return Err(format!(
                            "trigger {:?}: one condition on {name}, please: {name} {{ (a) || (b) }}",
                            trigger.text
                        ));
                    }
                    let tp = find(&[name])?;
                    add(tp, filter.clone().unwrap_or_default(), Rule::Any { rates: rate.map(rates) });
                }
            }
        }
        Ok((w, watched))
    }

    /// Looks at one event, and returns the condition that it fulfils, in words.
    pub(crate) fn see(&mut self, hit: Hit<'_>) -> Option<&str> {
        let ty = u16::from_ne_bytes([*hit.raw.first()?, *hit.raw.get(1)?]);
        let open = &mut self.open;
        for (i, rule) in self.rules.get_mut(&ty)? {
            let fulfilled = match rule {
                Rule::Exit { reason, errno, want } => {
                    let e = errno.and_then(|e| e.get(hit.raw)).unwrap_or_default() as u32 as i32;
                    match want {
                        Exit::Reason(r) => e >= 0 && reason.get(hit.raw) == Some(u64::from(*r)),
                        Exit::Error(Some(n)) => e == -*n,
                        Exit::Error(None) => e < 0 && e != -4 && e != -11,
                    }
                }
                Rule::Faults { per, address, rates } => {
                    let key = match per {
                        Per::All => 0,
                        Per::Gfn => {
                            let gfn = address.get(hit.raw).unwrap_or_default() >> 12;
                            gfn ^ u64::from(hit.pid) << 40
                        }
                        Per::Vcpu => u64::from(hit.tid),
                        Per::Vm => u64::from(hit.pid),
                    };
                    rates.hit(key, hit.time)
                }
                Rule::FaultStart { slot } => {
                    open[*slot].since.insert(hit.tid, hit.time);
                    false
                }
                Rule::FaultEnd { slot } => {
                    let o = &mut open[*slot];
                    o.since.remove(&hit.tid).is_some_and(|t| hit.time.saturating_sub(t) > o.longer)
                }
                Rule::Any { rates: None } => true,
                Rule::Any { rates: Some(r) } => r.hit(0, hit.time),
            };
            if fulfilled {
                return self.texts.get(*i).map(String::as_str);
            }
        }
        None
    }
}

fn rates(r: Rate) -> Rates {
    Rates::new(r.more_than, r.within.as_nanos() as u64)
}

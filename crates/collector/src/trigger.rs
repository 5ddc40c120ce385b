//! When the flight recorder saves: a small language over events.
//!
//! ```text
//! trigger   := condition { ("or" | "||" | ",") condition }
//! condition := "reserved-bits"
//!            | "exit" "==" NAME                        internal_error, shutdown, memory_fault, fail_entry, error, efault, 17 …
//!            | "faults" [ "(" "gfn" | "vcpu" | "vm" ")" ] ">" N "/" TIME
//!            | "fault-time" ">" TIME
//!            | "zap-all" [ ">" N "/" TIME ]
//!            | "event" NAME [ "{" FILTER "}" ] [ ">" N "/" TIME ]
//! ```

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::options::parse_duration;
use crate::rates::Rates;
use crate::tracefs::{Tracefs, Tracepoint};

/// Conditions, any of which triggers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// They.
    pub any: Vec<Condition>,
    /// As given.
    pub text: String,
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How often is too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// More events than this …
    pub more_than: u32,
    /// … within this time.
    pub within: Duration,
}

/// What faults are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// All together.
    All,
    /// Each guest frame of each VM.
    Gfn,
    /// Each vCPU thread.
    Vcpu,
    /// Each VMM process.
    Vm,
}

/// How KVM_RUN returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this `KVM_EXIT_*`.
    Reason(u32),
    /// With this errno; `None`: any but EINTR and EAGAIN.
    Error(Option<i32>),
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// KVM met an SPTE with reserved bits set: KVM_RUN fails with EINVAL right after a fault.
    ReservedBits,
    /// KVM_RUN returned so.
    Exit(Exit),
    /// Too many guest page faults.
    Faults(Per, Rate),
    /// One fault took longer than this, from `kvm_page_fault` to `kvm_entry`.
    FaultTime(Duration),
    /// All page tables thrown away at once.
    ZapAll(Option<Rate>),
    /// Any event, with an in-kernel filter.
    Event {
        /// Its name, with or without the system.
        name: String,
        /// Expression over its fields.
        filter: Option<String>,
        /// How often.
        rate: Option<Rate>,
    },
}

/// Names of `KVM_EXIT_*` (include/uapi/linux/kvm.h).
const EXITS: &[(&str, u32)] = &[
    ("unknown", 0),
    ("exception", 1),
    ("io", 2),
    ("hypercall", 3),
    ("debug", 4),
    ("hlt", 5),
    ("mmio", 6),
    ("irq_window_open", 7),
    ("shutdown", 8),
    ("fail_entry", 9),
    ("intr", 10),
    ("set_tpr", 11),
    ("tpr_access", 12),
    ("nmi", 16),
    ("internal_error", 17),
    ("system_event", 24),
    ("ioapic_eoi", 26),
    ("x86_rdmsr", 29),
    ("x86_wrmsr", 30),
    ("dirty_ring_full", 31),
    ("x86_bus_lock", 33),
    ("notify", 37),
    ("memory_fault", 39),
];

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let hit = self.rest().starts_with(token);
        if hit {
            self.at += token.len();
        }
        hit
    }

    fn word(&mut self) -> &'a str {
        self.space();
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '.' | '*')))
            .unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn fail<T>(&self, wanted: &str) -> Result<T, String> {
        let rest = self.rest().trim();
        let here = if rest.is_empty() { "the end".to_owned() } else { format!("{rest:?}") };
        Err(format!("trigger {:?}: expected {wanted} at {here}", self.text))
    }

    fn time(&mut self) -> Result<Duration, String> {
        let w = self.word();
        parse_duration(w).map_err(|e| format!("trigger {:?}: {e}", self.text))
    }

    fn rate(&mut self) -> Result<Rate, String> {
        let n = self.word();
        let Ok(more_than) = n.parse() else {
            self.at -= n.len();
            return self.fail("a number of events (as in 100/10ms)");
        };
        if !self.eat("/") {
            return self.fail("\"/\" and a time (as in 100/10ms)");
        }
        // "/s" means "/1s".
        self.space();
        let within = if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            self.time()?
        } else {
            let unit = self.word();
            parse_duration(&format!("1{unit}")).map_err(|e| format!("trigger {:?}: {e}", self.text))?
        };
        Ok(Rate { more_than, within })
    }

    fn maybe_rate(&mut self) -> Result<Option<Rate>, String> {
        if self.eat(">") { self.rate().map(Some) } else { Ok(None) }
    }

    fn condition(&mut self) -> Result<Condition, String> {
        let start = self.at;
        match self.word() {
            "reserved-bits" => Ok(Condition::ReservedBits),
            "exit" => {
                if !self.eat("==") && !self.eat("=") {
                    return self.fail("\"==\"");
                }
                let name = self.word().to_ascii_lowercase();
                let name = name.strip_prefix("kvm_exit_").unwrap_or(&name);
                let exit = match name {
                    "error" => Exit::Error(None),
                    "efault" => Exit::Error(Some(14)),
                    "einval" => Exit::Error(Some(22)),
                    "enomem" => Exit::Error(Some(12)),
                    _ => {
                        let number =
                            EXITS.iter().find(|e| e.0 == name).map(|e| e.1).or_else(|| name.parse().ok());
                        let Some(number) = number else {
                            self.at -= name.len();
                            return self.fail(
                                "how KVM_RUN returns: internal_error, shutdown, memory_fault, fail_entry, error, efault, einval or a number",
                            );
                        };
                        Exit::Reason(number)
                    }
                };
                Ok(Condition::Exit(exit))
            }
            "faults" => {
                let per = if self.eat("(") {
                    let per = match self.word() {
                        "gfn" => Per::Gfn,
                        "vcpu" => Per::Vcpu,
                        "vm" => Per::Vm,
                        w => {
                            self.at -= w.len();
                            return self.fail("gfn, vcpu or vm");
                        }
                    };
                    if !self.eat(")") {
                        return self.fail("\")\"");
                    }
                    per
                } else {
                    Per::All
                };
                if !self.eat(">") {
                    return self.fail("\">\" and a rate (as in > 100/10ms)");
                }
                Ok(Condition::Faults(per, self.rate()?))
            }
            "fault-time" => {
                if !self.eat(">") {
                    return self.fail("\">\" and a time");
                }
                Ok(Condition::FaultTime(self.time()?))
            }
            "zap-all" => Ok(Condition::ZapAll(self.maybe_rate()?)),
            "event" => {
                let name = self.word().to_owned();
                if name.is_empty() {
                    return self.fail("an event's name");
                }
                let filter = if self.eat("{") {
                    let Some(end) = self.rest().find('}') else { return self.fail("\"}\"") };
                    let f = self.rest()[..end].trim().to_owned();
                    self.at += end + 1;
                    Some(f)
                } else {
                    None
                };
                Ok(Condition::Event { name, filter, rate: self.maybe_rate()? })
            }
            _ => {
                self.at = start;
                self.space();
                self.fail("reserved-bits, exit, faults, fault-time, zap-all or event")
            }
        }
    }
}

impl std::str::FromStr for Trigger {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut p = Parser { text, at: 0 };
        let mut any = vec![p.condition()?];
        loop {
            p.space();
            if p.rest().is_empty() {
                return Ok(Self { any, text: text.trim().to_owned() });
            }
            if !p.eat("or") && !p.eat("||") && !p.eat(",") {
                return p.fail("\"or\" or the end");
            }
            any.push(p.condition()?);
        }
    }
}

/// A tracepoint that is watched for the trigger, and the filter it may have.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub tracepoint: Tracepoint,
    pub filter: String,
}

/// Field of a raw record.
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

/// A fault-time condition's memory.
struct Open {
    longer: u64,
    since: HashMap<u32, u64>,
}

/// Evaluates a trigger over the records of the watched events.
pub(crate) struct Watcher {
    /// By event type: which rules, each with its condition's number.
    rules: HashMap<u16, Vec<(usize, Rule)>>,
    open: Vec<Open>,
    texts: Vec<String>,
}

/// One watched event that has happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit<'a> {
    pub pid: u32,
    pub tid: u32,
    pub time: u64,
    pub raw: &'a [u8],
}

impl Watcher {
    /// What must be watched for this trigger on this kernel.
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
                    // Two conditions on one event: what both let through must pass.
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

    /// Looks at one event; the condition that it fulfils, in words.
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

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe(self))
    }
}

fn describe(c: &Condition) -> String {
    let rate = |r: &Rate| format!(" > {}/{:?}", r.more_than, r.within);
    match c {
        Condition::ReservedBits => "reserved-bits".into(),
        Condition::Exit(Exit::Reason(r)) => {
            let name = EXITS.iter().find(|e| e.1 == *r).map_or_else(|| r.to_string(), |e| e.0.to_owned());
            format!("exit == {name}")
        }
        Condition::Exit(Exit::Error(None)) => "exit == error".into(),
        Condition::Exit(Exit::Error(Some(n))) => format!("exit == error {n}"),
        Condition::Faults(per, r) => {
            let per = match per {
                Per::All => "",
                Per::Gfn => "(gfn)",
                Per::Vcpu => "(vcpu)",
                Per::Vm => "(vm)",
            };
            format!("faults{per}{}", rate(r))
        }
        Condition::FaultTime(t) => format!("fault-time > {t:?}"),
        Condition::ZapAll(r) => format!("zap-all{}", r.as_ref().map(rate).unwrap_or_default()),
        Condition::Event { name, filter, rate: r } => format!(
            "event {name}{}{}",
            filter.as_ref().map(|f| format!(" {{{f}}}")).unwrap_or_default(),
            r.as_ref().map(rate).unwrap_or_default()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(s: &str) -> Trigger {
        s.parse().unwrap()
    }

    #[test]
    fn the_language() {
        let t = parse("reserved-bits or faults(gfn) > 100/10ms or exit == internal_error");
        assert_eq!(
            t.any,
            [
                Condition::ReservedBits,
                Condition::Faults(Per::Gfn, Rate { more_than: 100, within: Duration::from_millis(10) }),
                Condition::Exit(Exit::Reason(17)),
            ]
        );
        assert_eq!(parse("exit==KVM_EXIT_MEMORY_FAULT").any, [Condition::Exit(Exit::Reason(39))]);
        assert_eq!(parse("exit == efault").any, [Condition::Exit(Exit::Error(Some(14)))]);
        assert_eq!(parse("fault-time > 5ms").any, [Condition::FaultTime(Duration::from_millis(5))]);
        assert_eq!(
            parse("zap-all > 3/s").any,
            [Condition::ZapAll(Some(Rate { more_than: 3, within: Duration::from_secs(1) }))]
        );
        assert_eq!(
            parse("event kvmmmu:kvm_mmu_split_huge_page { errno != 0 } > 2 / 1s, zap-all").any,
            [
                Condition::Event {
                    name: "kvmmmu:kvm_mmu_split_huge_page".into(),
                    filter: Some("errno != 0".into()),
                    rate: Some(Rate { more_than: 2, within: Duration::from_secs(1) }),
                },
                Condition::ZapAll(None),
            ]
        );
    }

    #[test]
    fn errors_say_where_and_what() {
        for (text, wanted) in [
            ("", "expected reserved-bits"),
            ("faults > ", "a number of events"),
            ("faults > 3", "\"/\" and a time"),
            ("faults(page) > 3/s", "gfn, vcpu or vm"),
            ("faults > 3/parsec", "is no time"),
            ("exit == sideways", "how KVM_RUN returns"),
            ("exit", "\"==\""),
            ("zap-all zap-all", "\"or\" or the end"),
            ("event x {a", "\"}\""),
            ("fault-time", "\">\""),
        ] {
            let e = text.parse::<Trigger>().unwrap_err();
            assert!(e.contains(wanted), "{text:?}: {e}");
        }
    }

    /// A tracefs with the events the triggers watch, as 6.18 describes them.
    fn fs() -> (tempfile::TempDir, Tracefs) {
        let d = tempfile::tempdir().unwrap();
        for (system, name, id, fields) in [
            (
                "kvm",
                "kvm_userspace_exit",
                10,
                "\tfield:__u32 reason;\toffset:8;\tsize:4;\tsigned:0;\n\tfield:int errno;\toffset:12;\tsize:4;\tsigned:1;\n",
            ),
            (
                "kvm",
                "kvm_page_fault",
                11,
                "\tfield:unsigned int vcpu_id;\toffset:8;\tsize:4;\tsigned:0;\n\tfield:u64 fault_address;\toffset:24;\tsize:8;\tsigned:0;\n",
            ),
            ("kvm", "kvm_entry", 12, "\tfield:unsigned int vcpu_id;\toffset:8;\tsize:4;\tsigned:0;\n"),
            ("kvmmmu", "kvm_mmu_zap_all_fast", 13, ""),
        ] {
            let dir = d.path().join("events").join(system).join(name);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("id"), format!("{id}\n")).unwrap();
            std::fs::write(dir.join("format"), fields).unwrap();
        }
        let t = Tracefs::at(d.path());
        (d, t)
    }

    fn raw(id: u16, words: &[(usize, u64)]) -> Vec<u8> {
        let mut r = vec![0u8; 40];
        r[..2].copy_from_slice(&id.to_ne_bytes());
        for &(at, v) in words {
            r[at..at + 8].copy_from_slice(&v.to_le_bytes());
        }
        r
    }

    #[test]
    fn conditions_on_real_records() {
        let (_d, t) = fs();
        let trigger =
            parse("exit == internal_error or faults(gfn) > 2/1ms or fault-time > 5ms or reserved-bits");
        let (mut w, watched) = Watcher::new(&trigger, &t).unwrap();
        let mut names: Vec<_> = watched.iter().map(|w| w.tracepoint.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["kvm_entry", "kvm_page_fault", "kvm_userspace_exit"]);
        let mut see =
            |tid: u32, time: u64, raw: &[u8]| w.see(Hit { pid: 1, tid, time, raw }).map(str::to_owned);
        // KVM_EXIT_IO, EINTR: normal life
        assert_eq!(see(1, 0, &raw(10, &[(8, 2)])), None);
        assert_eq!(see(1, 0, &raw(10, &[(8, (u64::from((-4i32) as u32) << 32) + 10)])), None);
        assert_eq!(see(1, 0, &raw(10, &[(8, 17)])).as_deref(), Some("exit == internal_error"));
        assert_eq!(
            see(1, 0, &raw(10, &[(8, u64::from((-22i32) as u32) << 32)])).as_deref(),
            Some("reserved-bits")
        );
        // the same frame three times within 1 ms, by different vCPUs
        let fault = |gfn: u64| raw(11, &[(24, gfn << 12 | 0x123)]);
        assert_eq!(see(1, 0, &fault(5)), None);
        assert_eq!(see(2, 100, &fault(6)), None);
        assert_eq!(see(2, 400_000, &fault(5)), None);
        assert_eq!(see(1, 900_000, &fault(5)).as_deref(), Some("faults(gfn) > 2/1ms"));
        // a slow fault
        assert_eq!(see(3, 1_000_000, &fault(9)), None);
        assert_eq!(see(3, 7_000_000, &raw(12, &[])).as_deref(), Some("fault-time > 5ms"));
        assert_eq!(see(3, 9_000_000, &raw(12, &[])), None, "only the first entry after the fault ends it");
        assert_eq!(see(3, 0, &[]), None);
    }

    #[test]
    fn an_event_the_kernel_does_not_have() {
        let (_d, t) = fs();
        let e = Watcher::new(&parse("event kvm_nothing"), &t).err().unwrap();
        assert!(e.contains("kvm_nothing"), "{e}");
        let e = Watcher::new(&parse("event kvm_entry {vcpu_id==1} or event kvm_entry {vcpu_id==2}"), &t)
            .err()
            .unwrap();
        assert!(e.contains("one condition"), "{e}");
    }
}

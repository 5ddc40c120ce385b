//! Event sequences in a few readable lines, for tests of this crate and of those built on it.
//!
//! One event a line: time in microseconds (or `+n` after the line before), thread, verb, arguments; `#` begins a comment.
//!
//! ```text
//! layout C/npt                     # values below are made under this layout
//! 100 t1 root                      # kvm_mmu_get_page of a root
//! +1  t1 tdp 4 0 empty T10         # kvm_tdp_mmu_spte_changed: level, gfn, old, new
//! +1  t1 set 1 2 W77 at 12010      # kvm_mmu_set_spte: level, gfn, value, physical address
//! ```
//!
//! Values: `empty`, `frozen`, `T10` (link to the table at page 0x10), `W77` (writable leaf of host frame 0x77), `R77` (write-protected),
//! `O77` (read-only memory), `N77` (writable, not executable), `M5` (MMIO entry with generation 5 of the line's frame), or plain hex. A
//! trailing `/2` says the level a leaf's value is for.
//!
//! Verbs: `root [smm]`, `page LEVEL GFN`, `zappage LEVEL GFN`, `tdp LEVEL GFN OLD NEW [as N]`, `set LEVEL GFN VALUE at ADDRESS`,
//! `mmio GFN GENERATION`, `fast GFN OLD NEW fixed|spurious|invalid`, `split LEVEL GFN VALUE`, `want LEVEL GFN PFN`, `fault GFN r|w|x`,
//! `exit`, `entry VCPU`, `user REASON ERRNO`, `zapall`, `unmap START END`, `lost COUNT`, `mark TEXT`.

use mmuscope_spte::{AdType, Format, Layout, LayoutSpec, Leaf};
use mmuscope_trace::{
    Body, ErrorEncoding, Event, FastPfResult, Isa, Page, Role, StrId, TaskInfo, Trace, VmGuess,
};

/// A line that is not of the language.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct FixtureError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

struct Maker {
    layout: Layout,
    trace: Trace,
    ts: u64,
}

/// Makes a trace out of lines of the fixture language. All threads are of one VM, unless `vm PID TID …` lines say otherwise.
pub fn trace(text: &str) -> Result<Trace, FixtureError> {
    let named = |name: &str| {
        LayoutSpec::named(name).and_then(|s| s.resolve()).map(|r| r.layout).map_err(|e| e.to_string())
    };
    let at = |line: usize| move |what: String| FixtureError { line, what };
    let mut m = Maker { layout: named("C/npt").map_err(at(0))?, trace: Trace::default(), ts: 0 };
    for (i, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["layout", name] => m.layout = named(name).map_err(at(i + 1))?,
            ["kernel", release] => m.trace.info.host.os_release = Some((*release).to_owned()),
            ["vm", pid, tids @ ..] => m.vm(pid, tids).map_err(at(i + 1))?,
            [time, thread, verb, args @ ..] => m.event(time, thread, verb, args).map_err(at(i + 1))?,
            _ => return Err(FixtureError { line: i + 1, what: "time, thread and verb expected".to_owned() }),
        }
    }
    let n = m.trace.events.len();
    m.trace.info.events = n as u64;
    m.trace.info.first_ts = m.trace.events.iter().next().map_or(0, |e| e.ts);
    m.trace.info.last_ts = m.ts;
    Ok(m.trace)
}

fn hex(s: &str) -> Result<u64, String> {
    u64::from_str_radix(s.trim_start_matches("0x"), 16).map_err(|_| format!("`{s}` is not hex"))
}

fn dec<T: std::str::FromStr>(s: &str) -> Result<T, String> {
    s.parse().map_err(|_| format!("`{s}` is not a number"))
}

impl Maker {
    fn vm(&mut self, pid: &str, tids: &[&str]) -> Result<(), String> {
        let pid = dec(pid)?;
        let tids = tids.iter().map(|t| dec(t.trim_start_matches('t'))).collect::<Result<Vec<u32>, _>>()?;
        for t in &tids {
            self.trace.info.tasks.push(TaskInfo { tid: *t, pid: Some(pid), ..TaskInfo::default() });
        }
        self.trace.info.vms.push(VmGuess {
            pid: Some(pid),
            tids,
            provenance: "fixture".to_owned(),
            ..VmGuess::default()
        });
        Ok(())
    }

    fn value(&self, word: &str, level: u8, gfn: u64) -> Result<u64, String> {
        let (word, level) = match word.split_once('/') {
            Some((w, l)) => (w, dec(l)?),
            None => (word, level),
        };
        let l = &self.layout;
        let leaf = |pfn: u64, w: bool, host: bool, mmu: bool, x: bool| {
            l.leaf(&Leaf {
                pfn,
                r: true,
                w,
                x,
                xu: x,
                u: true,
                accessed: true,
                dirty: w,
                host_writable: host,
                mmu_writable: mmu,
                large: level > 1,
                ad_type: AdType::Enabled,
                memtype: if l.format == Format::Ept { 6 } else { 0 },
                ignore_pat: l.format == Format::Ept,
                suppress_ve: true,
                encrypted: false,
            })
        };
        Ok(match (word, word.split_at_checked(1)) {
            ("empty", _) => l.zapped,
            ("frozen", _) => l.removed.ok_or("this layout has no removed entries")?,
            (_, Some(("T", n))) => l.table(hex(n)?, AdType::Enabled),
            (_, Some(("W", n))) => leaf(hex(n)?, true, true, true, true),
            (_, Some(("R", n))) => leaf(hex(n)?, false, true, true, true),
            (_, Some(("O", n))) => leaf(hex(n)?, false, false, false, true),
            (_, Some(("N", n))) => leaf(hex(n)?, true, true, true, false),
            (_, Some(("M", n))) => l.mmio(gfn, 6, hex(n)? as u32),
            _ => hex(word)?,
        })
    }

    fn page(level: u8, gfn: u64, smm: bool) -> Page {
        let role = Role {
            level,
            gpte_bytes: Some(8),
            direct: true,
            r: true,
            w: true,
            u: true,
            x: true,
            smm: smm.then_some(true),
            ..Role::default()
        };
        Page { gfn: Some(gfn), role, ..Page::default() }
    }

    fn event(&mut self, time: &str, thread: &str, verb: &str, args: &[&str]) -> Result<(), String> {
        self.ts = match time.strip_prefix('+') {
            Some(d) => self.ts + dec::<u64>(d)? * 1000,
            None => dec::<u64>(time)? * 1000,
        };
        let tid: u32 = dec(thread.trim_start_matches('t'))?;
        let arg = |i: usize| args.get(i).copied().ok_or_else(|| format!("`{verb}` needs more arguments"));
        let after = |word: &str| args.iter().position(|a| *a == word).and_then(|i| args.get(i + 1)).copied();
        let as_id = after("as").map_or(Ok(0), dec)?;
        let body = match verb {
            "root" => Body::GetPage { page: Self::page(4, 0, args.contains(&"smm")), created: true },
            "page" => Body::GetPage { page: Self::page(dec(arg(0)?)?, hex(arg(1)?)?, false), created: true },
            "zappage" => Body::PrepareZapPage { page: Self::page(dec(arg(0)?)?, hex(arg(1)?)?, false) },
            "tdp" => {
                let (level, gfn) = (dec(arg(0)?)?, hex(arg(1)?)?);
                Body::TdpSpteChanged {
                    as_id,
                    gfn,
                    level,
                    old_spte: self.value(arg(2)?, level, gfn)?,
                    new_spte: self.value(arg(3)?, level, gfn)?,
                }
            }
            "set" => {
                let (level, gfn) = (dec(arg(0)?)?, hex(arg(1)?)?);
                let spte = self.value(arg(2)?, level, gfn)?;
                let sptep = hex(after("at").ok_or("`set` needs `at ADDRESS`")?)?;
                Body::SetSpte { gfn, spte, sptep, level, r: true, w: spte & 2 != 0, x: true, u: Some(true) }
            }
            "mmio" => Body::MarkMmioSpte {
                sptep: None,
                gfn: hex(arg(0)?)?,
                access: 7,
                generation: hex(arg(1)?)? as u32,
            },
            "fast" => {
                let gfn = hex(arg(0)?)?;
                Body::FastPageFault {
                    vcpu: 0,
                    cr2_or_gpa: gfn << 12,
                    error_code: 7,
                    sptep: None,
                    old_spte: self.value(arg(1)?, 1, gfn)?,
                    new_spte: self.value(arg(2)?, 1, gfn)?,
                    result: match arg(3)? {
                        "fixed" => FastPfResult::Fixed,
                        "spurious" => FastPfResult::Spurious,
                        _ => FastPfResult::Invalid,
                    },
                }
            }
            "split" => {
                let (level, gfn) = (dec(arg(0)?)?, hex(arg(1)?)?);
                Body::SplitHugePage { gfn, spte: self.value(arg(2)?, level, gfn)?, level, errno: 0 }
            }
            "want" => Body::SpteRequested {
                level: dec(arg(0)?)?,
                gfn: hex(arg(1)?)?,
                pfn: hex(arg(2)?)?,
                access: None,
            },
            "fault" => {
                let code = match arg(1)? {
                    "w" => 6,
                    "x" => 0x14,
                    _ => 4,
                };
                let encoding = ErrorEncoding::NestedPageFault;
                Body::PageFault {
                    vcpu: None,
                    rip: Some(0x1000),
                    address: hex(arg(0)?)? << 12,
                    error_code: 1 << 32 | code,
                    encoding,
                }
            }
            "exit" => Body::Exit {
                vcpu: None,
                reason: Some(0x400),
                reason_name: StrId::default(),
                isa: Some(Isa::Svm),
                rip: 0x1000,
                info1: None,
                info2: None,
                intr_info: None,
                error_code: None,
                requests: None,
            },
            "entry" => Body::Entry {
                vcpu: dec(arg(0)?)?,
                rip: None,
                immediate_exit: None,
                intr_info: None,
                error_code: None,
            },
            "user" => Body::UserspaceExit { reason: dec(arg(0)?)?, errno: dec(arg(1)?)? },
            "zapall" => Body::ZapAllFast { mmu_valid_gen: 0, mmu_used_pages: 0 },
            "unmap" => Body::UnmapHvaRange { start: hex(arg(0)?)?, end: hex(arg(1)?)? },
            "lost" => Body::Lost { count: Some(dec(arg(0)?)?), event: None },
            "mark" => Body::Marker { text: self.trace.strings.intern(&args.join(" ")) },
            _ => return Err(format!("`{verb}` is not a verb")),
        };
        let comm = self.trace.strings.intern("task");
        self.trace.events.push(&Event {
            ts: self.ts,
            cpu: (tid % 4) as u16,
            tid: Some(tid),
            pid: None,
            comm,
            body,
        });
        Ok(())
    }
}

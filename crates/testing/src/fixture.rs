//! Event sequences in a few readable lines.
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
//! `O77` (read-only memory), `N77` (writable, not executable), `K77` (access-tracked; layouts without A/D bits), `M5` (MMIO entry with
//! generation 5 of the line's frame), or plain hex. After it may come `-a` without Accessed, `-d` without Dirty, `-m` without
//! MMU-writable, `-w` without Writable, and at the end `/2`: the level a leaf's value is for.
//!
//! Beside events: `layout NAME`, `kernel RELEASE`, `vm PID TID…`, `name THREAD NAME`, `fact NAME VALUE` (what a capture says of its host and itself),
//! `recorded unsaid` (a text, which does not say which events were recorded; without it all are that the
//! kernel has).
//!
//! Verbs: `root [smm] [mirror]`, `page LEVEL GFN [smm] [mirror]`, `zappage LEVEL GFN [invalid]`, `shadow LEVEL GFN [existing] [unsync]`,
//! `zapshadow LEVEL GFN`, `sync LEVEL GFN`, `unsync LEVEL GFN` (pages that shadow a guest's table),
//! `tdp LEVEL GFN OLD NEW [as N]`, `set LEVEL GFN VALUE at ADDRESS`, `mmio GFN GENERATION [at VIRTUAL]`, `handle GFN`,
//! `fast GFN OLD NEW fixed|spurious|invalid [at VIRTUAL]`, `split LEVEL GFN VALUE [ERRNO]`, `want LEVEL GFN PFN`, `fault GFN r|w|x`, `gfault GVA r|w|x` (`rp`, `wp`, `xp`: on a present entry; shadow
//! paging), `async GFN`, `walk GVA [PFERR]`, `element LEVEL PTE`, `walkererror [PFERR]`, `emulate`, `exit [REASON]`, `entry VCPU`, `user REASON ERRNO`, `zapall`, `unmap START END`, `changepte HVA`, `age START END`,
//! `agepage GFN HVA`, `lost COUNT`, `mark TEXT`. The name of any tracepoint is a verb, too, with the text that a kernel prints of it:
//! `+1 t1 kvm_pml_full vcpu 0: PML full`.

use mmuscope_spte::{AdType, Format, Layout, LayoutSpec, Leaf, Mode, Resolved, Traces};
use mmuscope_trace::{
    Body, ErrorEncoding, Event, FastPfResult, Isa, Kind, Page, RecordedEvents, Role, StrId, TaskInfo, Trace,
    Tracepoint, VmHint,
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
    traces: Traces,
    trace: Trace,
    ts: u64,
    names: Vec<(u32, String)>,
}

/// Makes a trace out of lines of the fixture language. All threads are of one VM, unless `vm PID TID …` lines say otherwise.
pub fn trace(text: &str) -> Result<Trace, FixtureError> {
    let usual = named("C/npt").map_err(|what| FixtureError { line: 0, what })?;
    trace_of(text, &usual)
}

fn named(name: &str) -> Result<Resolved, String> {
    LayoutSpec::find(name).map_err(|e| e.to_string())
}

/// The same under a layout that no name stands for, until a line `layout NAME` names another.
pub fn trace_of(text: &str, kernel: &Resolved) -> Result<Trace, FixtureError> {
    let at = |line: usize| move |what: String| FixtureError { line, what };
    let mut m = Maker {
        layout: kernel.layout,
        traces: kernel.traces,
        trace: Trace::default(),
        ts: 0,
        names: Vec::new(),
    };
    m.trace.info.recorded = Some(RecordedEvents::default());
    for (i, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["layout", name] => {
                let named = named(name).map_err(at(i + 1))?;
                (m.layout, m.traces) = (named.layout, named.traces);
            }
            ["kernel", release] => m.trace.info.host.os_release = Some((*release).to_owned()),
            ["fact", name, value @ ..] => {
                m.trace.info.host.facts.push(((*name).to_owned(), value.join(" ")));
            }
            ["name", thread, name] => {
                let tid = dec(thread.trim_start_matches('t')).map_err(at(i + 1))?;
                m.names.push((tid, (*name).to_owned()));
            }
            ["recorded", "unsaid"] => m.trace.info.recorded = None,
            ["vm", pid, tids @ ..] => m.vm(pid, tids).map_err(at(i + 1))?,
            [time, thread, verb, args @ ..] => m.event(time, thread, verb, args).map_err(at(i + 1))?,
            _ => return Err(FixtureError { line: i + 1, what: "time, thread and verb expected".to_owned() }),
        }
    }
    if m.trace.info.recorded.is_some() {
        m.trace.info.recorded = Some(events_of(&m.traces));
    }
    let n = m.trace.events.len();
    m.trace.info.events = n as u64;
    m.trace.info.first_ts = m.trace.events.iter().next().map_or(0, |e| e.ts);
    m.trace.info.last_ts = m.ts;
    Ok(m.trace)
}

/// What the recorder of a fixture records: every event there is, save those of notifiers where the kernel does not trace them.
fn events_of(traces: &Traces) -> RecordedEvents {
    let has = |n: &&str| match *n {
        "kvm_unmap_hva_range" => traces.notifiers,
        "kvm_set_spte_hva" => traces.change_pte,
        // Probes are set where a fixture says so: `fact record.events …`.
        n => Tracepoint::find(n).is_none_or(|t| t.system != "probe"),
    };
    RecordedEvents {
        names: Kind::ALL
            .iter()
            .filter(|k| **k != Kind::Other)
            .map(|k| k.name())
            .filter(has)
            .map(str::to_owned)
            .collect(),
        all: true,
    }
}

/// An event by the name of its tracepoint and the text that a kernel prints of it.
fn traced(name: &str, text: &[&str]) -> Result<Body, String> {
    if Tracepoint::find(name).is_none() {
        return Err(format!("`{name}` is neither a verb nor the name of a tracepoint"));
    }
    let line = format!("t-1 [000] ..... 1.000000: {name}: {}\n", text.join(" "));
    let read = Trace::from_text(&line).map_err(|e| e.to_string())?;
    match read.events.iter().next().map(|e| e.body) {
        // The name of an exit reason is a string of the trace that was read.
        Some(Body::Exit { .. } | Body::Marker { .. }) => Err(format!("`{name}` has a verb of its own")),
        Some(body) if body.kind() != Kind::Other => Ok(body),
        _ => Err(format!("`{}` is no text of {name}", text.join(" "))),
    }
}

fn hex(s: &str) -> Result<u64, String> {
    u64::from_str_radix(s.trim_start_matches("0x"), 16).map_err(|_| format!("`{s}` is not hex"))
}

fn dec<T: std::str::FromStr>(s: &str) -> Result<T, String> {
    s.parse().map_err(|_| format!("`{s}` is not a number"))
}

/// The value a word of the language stands for, in an entry of this level and frame.
///
/// # Errors
/// What is wrong with the word, or that the layout has no such value.
pub fn value(l: &Layout, word: &str, level: u8, gfn: u64) -> Result<u64, String> {
    let (word, level) = match word.split_once('/') {
        Some((w, l)) => (w, dec(l)?),
        None => (word, level),
    };
    let mut parts = word.split('-');
    let word = parts.next().unwrap_or(word);
    let mut without = 0;
    for p in parts {
        without |= match p {
            "a" => l.masks.accessed_mask,
            "d" => l.masks.dirty_mask,
            "m" => l.masks.mmu_writable_mask,
            "w" => 2,
            _ => return Err(format!("`-{p}` is none of -a, -d, -m and -w")),
        };
    }
    // Where hardware keeps no Accessed and Dirty bits, entries say so.
    let tracks = l.mode == Mode::EptNoAd;
    let ad_type = if tracks { AdType::Disabled } else { AdType::Enabled };
    let leaf = |pfn: u64, w: bool, writable: bool, x: bool| {
        l.leaf(&Leaf {
            pfn,
            r: true,
            w,
            x,
            xu: x,
            u: true,
            accessed: true,
            dirty: w,
            host_writable: writable,
            mmu_writable: writable,
            large: level > 1,
            ad_type,
            memtype: if l.format == Format::Ept { 6 } else { 0 },
            ignore_pat: l.format == Format::Ept,
            suppress_ve: true,
            encrypted: false,
        })
    };
    let full = match (word, word.split_at_checked(1)) {
        ("empty", _) => l.zapped,
        ("frozen", _) => l.removed.ok_or("this layout has no removed entries")?,
        (_, Some(("T", n))) => l.table(hex(n)?, ad_type),
        (_, Some(("W", n))) => leaf(hex(n)?, true, true, true),
        (_, Some(("R", n))) => leaf(hex(n)?, false, true, true),
        (_, Some(("O", n))) => leaf(hex(n)?, false, false, true),
        (_, Some(("N", n))) => leaf(hex(n)?, true, true, false),
        (_, Some(("K", n))) if tracks => l.track(leaf(hex(n)?, true, true, true)),
        (_, Some(("K", _))) => return Err("this layout has Accessed bits".to_owned()),
        (_, Some(("M", n))) => l.mmio(gfn, 6, hex(n)? as u32),
        _ => hex(word)?,
    };
    Ok(full & !without)
}

/// The page of a table that maps guest-physical addresses, as `kvm_mmu_get_page` and its kin print it.
pub fn direct_page(level: u8, gfn: u64) -> Page {
    let role = Role {
        level,
        gpte_bytes: Some(8),
        direct: true,
        r: true,
        w: true,
        u: true,
        x: true,
        ..Role::default()
    };
    Page { gfn: Some(gfn), role, ..Page::default() }
}

/// The page that shadows a guest's table at `gfn`.
pub fn shadow_page(level: u8, gfn: u64) -> Page {
    let p = direct_page(level, gfn);
    Page { role: Role { direct: false, ..p.role }, ..p }
}

/// `kvm_exit` of a nested page fault.
pub fn exit() -> Body {
    Body::Exit {
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
    }
}

/// `kvm_page_fault` of a nested page fault; `code` holds the low bits of the error code.
pub fn nested_fault(gfn: u64, code: u64) -> Body {
    let encoding = ErrorEncoding::NestedPageFault;
    Body::PageFault {
        vcpu: None,
        rip: Some(0x1000),
        address: gfn << 12,
        error_code: 1 << 32 | code,
        encoding,
    }
}

/// `kvm_mmu_set_spte`.
pub fn set_spte(level: u8, gfn: u64, spte: u64, sptep: u64) -> Body {
    Body::SetSpte { gfn, spte, sptep, level, r: true, w: spte & 2 != 0, x: true, u: Some(true) }
}

/// `kvm_entry`.
pub fn entry(vcpu: u32) -> Body {
    Body::Entry { vcpu, rip: None, immediate_exit: None, intr_info: None, error_code: None }
}

impl Maker {
    fn vm(&mut self, pid: &str, tids: &[&str]) -> Result<(), String> {
        let pid = dec(pid)?;
        let tids = tids.iter().map(|t| dec(t.trim_start_matches('t'))).collect::<Result<Vec<u32>, _>>()?;
        for t in &tids {
            self.trace.info.tasks.push(TaskInfo { tid: *t, pid: Some(pid), ..TaskInfo::default() });
        }
        self.trace.info.vm_hints.push(VmHint {
            pid: Some(pid),
            tids,
            provenance: "fixture".to_owned(),
            ..VmHint::default()
        });
        Ok(())
    }

    #[expect(clippy::too_many_lines, reason = "a table: one arm for each word of a fixture")]
    fn event(&mut self, time: &str, thread: &str, verb: &str, args: &[&str]) -> Result<(), String> {
        self.ts = match time.strip_prefix('+') {
            Some(d) => self.ts + dec::<u64>(d)? * 1000,
            None => dec::<u64>(time)? * 1000,
        };
        let tid: u32 = dec(thread.trim_start_matches('t'))?;
        let arg = |i: usize| args.get(i).copied().ok_or_else(|| format!("`{verb}` needs more arguments"));
        // The text of a kernel may hold the same words.
        let own = Tracepoint::find(verb).is_none();
        let place = |word: &str| args.iter().position(|a| own && *a == word);
        let after = |word: &str| place(word).and_then(|i| args.get(i + 1)).copied();
        let as_id = after("as").map_or(Ok(0), dec)?;
        let virt = after("at").map(hex).transpose()?;
        let flags = |p: Page| {
            let has = |word| args.contains(&word).then_some(true);
            let role =
                Role { smm: has("smm"), mirror: has("mirror"), invalid: has("invalid").is_some(), ..p.role };
            Page { role, ..p }
        };
        let shadowed = |level: &str, gfn: &str| Ok::<_, String>(shadow_page(dec(level)?, hex(gfn)?));
        let l = self.layout;
        let body = match verb {
            "root" => Body::GetPage { page: flags(direct_page(4, 0)), created: true },
            "page" => Body::GetPage { page: flags(direct_page(dec(arg(0)?)?, hex(arg(1)?)?)), created: true },
            "zappage" => Body::PrepareZapPage { page: flags(direct_page(dec(arg(0)?)?, hex(arg(1)?)?)) },
            "shadow" => {
                let page = Page { unsync: args.contains(&"unsync"), ..shadowed(arg(0)?, arg(1)?)? };
                Body::GetPage { page, created: !args.contains(&"existing") }
            }
            "zapshadow" => Body::PrepareZapPage { page: shadowed(arg(0)?, arg(1)?)? },
            "sync" => Body::SyncPage { page: shadowed(arg(0)?, arg(1)?)? },
            "unsync" => Body::UnsyncPage { page: Page { unsync: true, ..shadowed(arg(0)?, arg(1)?)? } },
            "tdp" => {
                let (level, gfn) = (dec(arg(0)?)?, hex(arg(1)?)?);
                Body::TdpSpteChanged {
                    as_id,
                    gfn,
                    level,
                    old_spte: value(&l, arg(2)?, level, gfn)?,
                    new_spte: value(&l, arg(3)?, level, gfn)?,
                }
            }
            "set" => {
                let (level, gfn) = (dec(arg(0)?)?, hex(arg(1)?)?);
                let spte = value(&l, arg(2)?, level, gfn)?;
                let sptep = hex(after("at").ok_or("`set` needs `at ADDRESS`")?)?;
                set_spte(level, gfn, spte, sptep)
            }
            "mmio" => Body::MarkMmioSpte {
                sptep: virt,
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
                    sptep: virt,
                    old_spte: value(&l, arg(1)?, 1, gfn)?,
                    new_spte: value(&l, arg(2)?, 1, gfn)?,
                    result: match arg(3)? {
                        "fixed" => FastPfResult::Fixed,
                        "spurious" => FastPfResult::Spurious,
                        _ => FastPfResult::Invalid,
                    },
                }
            }
            "split" => {
                let (level, gfn) = (dec(arg(0)?)?, hex(arg(1)?)?);
                let errno = args.get(3).map_or(Ok(0), |e| dec(e))?;
                Body::SplitHugePage { gfn, spte: value(&l, arg(2)?, level, gfn)?, level, errno }
            }
            "want" => Body::SpteRequested {
                level: dec(arg(0)?)?,
                gfn: hex(arg(1)?)?,
                pfn: hex(arg(2)?)?,
                access: None,
            },
            "fault" | "gfault" => {
                let access = arg(1)?;
                let code = u64::from(access.ends_with('p'))
                    | match access.trim_end_matches('p') {
                        "w" => 6,
                        "x" => 0x14,
                        _ => 4,
                    };
                let code = code | if args.get(2).is_some_and(|a| *a == "rsvd") { 8 } else { 0 };
                let at = hex(arg(0)?)?;
                if verb == "fault" {
                    nested_fault(at, code)
                } else {
                    let (address, encoding) = (at, ErrorEncoding::PageFault);
                    Body::PageFault { vcpu: None, rip: Some(0x1000), address, error_code: code, encoding }
                }
            }
            "walk" => {
                Body::PagetableWalk { addr: hex(arg(0)?)?, pferr: args.get(1).map_or(Ok(2), |n| dec(n))? }
            }
            "element" => Body::PagingElement { level: dec(arg(0)?)?, pte: hex(arg(1)?)? },
            "handle" => Body::HandleMmioPageFault { addr: 0, gfn: hex(arg(0)?)?, access: 6 },
            "async" => {
                let gfn = hex(arg(0)?)?;
                Body::TryAsyncGetPage { gva: gfn << 12, gfn, repeated: false }
            }
            "walkererror" => Body::WalkerError { pferr: args.first().map_or(Ok(7), |n| dec(n))? },
            "emulate" => Body::EmulateInsn { rip: 0x1000, failed: false },
            "exit" => match (exit(), args.first()) {
                (Body::Exit { vcpu, reason_name, isa, rip, .. }, Some(n)) => Body::Exit {
                    vcpu,
                    reason: Some(hex(n)? as u32),
                    reason_name,
                    isa,
                    rip,
                    info1: None,
                    info2: None,
                    intr_info: None,
                    error_code: None,
                    requests: None,
                },
                (plain, _) => plain,
            },
            "entry" => entry(dec(arg(0)?)?),
            "user" => Body::UserspaceExit { reason: dec(arg(0)?)?, errno: dec(arg(1)?)? },
            "zapall" => Body::ZapAllFast { mmu_valid_gen: 0, mmu_used_pages: 0 },
            "unmap" => Body::UnmapHvaRange { start: hex(arg(0)?)?, end: hex(arg(1)?)? },
            "changepte" => Body::SetSpteHva { hva: hex(arg(0)?)? },
            "age" => Body::AgeHva { start: hex(arg(0)?)?, end: hex(arg(1)?)? },
            "agepage" => Body::AgePage { gfn: hex(arg(0)?)?, hva: hex(arg(1)?)?, level: 1, young: true },
            "lost" => Body::Lost { count: Some(dec(arg(0)?)?), event: None },
            "mark" => Body::Marker { text: self.trace.strings.intern(&args.join(" ")) },
            name => traced(name, args)?,
        };
        let name = self.names.iter().find(|n| n.0 == tid).map_or("task", |n| n.1.as_str());
        let comm = self.trace.strings.intern(name);
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

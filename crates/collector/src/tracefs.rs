//! Reads tracefs: event ids, format files, and which events exist. The main type is [`Tracefs`]. Nothing here ever switches anything on.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;
use mmuscope_trace::Tracepoint as Schema;

/// Where tracefs is mounted.
#[derive(Clone, Debug)]
pub struct Tracefs {
    root: PathBuf,
}

/// One tracepoint of the running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracepoint {
    /// The system: `kvmmmu` or `kvm`.
    pub system: String,
    /// The name: `kvm_mmu_set_spte`.
    pub name: String,
    /// The number on this boot (`perf_event_attr.config`, `common_type`).
    pub id: u64,
    /// The text of its `format` file.
    pub format: String,
}

impl Tracepoint {
    /// The full name, `system:name`.
    pub fn full_name(&self) -> String {
        format!("{}:{}", self.system, self.name)
    }

    /// The offset and size of a field in the raw record, in bytes.
    pub fn field(&self, name: &str) -> Option<(usize, usize)> {
        fields(&self.format).into_iter().find(|f| f.0 == name).map(|f| (f.1, f.2))
    }
}

/// The name, offset and size of every field that a format file describes.
pub fn fields(format: &str) -> Vec<(&str, usize, usize)> {
    let mut out = Vec::new();
    for line in format.lines() {
        let Some(rest) = line.trim_start().strip_prefix("field:") else { continue };
        let mut decl = "";
        let (mut offset, mut size) = (None, None);
        for (i, part) in rest.split(';').map(str::trim).enumerate() {
            if i == 0 {
                decl = part;
            } else if let Some(v) = part.strip_prefix("offset:") {
                offset = v.parse().ok();
            } else if let Some(v) = part.strip_prefix("size:") {
                size = v.parse().ok();
            }
        }
        let decl = decl.split('[').next().unwrap_or(decl).trim_end();
        let name = decl.rsplit([' ', '*']).next().unwrap_or(decl);
        if let (Some(offset), Some(size)) = (offset, size) {
            out.push((name, offset, size));
        }
    }
    out
}

/// Whether and where tracefs was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// It is at `/sys/kernel/tracing`.
    Yes,
    /// It is only below debugfs.
    Debugfs,
    /// It is not mounted.
    No,
    /// It is mounted, but this user may not read it.
    Forbidden,
}

const PLACES: [(&str, Mounted); 2] =
    [("/sys/kernel/tracing", Mounted::Yes), ("/sys/kernel/debug/tracing", Mounted::Debugfs)];

impl Tracefs {
    /// Looks for tracefs in the usual places.
    pub fn find() -> (Mounted, Option<Self>) {
        let mut forbidden = false;
        for (place, how) in PLACES {
            let root = PathBuf::from(place);
            match fs::read_dir(root.join("events")) {
                Ok(_) => return (how, Some(Self { root })),
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => forbidden = true,
                Err(_) => {}
            }
        }
        // An unmounted /sys/kernel/tracing is an empty folder that anybody may list; debugfs is 0700 even where tracefs is mounted.
        let mounted = fs::read_to_string("/proc/self/mounts")
            .is_ok_and(|m| m.lines().any(|l| l.split(' ').nth(2) == Some("tracefs")));
        (if forbidden && mounted { Mounted::Forbidden } else { Mounted::No }, None)
    }

    /// A tracefs at another place, for tests.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The names of a system's events, sorted; empty where the system does not exist.
    pub fn names(&self, system: &str) -> Vec<String> {
        let Ok(dir) = fs::read_dir(self.root.join("events").join(system)) else { return Vec::new() };
        let mut v: Vec<String> = dir
            .filter_map(Result::ok)
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        v.sort();
        v
    }

    /// The names of all systems.
    pub fn systems(&self) -> Vec<String> {
        let Ok(dir) = fs::read_dir(self.root.join("events")) else { return Vec::new() };
        let mut v: Vec<String> = dir
            .filter_map(Result::ok)
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        v.sort();
        v
    }

    /// The id and format of one tracepoint.
    pub fn tracepoint(&self, system: &str, name: &str) -> Result<Tracepoint, Error> {
        let dir = self.root.join("events").join(system).join(name);
        let read = |file: &str| {
            fs::read_to_string(dir.join(file)).map_err(|source| Error::Read { path: dir.join(file), source })
        };
        let id = read("id")?;
        let id = id.trim().parse().map_err(|_| Error::Read {
            path: dir.join("id"),
            source: io::Error::new(io::ErrorKind::InvalidData, format!("not a number: {}", id.trim())),
        })?;
        Ok(Tracepoint { system: system.into(), name: name.into(), id, format: read("format")? })
    }

    /// The texts of `events/header_page` and `events/header_event`.
    pub fn headers(&self) -> (String, String) {
        let read = |f| fs::read_to_string(self.root.join("events").join(f)).unwrap_or_default();
        (read("header_page"), read("header_event"))
    }
}

/// The event sets that a user can name, with what they hold.
pub const SETS: [(&str, &str); 4] = [
    (
        "mmu",
        "what the MMU did and why: every kvmmmu event but the two page-walk ones, faults, entries, MMU exits, notifiers",
    ),
    ("faults", "guest page faults from exit to entry and what answered them"),
    ("mmio", "emulated MMIO: its SPTEs, their hits and the accesses"),
    ("all", "every kvmmmu event and every kvm event that mmuscope knows"),
];

/// Whether the schema of events puts an event into a set. Events that it does not know are in none.
fn in_set(set: &str, system: &str, name: &str) -> bool {
    Schema::find(name).is_some_and(|t| t.system == system && t.sets.contains(&set))
}

/// Whether the schema of events has this event.
fn is_known(system: &str, name: &str) -> bool {
    Schema::find(name).is_some_and(|t| t.system == system)
}

/// The chosen events in the order they were named, and whether kvm_exit is reduced to the MMU's reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The events as `(system, name)`.
    pub events: Vec<(String, String)>,
    /// Whether kvm_exit came from a set and not by its name, so that only the MMU's exit reasons are wanted.
    pub mmu_exits_only: bool,
}

/// Resolves a list such as `mmu,kvm:kvm_msr,-kvm_age_hva` against the events of this kernel.
pub fn choose(fs: &Tracefs, list: &str) -> Result<Chosen, Error> {
    let mut known: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for system in ["kvmmmu", "kvm"] {
        known.insert(system, fs.names(system));
    }
    if known.values().all(Vec::is_empty) {
        return Err(Error::NoEvents);
    }
    let mut out = Chosen::default();
    let mut exits_named = false;
    for item in list.split(',').map(str::trim).filter(|s| !s.is_empty()) {
        let (remove, item) = item.strip_prefix('-').map_or((false, item), |r| (true, r));
        let mut hits: Vec<(String, String)> = Vec::new();
        let mut from_set = true;
        let mut push = |system: &str, want: &dyn Fn(&str) -> bool| {
            for n in known.get(system).into_iter().flatten().filter(|n| want(n)) {
                hits.push((system.to_owned(), n.clone()));
            }
        };
        match item {
            "mmu" => {
                // What a newer kernel adds to the events of the MMU is recorded, too.
                push("kvmmmu", &|n| in_set("mmu", "kvmmmu", n) || !is_known("kvmmmu", n));
                push("kvm", &|n| in_set("mmu", "kvm", n));
            }
            "faults" | "mmio" => {
                push("kvmmmu", &|n| in_set(item, "kvmmmu", n));
                push("kvm", &|n| in_set(item, "kvm", n));
            }
            "all" => {
                push("kvmmmu", &|_| true);
                push("kvm", &|n| is_known("kvm", n));
                exits_named = true;
            }
            _ => {
                from_set = false;
                match item.split_once(':') {
                    Some((system, pattern)) if known.contains_key(system) => {
                        push(system, &|n| mmuscope_units::like(n, pattern));
                    }
                    Some((system, pattern)) => {
                        for n in fs.names(system).iter().filter(|n| mmuscope_units::like(n, pattern)) {
                            hits.push((system.to_owned(), n.clone()));
                        }
                    }
                    None => {
                        push("kvmmmu", &|n| mmuscope_units::like(n, item));
                        push("kvm", &|n| mmuscope_units::like(n, item));
                    }
                }
            }
        }
        if hits.is_empty() {
            return Err(Error::UnknownEvent { name: item.to_owned(), like: like(item, &known) });
        }
        if remove {
            out.events.retain(|e| !hits.contains(e));
        } else {
            for h in hits {
                exits_named |= !from_set && h.1 == "kvm_exit";
                if !out.events.contains(&h) {
                    out.events.push(h);
                }
            }
        }
    }
    out.mmu_exits_only = !exits_named && out.events.iter().any(|e| e.1 == "kvm_exit");
    if out.events.is_empty() {
        return Err(Error::UnknownEvent { name: list.to_owned(), like: String::new() });
    }
    Ok(out)
}

fn like(item: &str, known: &BTreeMap<&str, Vec<String>>) -> String {
    let name = item.rsplit(':').next().unwrap_or(item);
    let close: Vec<&str> = known
        .values()
        .flatten()
        .map(String::as_str)
        .filter(|n| {
            n.contains(name) || name.contains(n) || (name.len() > 5 && n.ends_with(&name[name.len() - 5..]))
        })
        .take(4)
        .collect();
    if close.is_empty() { String::new() } else { format!("; this kernel has {}", close.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_format_file() {
        // A 6.18 kernel printed this format.
        let f = "name: kvm_mmu_set_spte\nID: 119\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
                 \tfield:u64 gfn;\toffset:8;\tsize:8;\tsigned:0;\n\tfield:signed char u;\toffset:35;\tsize:1;\tsigned:1;\n\
                 \tfield:u64 * sptep;\toffset:40;\tsize:8;\tsigned:0;\n\tfield:char comm[16];\toffset:48;\tsize:16;\tsigned:0;\n\nprint fmt: \"x\"\n";
        assert_eq!(
            fields(f),
            [("common_type", 0, 2), ("gfn", 8, 8), ("u", 35, 1), ("sptep", 40, 8), ("comm", 48, 16)]
        );
    }

    fn fake() -> (tempfile::TempDir, Tracefs) {
        let dir = tempfile::tempdir().unwrap();
        for (s, n) in [
            ("kvmmmu", "kvm_mmu_set_spte"),
            ("kvmmmu", "kvm_mmu_paging_element"),
            ("kvmmmu", "kvm_mmu_pagetable_walk"),
            ("kvm", "kvm_exit"),
            ("kvm", "kvm_msr"),
            ("kvm", "kvm_mmio"),
            ("kvm", "kvm_page_fault"),
            ("sched", "sched_switch"),
        ] {
            fs::create_dir_all(dir.path().join("events").join(s).join(n)).unwrap();
        }
        let t = Tracefs::at(dir.path());
        (dir, t)
    }

    fn names(c: &Chosen) -> Vec<&str> {
        c.events.iter().map(|e| e.1.as_str()).collect()
    }

    #[test]
    fn the_default_set_leaves_the_page_walks_out() {
        let (_d, t) = fake();
        let c = choose(&t, "mmu").unwrap();
        assert_eq!(names(&c), ["kvm_mmu_set_spte", "kvm_exit", "kvm_mmio", "kvm_page_fault"]);
        assert!(c.mmu_exits_only);
    }

    #[test]
    fn sets_hold_what_the_schema_of_events_says_and_what_newer_kernels_add_to_the_mmu() {
        let dir = tempfile::tempdir().unwrap();
        let events = [
            ("kvmmmu", "kvm_mmu_set_spte"),
            ("kvmmmu", "kvm_mmu_invalidate_zap_all_pages"),
            ("kvmmmu", "kvm_mmu_not_known_yet"),
            ("kvm", "kvm_enter_smm"),
            ("kvm", "kvm_async_pf_doublefault"),
            ("kvm", "kvm_emulate_insn"),
            ("kvm", "kvm_not_known_yet"),
        ];
        for (s, n) in events {
            fs::create_dir_all(dir.path().join("events").join(s).join(n)).unwrap();
        }
        let t = Tracefs::at(dir.path());
        let of = |set: &str| {
            let mut n: Vec<String> = choose(&t, set).unwrap().events.into_iter().map(|e| e.1).collect();
            n.sort_unstable();
            n
        };
        let zap = "kvm_mmu_invalidate_zap_all_pages";
        assert_eq!(
            of("mmu"),
            ["kvm_async_pf_doublefault", "kvm_enter_smm", zap, "kvm_mmu_not_known_yet", "kvm_mmu_set_spte"]
        );
        assert_eq!(of("faults"), ["kvm_async_pf_doublefault", zap, "kvm_mmu_set_spte"]);
        assert_eq!(of("mmio"), ["kvm_emulate_insn", zap]);
        assert_eq!(of("all").len(), events.len() - 1, "kvm_not_known_yet would be shown as text only");
    }

    #[test]
    fn lists_add_and_remove() {
        let (_d, t) = fake();
        let c = choose(&t, "mmu,kvm:kvm_msr,-kvm_page_fault,kvm_exit,sched:sched_*").unwrap();
        assert_eq!(names(&c), ["kvm_mmu_set_spte", "kvm_exit", "kvm_mmio", "kvm_msr", "sched_switch"]);
        assert!(!c.mmu_exits_only, "kvm_exit was asked for by name: all of them are wanted");
        let e = choose(&t, "kvm_set_spte").unwrap_err().to_string();
        assert!(e.contains("kvm_set_spte") && e.contains("kvm_mmu_set_spte"), "{e}");
    }
}

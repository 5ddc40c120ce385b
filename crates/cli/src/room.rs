//! How much memory is available, and how much a replay of a trace needs.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of memory that a replay needs per event, the packed event and the program itself included. On recordings of 0.5 to 3.3 million
/// events it needed 43 to 171.
const PER_EVENT: u64 = 200;

/// Bytes of memory that the replay of one byte of a trace file may need: an event takes at least 4 bytes in a compressed capture, 24 in an
/// uncompressed binary trace and 80 as a line of text.
const PER_COMPRESSED_BYTE: u64 = PER_EVENT / 4;
const PER_BYTE: u64 = PER_EVENT / 20;

/// Approximate memory in bytes that a replay of this many events needs.
pub(crate) fn of_events(events: u64) -> u64 {
    events.saturating_mul(PER_EVENT)
}

/// Upper estimate of the memory in bytes that a replay of these files needs.
pub(crate) fn of_files(files: &[PathBuf]) -> u64 {
    let of = |f: &PathBuf| {
        let per = if may_be_compressed(f) { PER_COMPRESSED_BYTE } else { PER_BYTE };
        f.metadata().map_or(u64::MAX, |m| m.len().saturating_mul(per))
    };
    files.iter().map(of).fold(0, u64::saturating_add)
}

/// Whether a file begins like a gzip, zstd or xz file, or like a perf.data or trace.dat file, whose data may be compressed.
fn may_be_compressed(path: &Path) -> bool {
    use std::io::Read;
    let mut head = [0; 7];
    let read = fs::File::open(path).and_then(|mut f| f.read_exact(&mut head));
    read.is_err()
        || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || head.starts_with(&[0x1f, 0x8b])
        || head.starts_with(b"\xfd7zX")
        || head.starts_with(b"PERFILE")
        // A trace.dat file may be compressed from version 7 on.
        || head.starts_with(&[0x17, 0x08, 0x44])
}

/// Memory in bytes that this process may still use without putting pressure on others: half of what is available to it. `None` where the
/// system does not say.
pub(crate) fn available() -> Option<u64> {
    let host = field("/proc/meminfo", "MemAvailable:").map(|kb| kb.saturating_mul(1024));
    let used = field("/proc/self/status", "VmSize:").map_or(0, |kb| kb.saturating_mul(1024));
    let limit = field("/proc/self/limits", "Max address space").map(|n| n.saturating_sub(used));
    [host, cgroup(), limit].into_iter().flatten().min().map(|n| n / 2)
}

/// The number after a name in a file of procfs.
fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|l| l.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Bytes of memory that the control groups (version 2) of the process still allow.
fn cgroup() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|l| l.strip_prefix("0::/"))?;
    let read = |p: &Path, name: &str| fs::read_to_string(p.join(name)).ok()?.trim().parse::<u64>().ok();
    let top = Path::new("/sys/fs/cgroup");
    top.join(own)
        .ancestors()
        .take_while(|p| p.starts_with(top))
        .filter_map(|p| Some(read(p, "memory.max")?.saturating_sub(read(p, "memory.current")?)))
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_some_memory() {
        assert!(available().is_some_and(|n| n > 1 << 20), "{:?}", available());
        assert_eq!(of_events(1000), 1000 * PER_EVENT);
        assert_eq!(of_files(&["/nowhere".into()]), u64::MAX);
    }
}

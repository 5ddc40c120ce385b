//! The flight recorder: the rings overwrite themselves until a trigger fires, and then their content is saved. The main function is [`run`].

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::plan::{Recorder, numbered, scan_tasks};
use super::rings;
use super::run::{AsFdDyn, Task, signal_name, wait};
use super::status::cpu_time;
use super::summary::{Ended, EventCount, Summary};
use crate::attr::{self, Style};
use crate::capture::{Capture, create};
use crate::preamble::PIECE;
use crate::ring::{self, Ring, kind};
use crate::sys::{self, RingMap, Signals, Watch};
use crate::trigger::{Hit, Watched, Watcher};
use crate::{Error, Output, host, untraced};

/// The bytes of ring for the trigger's own events on each CPU.
const WATCH_RING: usize = 1 << 20;
/// The least time between two snapshots. The rings need time to fill with new events.
const REST: Duration = Duration::from_millis(500);

/// The events of one CPU that the trigger watches.
struct Sentry {
    cpu: u32,
    ring: Ring<RingMap>,
    fds: Vec<OwnedFd>,
}

/// Watches the CPUs that are recorded and not watched yet, and stops watching those that went offline.
fn post(sentries: &mut Vec<Sentry>, r: &Recorder<'_>, watched: &[Watched]) -> Result<(), Error> {
    let online = |nr: u32| r.cpus.iter().any(|c| c.nr == nr && !c.gone);
    sentries.retain(|s| online(s.cpu));
    for c in r.cpus.iter().filter(|c| !c.gone) {
        if sentries.iter().any(|s| s.cpu == c.nr) {
            continue;
        }
        let Some(new) = sentry(c.nr, watched)? else { continue };
        for fd in &new.fds {
            sys::enable(fd)
                .map_err(|source| Error::System { what: "starting the trigger's events", source })?;
        }
        sentries.push(new);
    }
    Ok(())
}

fn sentry(cpu: u32, watched: &[Watched]) -> Result<Option<Sentry>, Error> {
    // A rare event wakes the reader at once, a frequent one (for a rate) only once for a few hundred.
    let style = Style { backward: false, lost: false, watermark: 4096 };
    let Ok(owner) = sys::open(&attr::dummy(Style { watermark: 4096, ..style }), Watch::Cpu(cpu)) else {
        return Ok(None);
    };
    let map = RingMap::new(&owner, WATCH_RING, true)
        .map_err(|source| Error::System { what: "mapping the trigger's ring", source })?;
    let mut fds = vec![owner];
    for w in watched {
        let fd = sys::open(&attr::tracepoint(w.tracepoint.id, style), Watch::Cpu(cpu))
            .map_err(|e| rings::refused(&w.tracepoint.full_name(), &e))?;
        sys::set_output(&fd, &fds[0])
            .map_err(|source| Error::System { what: "sharing the trigger's ring", source })?;
        if !w.filter.is_empty() {
            let text = std::ffi::CString::new(w.filter.as_str())
                .map_err(|_| Error::Usage("a filter must not contain a NUL byte".into()))?;
            sys::set_filter(&fd, &text).map_err(|e| {
                Error::Usage(format!("the kernel does not take the trigger's filter {:?}: {e}", w.filter))
            })?;
        }
        fds.push(fd);
    }
    Ok(Some(Sentry { cpu, ring: Ring::new(map), fds }))
}

/// Reads the watched events, and returns the first fulfilled condition and its time.
fn look(sentries: &mut [Sentry], watcher: &mut Watcher, buf: &mut Vec<u8>) -> Option<String> {
    let mut found = None;
    for s in sentries {
        s.ring.records(|rec| {
            if rec.header.kind != kind::SAMPLE || found.is_some() {
                return;
            }
            buf.clear();
            rec.copy_to(buf);
            let (Some(who), Some(time)) = (rec.word(16), rec.word(24)) else { return };
            let b = who.to_ne_bytes();
            let hit = Hit {
                pid: u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
                tid: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
                time,
                raw: buf.get(44..).unwrap_or_default(),
            };
            found = watcher.see(hit).map(str::to_owned);
        });
    }
    found
}

/// The content of one snapshot.
struct Snapshot {
    path: PathBuf,
    written: u64,
    raw: u64,
    counts: Vec<u64>,
}

/// Saves the content of the rings into a capture of its own.
fn save(r: &mut Recorder<'_>, n: u32, why: &str) -> Result<Snapshot, Error> {
    let Output::File(base) = &r.options.output else {
        return Err(Error::Usage("snapshots need a file name".into()));
    };
    let path = numbered(base, n);
    // The rings are paused first, because everything of interest is already in them.
    for c in &r.cpus {
        let _ = sys::pause(&c.fds[0], true);
    }
    let at = host::monotonic();
    let result = write_snapshot(r, &path, why, at);
    for c in &r.cpus {
        let _ = sys::pause(&c.fds[0], false);
    }
    let (written, raw, counts) = result?;
    Ok(Snapshot { path, written, raw, counts })
}

fn write_snapshot(
    r: &mut Recorder<'_>,
    path: &std::path::Path,
    why: &str,
    at: u64,
) -> Result<(u64, u64, Vec<u64>), Error> {
    let fail = |source: io::Error| Error::Write { path: path.to_owned(), source };
    scan_tasks(&mut r.tasks);
    let mut to = Capture::start(create(path)?, &r.preamble()).map_err(fail)?;
    let mut counts = vec![0u64; r.plan.len() + 1];
    let (mut held, mut piece) = (Vec::new(), Vec::new());
    let Recorder { cpus, sieve, .. } = r;
    for c in cpus.iter() {
        held.clear();
        ring::overwritten(c.ring.memory(), &mut held);
        let mut record = Vec::new();
        for (h, bytes) in ring::records(&held) {
            record.clear();
            record.extend_from_slice(bytes);
            if !sieve.pass(&mut record, &c.translate) {
                continue;
            }
            if h.kind == kind::SAMPLE
                && let Some(id) = bytes.get(8..16).and_then(|b| b.try_into().ok()).map(u64::from_ne_bytes)
                && let Some(i) = c.index(id)
            {
                counts[i] += 1;
            }
            if piece.len() + record.len() > PIECE {
                to.data(&piece).map_err(fail)?;
                piece.clear();
            }
            piece.extend_from_slice(&record);
        }
    }
    to.data(&piece).map_err(fail)?;
    to.end_round().map_err(fail)?;
    let raw = to.raw;
    let facts = vec![
        ("record.end".to_owned(), format!("snapshot: {why}")),
        ("record.trigger_time".to_owned(), at.to_string()),
        ("lost.total".to_owned(), "unknown".to_owned()),
        ("clock.end".to_owned(), host::clocks().0),
    ];
    let written = to.finish(&facts).map_err(fail)?;
    Ok((written, raw, counts))
}

/// Records until a signal, the time, the command or the number of snapshots ends it.
pub(crate) fn run(mut r: Recorder<'_>, signals: Signals) -> Result<Summary, Error> {
    let options = r.options;
    let (mut watcher, watched) = watch(&mut r)?;
    let mut sentries = Vec::new();
    let began = Instant::now();
    let cpu0 = cpu_time();
    r.enable()?;
    if watcher.is_some() {
        post(&mut sentries, &r, &watched)?;
    }
    let mut task = Task::start(options)?;
    let mut taken: Vec<Snapshot> = Vec::new();
    let mut due: Option<(Instant, String)> = None;
    let mut last: Option<Instant> = None;
    let mut looked = Instant::now();
    let mut buf = Vec::new();
    if !options.quiet {
        eprintln!(
            "flight recorder: {} KiB a CPU on {} CPUs; kill -USR1 {} saves a snapshot, Ctrl-C saves a last one and ends",
            r.plan.ring >> 10,
            r.cpus.len(),
            std::process::id()
        );
    }
    let snap = |r: &mut Recorder<'_>, taken: &mut Vec<Snapshot>, why: &str| -> Result<(), Error> {
        let s = save(r, taken.len() as u32 + 1, why)?;
        if !options.quiet {
            let n: u64 = s.counts.iter().sum();
            eprintln!(
                "{}: {} events, {} ({why})",
                s.path.display(),
                super::summary::grouped(n),
                super::summary::bytes(s.written)
            );
        }
        taken.push(s);
        Ok(())
    };
    let ended = loop {
        let mut fds: Vec<&dyn AsFdDyn> = vec![&signals];
        if let Some(p) = task.as_ref().and_then(Task::pidfd) {
            fds.push(p);
        }
        fds.extend(sentries.iter().map(|s| &s.fds[0] as &dyn AsFdDyn));
        let mut timeout = Duration::from_millis(if sentries.is_empty() { 1000 } else { 100 });
        if let Some(d) = options.duration {
            timeout = timeout.min(d.saturating_sub(began.elapsed()));
        }
        if let Some((at, _)) = &due {
            timeout = timeout.min(at.saturating_duration_since(Instant::now()));
        }
        wait(&fds, timeout);
        if let Some(w) = &mut watcher
            && let Some(why) = look(&mut sentries, w, &mut buf)
            && due.is_none()
        {
            // A snapshot that would come too soon after the last one is made later.
            let earliest = last.map_or_else(Instant::now, |l: Instant| l + REST);
            due = Some(((Instant::now() + options.after).max(earliest), format!("trigger: {why}")));
        }
        let signal = signals.next();
        if signal == Some(libc::SIGUSR1) {
            due = Some((Instant::now(), "SIGUSR1".into()));
        }
        if let Some((_, why)) = due.take_if(|d| d.0 <= Instant::now()) {
            snap(&mut r, &mut taken, &why)?;
            last = Some(Instant::now());
            if options.snapshots.is_some_and(|n| taken.len() as u32 >= n) {
                break Ended::Snapshots;
            }
        }
        if let Some(how) = task.as_mut().and_then(Task::ended) {
            snap(&mut r, &mut taken, &format!("the command ended ({how})"))?;
            break Ended::Command(how);
        }
        if let Some(s) = signal.filter(|&s| s != libc::SIGUSR1) {
            snap(&mut r, &mut taken, signal_name(s))?;
            break Ended::Signal(signal_name(s));
        }
        if options.duration.is_some_and(|d| began.elapsed() >= d) {
            snap(&mut r, &mut taken, "the time was over")?;
            break Ended::Duration;
        }
        if looked.elapsed() >= Duration::from_secs(1) {
            looked = Instant::now();
            if r.follow_hotplug()? && watcher.is_some() {
                post(&mut sentries, &r, &watched)?;
            }
        }
    };
    for c in &r.cpus {
        c.disable();
    }
    drop(signals);
    let cpu = cpu_time().saturating_sub(cpu0);
    Ok(summary(&mut r, taken, ended, (began.elapsed(), cpu)))
}

/// The watcher of the trigger, if there is one, and what it must watch.
fn watch(r: &mut Recorder<'_>) -> Result<(Option<Watcher>, Vec<Watched>), Error> {
    let Some(trigger) = &r.options.trigger else { return Ok((None, Vec::new())) };
    let (watcher, watched) = Watcher::new(trigger, &r.fs).map_err(Error::Usage)?;
    // Snapshots on SIGUSR1 and at the end are still made, so recording begins anyway.
    for sentence in untraced::impossible(trigger) {
        eprintln!("mmuscope: {sentence}");
        r.notes.push(sentence);
    }
    Ok((Some(watcher), watched))
}

/// The result of a recording of this length, which took this CPU time.
fn summary(
    r: &mut Recorder<'_>,
    taken: Vec<Snapshot>,
    ended: Ended,
    (time, cpu): (Duration, Duration),
) -> Summary {
    let mut events: Vec<EventCount> =
        r.plan.names().map(|name| EventCount { name, recorded: 0, lost: 0 }).collect();
    for s in &taken {
        for (e, n) in events.iter_mut().zip(&s.counts[1..]) {
            e.recorded += n;
        }
    }
    Summary {
        snapshots: Vec::new(),
        taken: 0,
        ended,
        time,
        events,
        lost: None,
        lost_by_cpu: Vec::new(),
        left_behind: 0,
        raw: taken.iter().map(|s| s.raw).sum(),
        written: taken.iter().map(|s| s.written).sum(),
        files: taken.into_iter().map(|s| s.path).collect(),
        cpu,
        notes: std::mem::take(&mut r.notes),
    }
}

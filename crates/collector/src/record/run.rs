//! The ordinary recording: it drains the rings into one capture until it ends. The main function is [`run`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::plan::Recorder;
use super::probed::Probed;
use super::rings::{Counts, counts};
use super::shots::Shots;
use super::size::SizeLimit;
use super::status::{Now, Status, cpu_time};
use super::summary::{Ended, EventCount, Summary};
use crate::capture::create;
use crate::feed::{Feed, Grace, SIP};
use crate::host;
use crate::preamble::{self, PIECE};
use crate::ring::{Record, RingMemory, kind};
use crate::scrub::Sieve;
use crate::sys::{self, Signals};
use crate::{Error, Output, RecordOptions, vms};

/// The niceness of the draining thread where it may not have real-time priority.
const NICE: i32 = -15;

/// How long the end of a recording waits for the reader of a pipe. The recorder ends when it is asked to, whatever the reader does; a reader
/// that was only busy for a moment, or is a little behind, still gets everything.
const GRACE: Grace = Grace { stuck: Duration::from_secs(2), whole: Duration::from_secs(10) };

/// How often a feed without room is asked whether it has room again.
const HELD_BACK: Duration = Duration::from_millis(10);

/// After how many rounds the recorder writes how it does, for somebody who watches: twice a second into a pipe. It costs 70 bytes.
const NOTED: u32 = 5;

/// How often the online CPUs are counted.
const HOTPLUG: Duration = Duration::from_secs(1);

/// The command that was started, with a descriptor that becomes readable when it ends.
pub(crate) struct Task {
    child: Child,
    pidfd: Option<OwnedFd>,
}

impl Task {
    /// Starts the command. The events run already, so nothing of the command is missed.
    pub(crate) fn start(o: &RecordOptions) -> Result<Option<Self>, Error> {
        let Some((program, args)) = o.command.split_first() else { return Ok(None) };
        let mut c = Command::new(program);
        c.args(args);
        if o.output == Output::Stdout {
            // The capture is the only thing on standard output.
            let err = io::stderr().as_fd().try_clone_to_owned();
            c.stdout(err.map_or_else(|_| Stdio::null(), Stdio::from));
        }
        let child = c
            .spawn()
            .map_err(|source| Error::Command { command: program.to_string_lossy().into_owned(), source })?;
        let pidfd = rustix::process::Pid::from_raw(child.id() as i32)
            .and_then(|p| rustix::process::pidfd_open(p, rustix::process::PidfdFlags::empty()).ok());
        Ok(Some(Self { child, pidfd }))
    }

    /// How the command ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(match (status.code(), status.signal()) {
            (Some(0), _) => "status 0".into(),
            (Some(c), _) => format!("status {c}"),
            (None, Some(s)) => format!("signal {s}"),
            (None, None) => "unknown status".into(),
        })
    }

    pub(crate) fn pidfd(&self) -> Option<&OwnedFd> {
        self.pidfd.as_ref()
    }

    /// Waits for the end of the command after the recording is over.
    pub(crate) fn wait(mut self) {
        let _ = self.child.wait();
    }
}

/// The name of the signal, as a reason to end.
pub(crate) fn signal_name(s: i32) -> &'static str {
    match s {
        libc::SIGINT => "interrupted (Ctrl-C)",
        libc::SIGTERM => "terminated (SIGTERM)",
        libc::SIGHUP => "the terminal went away (SIGHUP)",
        _ => "a signal came",
    }
}

/// Waits until something happens; `true` at an index means that this descriptor has something to read.
pub(crate) fn wait(fds: &[&dyn AsFdDyn], timeout: Duration) -> Vec<bool> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|f| PollFd::from_borrowed_fd(f.fd(), PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
    // An interrupted poll counts as a short one.
    let _ = poll(&mut polled, Some(&timeout));
    polled.iter().map(|p| !p.revents().is_empty()).collect()
}

/// `AsFd` as a trait object, so that different descriptors can be in one list.
pub(crate) trait AsFdDyn {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_>;
}

impl<T: AsFd> AsFdDyn for T {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.as_fd()
    }
}

/// Takes everything that the rings hold now.
///
/// While a snapshot is `under_way` no round ends: its times are earlier than those of events that are taken meanwhile.
fn pass(r: &mut Recorder<'_>, to: &mut Feed, kept: &mut [u64], scratch: &mut Vec<u8>, under_way: bool) {
    let Recorder { cpus, sieve, .. } = r;
    for c in cpus.iter_mut() {
        let (ids, seen, lost) = (&c.ids, &mut c.seen, &mut c.lost_seen);
        let first = ids.first().copied().unwrap_or_default();
        if sieve.open() && c.translate.is_empty() {
            c.ring.drain(PIECE, |rec| note(rec, first, ids, seen, lost, kept), |bytes| to.data(bytes));
        } else {
            let translate = &c.translate;
            let mut ignored = vec![0; kept.len()];
            c.ring.records(|rec| {
                note(rec, first, ids, seen, lost, &mut ignored);
                scratch.clear();
                rec.copy_to(scratch);
                if keep(sieve, scratch, translate) {
                    to.data(scratch);
                    if let Some(i) = sample_index(rec, first, ids) {
                        kept[i] += 1;
                    }
                }
            });
        }
    }
    if under_way {
        to.go_on();
    } else {
        to.end_round(kept.iter().sum());
    }
}

fn keep(sieve: &mut Sieve, record: &mut [u8], ids: &std::collections::HashMap<u64, u64>) -> bool {
    sieve.pass(record, ids)
}

fn sample_index<M: RingMemory>(rec: &Record<'_, M>, first: u64, ids: &[u64]) -> Option<usize> {
    if rec.header.kind != kind::SAMPLE {
        return None;
    }
    let id = rec.word(8)?;
    let guess = id.wrapping_sub(first) as usize;
    if ids.get(guess) == Some(&id) { Some(guess) } else { ids.iter().position(|&i| i == id) }
}

fn note<M: RingMemory>(
    rec: &Record<'_, M>,
    first: u64,
    ids: &[u64],
    seen: &mut [u64],
    lost: &mut u64,
    kept: &mut [u64],
) {
    if let Some(i) = sample_index(rec, first, ids) {
        seen[i] += 1;
        kept[i] += 1;
    } else if rec.header.kind == kind::LOST {
        *lost += rec.word(16).unwrap_or_default();
    }
}

/// The losses of each event on each CPU by the kernel's counts: `(cpu index, event index, count)`.
fn losses(r: &Recorder<'_>) -> Vec<(usize, usize, u64)> {
    let mut out = Vec::new();
    for (ci, c) in r.cpus.iter().enumerate() {
        for (i, fd) in c.fds.iter().enumerate() {
            let Ok(Counts { value, lost }) = counts(fd, r.plan.style.lost) else { continue };
            // Where the kernel does not count losses, they are the hits that were not seen. Task records (event 0) are not hits.
            let n = lost.unwrap_or_else(|| if i == 0 { 0 } else { value.saturating_sub(c.seen[i]) });
            if n > 0 {
                out.push((ci, i, n));
            }
        }
    }
    out
}

/// Writes the losses into the capture, and returns them for each event and for each CPU.
fn account(r: &Recorder<'_>, to: &mut Feed) -> (Vec<u64>, BTreeMap<u32, u64>) {
    let now = host::monotonic();
    let mut by_event = vec![0u64; r.plan.len() + 1];
    let mut by_cpu: BTreeMap<u32, u64> = BTreeMap::new();
    let mut per_ring = vec![0u64; r.cpus.len()];
    let mut exact = Vec::new();
    for (ci, i, n) in losses(r) {
        let c = &r.cpus[ci];
        let id = c.translate.get(&c.ids[i]).copied().unwrap_or(c.ids[i]);
        preamble::lost_samples(&mut exact, id, n, now, c.nr);
        by_event[i] += n;
        per_ring[ci] += n;
    }
    let mut places = Vec::new();
    for (c, n) in r.cpus.iter().zip(&per_ring) {
        let n = (*n).max(c.lost_seen);
        if n > c.lost_seen {
            let id = c.translate.get(&c.ids[0]).copied().unwrap_or(c.ids[0]);
            preamble::lost(&mut places, id, n - c.lost_seen, now, c.nr);
        }
        if n > 0 {
            *by_cpu.entry(c.nr).or_default() += n;
        }
    }
    places.append(&mut exact);
    to.plain(places);
    (by_event, by_cpu)
}

/// Records until the command, the time, the size, a signal or the reader ends it.
pub(crate) fn run(r: Recorder<'_>, signals: Signals) -> Result<Summary, Error> {
    let o = r.options;
    let (out, files) = match &o.output {
        Output::File(p) => (create(p)?, vec![p.clone()]),
        Output::Stdout => {
            let out = io::stdout().as_fd().try_clone_to_owned().map(File::from);
            (out.map_err(|source| Error::System { what: "standard output", source })?, Vec::new())
        }
    };
    let path = files.first().cloned().unwrap_or_else(|| "standard output".into());
    // A file is read now and then; a pipe is read by somebody who watches.
    let rhythm = Duration::from_millis(if o.output == Output::Stdout { 100 } else { 250 });
    let pipe = is_pipe(&out);
    let mut to = Feed::start(out, &r.preamble(), rhythm / 2, if pipe.is_some() { SIP } else { usize::MAX })
        .map_err(|source| Error::Write { path: path.clone(), source })?;
    let mut size = None;
    if let Some(most) = o.max_size {
        // The bytes before the first event count towards the size.
        to.settle(0);
        size = Some(SizeLimit::new(most, to.written())?);
    }
    let status = Status::new(o.quiet);
    let (began, cpu_before) = (Instant::now(), cpu_time());
    r.enable()?;
    let mut shots = Shots::new(&r);
    let probed = Probed::new(&r);
    shots.start();
    let task = Task::start(o)?;
    // Only this thread gets the priority, and only now, so that the command does not inherit it. The rings must be emptied in time on a
    // host whose CPUs are all busy. This thread copies for some microseconds and sleeps again; what takes CPU time (compressing, writing)
    // is done by an ordinary thread. Where real-time priority is refused, a negative niceness is tried, and recording works in any case.
    if !o.realtime || sys::realtime().is_err() {
        let _ = rustix::process::setpriority_process(None, NICE);
    }
    let mut session = Session {
        kept: vec![0u64; r.plan.len() + 1],
        scratch: Vec::new(),
        fill: 0.0,
        looked: Instant::now(),
        r,
        to,
        pipe,
        size,
        status,
        task,
        began,
        cpu_before,
        rhythm,
        shots,
        probed,
    };
    let ended = loop {
        if let Some(ended) = session.step(&signals)? {
            break ended;
        }
    };
    Ok(session.finish(ended, signals, files, &path))
}

/// A recording that runs.
struct Session<'a> {
    r: Recorder<'a>,
    to: Feed,
    /// A copy of the descriptor of standard output, if that is a pipe or a socket; it shows when the reader closes its end.
    pipe: Option<OwnedFd>,
    size: Option<SizeLimit>,
    status: Status,
    task: Option<Task>,
    began: Instant,
    /// The CPU time that the process had used when the recording began.
    cpu_before: Duration,
    /// How often the rings are emptied if nothing asks for it earlier.
    rhythm: Duration,
    /// The number of records taken of each event.
    kept: Vec<u64>,
    scratch: Vec<u8>,
    /// How full the fullest ring was lately, 0 to 1.
    fill: f64,
    /// When the online CPUs were last counted.
    looked: Instant,
    shots: Shots,
    probed: Probed,
}

impl Session<'_> {
    /// Waits until something happens, and empties the rings. The result is `Some` when the recording has ended.
    fn step(&mut self, signals: &Signals) -> Result<Option<Ended>, Error> {
        let o = self.r.options;
        let room = self.wait(signals);
        self.fill = self.r.cpus.iter().map(|c| c.ring.fill()).fold(self.fill * 0.9, f64::max);
        if room {
            let under_way = self.shots.under_way();
            pass(&mut self.r, &mut self.to, &mut self.kept, &mut self.scratch, under_way);
            let probes = self.probed.look(&mut self.r);
            if probes.slots {
                self.shots.slots_asked();
            }
            if let Some(records) = probes.stopped {
                self.to.plain(records);
            }
            if let Some(records) = self.shots.step() {
                self.to.plain(records);
            }
        }
        if self.pipe.as_ref().is_some_and(closed) {
            return Ok(Some(Ended::ReaderGone));
        }
        if self.to.failed() {
            // The reason is known when the capture is finished.
            return Ok(Some(Ended::WriteFailed(String::new())));
        }
        if let Some(how) = self.task.as_mut().and_then(Task::ended) {
            self.task = None;
            return Ok(Some(Ended::Command(how)));
        }
        match signals.next() {
            Some(libc::SIGUSR1) | None => {}
            Some(s) => return Ok(Some(Ended::Signal(signal_name(s)))),
        }
        if o.duration.is_some_and(|d| self.began.elapsed() >= d) {
            return Ok(Some(Ended::Duration));
        }
        if let Some(s) = &mut self.size {
            self.to.settle(self.kept.iter().sum());
            if s.is_reached(self.to.written()) {
                return Ok(Some(Ended::Size));
            }
        }
        if self.looked.elapsed() >= HOTPLUG {
            self.looked = Instant::now();
            self.r.follow_hotplug()?;
        }
        if self.status.due() {
            let now = self.now();
            self.status.draw(&now);
        }
        // A snapshot under way has times before those of the events; what is written beside it must not end up between its parts.
        if room && !self.shots.under_way() && self.status.fact_is_due(NOTED * self.rhythm) {
            let now = self.now();
            let mut records = Vec::new();
            preamble::facts(&mut records, &[self.status.fact(&now)]);
            self.to.plain(records);
        }
        Ok(None)
    }

    /// How the recording does at this moment.
    fn now(&self) -> Now {
        let events = self.kept.iter().sum();
        let lost = self.r.cpus.iter().map(|c| c.lost_seen).sum();
        Now { events, lost, fill: self.fill, written: self.to.written() }
    }

    /// Waits for a signal, the end of the command, or a ring that fills, but no longer than until something is due. The result says whether
    /// the feed had room, without which the rings are not emptied.
    fn wait(&self, signals: &Signals) -> bool {
        let left = self.r.options.duration.map_or(self.rhythm, |d| d.saturating_sub(self.began.elapsed()));
        let mut fds: Vec<&dyn AsFdDyn> = vec![signals];
        if let Some(p) = self.task.as_ref().and_then(Task::pidfd) {
            fds.push(p);
        }
        let room = self.to.has_room();
        if room {
            fds.extend(self.r.cpus.iter().filter(|c| !c.gone).map(|c| &c.fds[0] as &dyn AsFdDyn));
        }
        let patience = |s: &SizeLimit| s.patience(self.to.written(), self.began.elapsed(), self.rhythm);
        let rest = if room { self.size.as_ref().map_or(self.rhythm, patience) } else { HELD_BACK };
        wait(&fds, self.shots.patience(rest).min(left).min(self.status.next()));
        room
    }

    /// Reads the tables once more while the events still run.
    fn last_snapshot(&mut self) {
        let Self { r, to, kept, scratch, shots, .. } = self;
        let records = shots.end(|| {
            if to.has_room() {
                pass(r, to, kept, scratch, true);
            }
        });
        pass(r, to, kept, scratch, true);
        for x in records {
            to.plain(x);
        }
    }

    /// Stops the events, takes what the rings still hold, and writes the end of the capture.
    fn finish(mut self, ended: Ended, signals: Signals, files: Vec<PathBuf>, path: &Path) -> Summary {
        match ended {
            Ended::ReaderGone | Ended::WriteFailed(_) => {}
            // What it would add may be more than all events.
            Ended::Size => {
                self.shots.said.push("no snapshot of KVM's tables at the end: the size was reached".into());
            }
            _ => self.last_snapshot(),
        }
        for c in &self.r.cpus {
            c.disable();
        }
        let time = self.began.elapsed();
        self.status.clear();
        // A second Ctrl-C must be able to end the program even during a write that does not return; everything flushed stays readable.
        drop(signals);
        let Self { mut r, mut to, mut kept, mut scratch, pipe, task, cpu_before, shots, .. } = self;
        pass(&mut r, &mut to, &mut kept, &mut scratch, false);
        let (by_event, by_cpu) = account(&r, &mut to);
        let events = event_counts(&r, &kept, &by_event);
        let skipped: u64 = r.cpus.iter().map(|c| c.ring.skipped).sum();
        if skipped > 0 {
            r.notes.push(format!("{skipped} bytes of the rings were not valid records and were skipped"));
        }
        r.notes.extend(Probed::unprobed(&r, shots.shadow_pages));
        let (snapshots, taken) = (shots.said, shots.taken);
        let facts = end_facts(&r, &ended, &events, &by_cpu);
        let raw = to.raw;
        let end = to.finish(facts, kept.iter().sum(), pipe.is_some().then_some(GRACE));
        let ended = match (end.error, ended) {
            (Some(e), _) if e.kind() == io::ErrorKind::BrokenPipe => Ended::ReaderGone,
            (Some(e), _) => Ended::WriteFailed(write_error(path, &e)),
            (None, ended) => ended,
        };
        let summary = Summary {
            ended,
            time,
            events,
            lost: Some(by_cpu.values().sum()),
            lost_by_cpu: by_cpu.into_iter().collect(),
            left_behind: end.left_behind,
            raw,
            written: end.written,
            files,
            cpu: cpu_time().saturating_sub(cpu_before),
            notes: std::mem::take(&mut r.notes),
            snapshots,
            taken,
        };
        drop(r);
        if let Some(t) = task {
            // With --duration or Ctrl-C the recording ends before the command; this process stays its parent until it ends.
            if !matches!(summary.ended, Ended::Signal(_)) {
                t.wait();
            }
        }
        summary
    }
}

/// The counts of each event. The software event that owns the rings is listed only if it lost something.
fn event_counts(r: &Recorder<'_>, kept: &[u64], lost: &[u64]) -> Vec<EventCount> {
    let names = std::iter::once("dummy:u".to_owned()).chain(r.plan.names());
    names
        .zip(kept.iter().zip(lost))
        .map(|(name, (&recorded, &lost))| EventCount { name, recorded, lost })
        .filter(|e| e.name != "dummy:u" || e.lost > 0)
        .collect()
}

/// The facts that are known only at the end: how it ended, what was lost, remarks, and VMs that appeared since the start.
fn end_facts(
    r: &Recorder<'_>,
    ended: &Ended,
    events: &[EventCount],
    by_cpu: &BTreeMap<u32, u64>,
) -> Vec<(String, String)> {
    let lost: u64 = by_cpu.values().sum();
    let mut facts = vec![
        ("clock.end".to_owned(), host::clocks().0),
        ("record.end".to_owned(), ended.to_string()),
        ("lost.total".to_owned(), lost.to_string()),
    ];
    for e in events.iter().filter(|e| e.lost > 0) {
        facts.push(("lost.event".into(), format!("{} {}", e.name, e.lost)));
    }
    for (cpu, n) in by_cpu {
        facts.push(("lost.cpu".into(), format!("{cpu} {n}")));
    }
    for n in &r.notes {
        facts.push(("note".into(), n.clone()));
    }
    if !r.options.anonymise {
        for v in vms::find().iter().filter(|v| !r.host.vmms.iter().any(|w| w.pid == v.pid)) {
            facts.push(("vm".into(), format!("{} {}", v.pid, v.comm)));
        }
    }
    facts
}

/// A copy of the descriptor if it is a pipe or a socket, which has a reader.
fn is_pipe(out: &File) -> Option<OwnedFd> {
    let kind = out.metadata().ok()?.file_type();
    if kind.is_fifo() || kind.is_socket() { out.as_fd().try_clone_to_owned().ok() } else { None }
}

/// Whether the other end of the pipe is closed. Then recording can end, even if no event happens that would have to be written.
fn closed(pipe: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(pipe, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&at_once)).is_ok()
        && polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

fn write_error(path: &Path, e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::ENOSPC) => {
            format!(
                "{}: the disk is full; the capture is readable up to there, what came after it is not in it",
                path.display()
            )
        }
        _ => format!("{}: {e}", path.display()),
    }
}

//! `mmuscope view`: opens the desktop viewer.

use super::input::is_stdin;
use super::which::DecimalArg;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::{Result, bail};
use clap::ValueEnum;
use mmuscope_analysis::events::{self, EVENTS};
use mmuscope_analysis::table::Rows;
use mmuscope_replay::{LayoutOverride, Timeline};
use mmuscope_report::{Options, Report, render_svg};
use mmuscope_tables::{Format, TableWriter, WriteOptions};
use mmuscope_trace::Trace;
use mmuscope_ui::{Input, Place, ThemeChoice, ViewOptions};
use mmuscope_units::Frames;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// The desktop viewer: guest pages over time, each entry bit by bit
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope view trace.dat
  mmuscope view before.dat --beside after.dat               two traces on one time axis
  mmuscope view --follow capture.perf.data                  a capture that is still being written
  mmuscope record -o - | mmuscope view -                    live, without privileges for the viewer")]
pub(crate) struct Args {
    /// A trace; several files are read as one trace; `-` is standard input. Without a file the window offers a file chooser
    files: Vec<PathBuf>,
    /// Keep reading a file while it is being written
    #[arg(long)]
    follow: bool,
    /// Show another trace beside this one, on the same time axis
    #[arg(long, value_name = "FILE")]
    beside: Option<PathBuf>,
    /// Show the moments of the other trace that are so much later (or, with a minus, earlier) at the place of this one's; both count from their first event
    #[arg(long, value_name = "TIME", value_parser = shift, allow_hyphen_values = true, requires = "beside")]
    shift: Option<i64>,
    /// Show this moment: 1.5s, 20ms, 1.5 (seconds since the first event), start or end
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<u64>,
    /// Select this guest frame (hex)
    #[arg(long, value_name = "GFN")]
    gfn: Option<Frames>,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    decimal: DecimalArg,
    /// Colours of the window; without this option, those that were chosen last
    #[arg(long, value_enum)]
    theme: Option<Theme>,
    /// Write a picture of the window to this PNG file and close
    #[arg(long, value_name = "FILE")]
    screenshot: Option<PathBuf>,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// The rest of a view, as the window's `Copy link` writes it.
#[derive(clap::Args, Debug)]
struct PlaceArgs {
    /// Show this VM, by its number in `mmuscope summary`
    #[arg(long, value_name = "N")]
    vm: Option<u16>,
    /// Show this address space: 0 is the normal one, 1 is SMM
    #[arg(long, value_name = "N")]
    as_id: Option<u8>,
    /// Show the time from this moment on
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<u64>,
    /// Show the time up to this moment
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<u64>,
    /// Show these guest frames (hex)
    #[arg(long, value_name = "FIRST-LAST")]
    frames: Option<Frames>,
    /// Put cursor A here; given twice, the second is cursor B
    #[arg(long, value_name = "TIME", value_parser = moment)]
    cursor: Vec<u64>,
    /// Filter the table of events
    #[arg(long = "where", value_name = "EXPR")]
    filter: Option<String>,
    /// Open this table
    #[arg(long, value_name = "NAME", value_parser = ["events", "findings", "life", "spans", "tree", "a-to-b", "huge", "layout", "recording", "notes"])]
    tab: Option<String>,
    /// Limit the tables, as a copied link does: words of time=FROM-TO (ns), frames=VM/AS_ID/FIRST-LAST, tid=N; repeated, each narrows the one before
    #[arg(long, value_name = "WORDS")]
    scope: Vec<String>,
}

impl PlaceArgs {
    fn place(&self, decimal: DecimalArg) -> Result<Place> {
        if self.cursor.len() > 2 {
            bail!("--cursor is given {} times: there are only two cursors, A and B", self.cursor.len());
        }
        let time = (self.from.is_some() || self.to.is_some())
            .then(|| (self.from.unwrap_or(0), self.to.unwrap_or(u64::MAX)));
        Ok(Place {
            vm: self.vm,
            as_id: self.as_id,
            time,
            frames: decimal.maybe(self.frames.as_ref())?,
            cursors: self.cursor.clone(),
            filter: self.filter.clone(),
            tab: self.tab.clone(),
            scopes: self.scope.clone(),
        })
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Theme {
    System,
    Dark,
    Light,
}

/// Reads a moment as nanoseconds since the first event; the viewer takes a time after the end of the trace for the end.
fn moment(s: &str) -> Result<u64, String> {
    match s {
        "start" => Ok(0),
        "end" => Ok(u64::MAX),
        _ => mmuscope_units::time(s).map_err(|e| e.to_string()),
    }
}

/// Reads a length of time with or without a minus, in nanoseconds.
fn shift(s: &str) -> Result<i64, String> {
    let (sign, length) = s.strip_prefix('-').map_or((1, s), |rest| (-1, rest));
    let ns = mmuscope_units::time(length).map_err(|e| e.to_string())?;
    i64::try_from(ns).map(|ns| sign * ns).map_err(|_| format!("{s} is longer than any trace"))
}

/// What `mmuscope doctor` prints.
fn doctor() -> String {
    let report = mmuscope_collector::doctor::examine();
    format!("{report}{}", report.verdict())
}

/// Writes events to a file, as `mmuscope events -o FILE` does: its ending decides the format. Without one that it knows, it is CSV.
fn write_events(trace: &Trace, timeline: &Timeline, rows: &[u32], path: &Path) -> Result<(), String> {
    let write = || -> Result<()> {
        let ending = path.extension().and_then(|e| e.to_str());
        let format = ending.and_then(Format::of_ending).unwrap_or(Format::Csv);
        let out = BufWriter::new(File::create(path)?);
        let mut writer = TableWriter::new(&EVENTS, format, WriteOptions::default(), out)?;
        let mut chunk = Rows::new(&EVENTS);
        let start = timeline.range().0;
        for ix in rows {
            let e = trace.events.get(*ix as usize);
            events::push(&mut chunk, u64::from(*ix), &e, &trace.strings, timeline.attribution(), start);
            if chunk.is_full() {
                writer.write(&chunk.take())?;
            }
        }
        writer.write(&chunk.take())?;
        writer.finish()?.flush()?;
        Ok(())
    };
    write().map_err(|e| format!("{e:#}"))
}

/// The figure of an address space, as the report has it.
fn figure(trace: &Trace, timeline: &Timeline, vm: u16, as_id: u8) -> Option<String> {
    let options = Options { vms: usize::MAX, pages: 0, ..Options::default() };
    render_svg(&Report::new(trace, timeline, &options), vm, as_id)
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let input = match a.files.as_slice() {
        [] => Input::Nothing,
        [one] if is_stdin(one) => Input::Stdin,
        files if files.iter().any(|f| is_stdin(f)) => {
            bail!("standard input is a trace of its own: it cannot be one of several files")
        }
        files => Input::Files(files.to_vec()),
    };
    let theme = a.theme.map(|t| match t {
        Theme::System => ThemeChoice::System,
        Theme::Dark => ThemeChoice::Dark,
        Theme::Light => ThemeChoice::Light,
    });
    mmuscope_ui::run(ViewOptions {
        input,
        follow: a.follow,
        layout: LayoutOverride { spec: a.layout.spec()? },
        at: a.at,
        gfn: a.decimal.maybe(a.gfn.as_ref())?.map(|(first, _)| first),
        place: a.place.place(a.decimal)?,
        beside: a.beside.clone(),
        shift: a.shift.unwrap_or(0),
        screenshot: a.screenshot.clone(),
        theme,
        doctor: Some(doctor),
        recorder: std::env::current_exe().ok().map(|exe| {
            let words = [exe.display().to_string().as_str(), "record", "-o", "-"].map(str::to_owned);
            words.to_vec()
        }),
        record_to: None,
        write_events: Some(write_events),
        figure: Some(figure),
    })?;
    Ok(Outcome::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mmuscope_replay::{ReplayOptions, load};
    use mmuscope_trace::ReadOptions;

    /// What the viewer saves holds the events that were asked for, in the format of the file's ending.
    #[test]
    fn events_are_written_in_the_format_of_the_ending() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/linux-boot/trace.dat");
        let (trace, timeline) =
            load(&[sample], &ReadOptions::default(), &ReplayOptions::default(), None).expect("a sample");
        let dir = tempfile::tempdir().expect("a folder");
        let written = |name: &str| {
            let path = dir.path().join(name);
            write_events(&trace, &timeline, &[3, 5, 8], &path).expect("a new file");
            std::fs::read(&path).expect("it was written")
        };
        let csv = String::from_utf8(written("events.csv")).expect("text");
        assert_eq!(csv.lines().count(), 4, "{csv}");
        assert!(csv.lines().next().is_some_and(|names| names.contains("event_id")), "{csv}");
        assert_eq!(String::from_utf8(written("no-ending")).expect("text"), csv);
        assert_eq!(String::from_utf8(written("events.jsonl")).expect("text").lines().count(), 3);
        let parquet = written("events.parquet");
        assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
        assert!(written("events.arrow").starts_with(b"ARROW1"));
    }
}

//! Writes part of a trace as a seed for the fuzz target `events`: `seed TRACE LAYOUT FIRST COUNT > fuzz/corpus/events/NAME`. TRACE may be a text
//! in the fixture language, whose name then ends in `.fixture`. `seed TRACE LAYOUT FIRST COUNT PIECES > fuzz/corpus/pieces/NAME` writes a seed for the
//! target `pieces`, with as many of the trace's pieces of snapshots.

use mmuscope_fuzzing::{Head, LAYOUTS, Scenario, input};
use mmuscope_trace::snapshot::Piece;
use mmuscope_trace::{ReadOptions, Trace};
use std::error::Error;
use std::io::Write as _;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wanted = args.get(4).map(|n| n.parse()).transpose()?;
    let Some([file, layout, first, count]) = args.get(..4.min(args.len())).filter(|_| args.len() <= 5) else {
        return Err("usage: seed TRACE LAYOUT FIRST COUNT [PIECES]".into());
    };
    let trace = if file.ends_with(".fixture") {
        mmuscope_testing::fixture::trace(&std::fs::read_to_string(file)?)?
    } else {
        Trace::load(&[file.into()], &ReadOptions::default())?
    };
    let layout = LAYOUTS
        .iter()
        .position(|l| l == layout)
        .ok_or_else(|| format!("the layouts are {}", LAYOUTS.join(", ")))?;
    let head = Head { layout: layout as u8, ..Head::default() };
    let events = trace.events.iter().skip(first.parse()?).take(count.parse()?);
    let scenario = Scenario::of(head, events);
    let bytes = match wanted {
        None => scenario.bytes(),
        Some(n) => {
            let all: Vec<Piece> = trace.info.snapshots.iter().take(n).map(|p| Piece::clone(p)).collect();
            input(&scenario, &all)
        }
    };
    std::io::stdout().write_all(&bytes)?;
    Ok(())
}

//! Writes part of a trace as a seed for the fuzz target `events`: `seed TRACE LAYOUT FIRST COUNT > fuzz/corpus/events/NAME`. TRACE may be a text
//! in the fixture language, whose name then ends in `.fixture`.

use mmuscope_fuzzing::{Head, LAYOUTS, Scenario};
use mmuscope_trace::{ReadOptions, Trace};
use std::error::Error;
use std::io::Write as _;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, layout, first, count] = args.as_slice() else {
        return Err("usage: seed TRACE LAYOUT FIRST COUNT".into());
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
    std::io::stdout().write_all(&Scenario::of(head, events).bytes())?;
    Ok(())
}

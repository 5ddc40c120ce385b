//! A recording from start to end. The main function is [`record`].

mod flight;
mod plan;
mod probed;
pub(crate) mod rings;
mod run;
mod shots;
mod size;
mod status;
mod summary;
mod whole;

use crate::sys::Signals;
use crate::{Error, Output, RecordOptions};

pub use summary::{Ended, EventCount, Summary};

/// Records until the command, the time, the size or the user ends it.
pub fn record(options: &RecordOptions) -> Result<Summary, Error> {
    if options.flight && options.output == Output::Stdout {
        return Err(Error::Usage(
            "--flight writes several captures: give it a file name (-o NAME), not -".into(),
        ));
    }
    if options.trigger.is_some() && !options.flight {
        return Err(Error::Usage("--trigger belongs to the flight recorder: add --flight".into()));
    }
    // Signals are blocked before anything else and before any thread starts: an early one waits, and no other thread gets it.
    let signals = Signals::new().map_err(|source| Error::System { what: "blocking signals", source })?;
    let recorder = plan::prepare(options)?;
    if options.flight { flight::run(recorder, signals) } else { run::run(recorder, signals) }
}

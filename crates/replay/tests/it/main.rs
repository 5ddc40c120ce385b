//! The replay from outside. One program, so that a sample is read and replayed once for all tests that ask for it, and linked once.

mod faults;
mod fixtures;
mod gone;
mod late;
mod made;
mod memslots;
mod model;
mod new_kernel;
mod oracle;
mod probes;
mod reading;
mod recorded;
mod replayed;
mod rows;
mod samples;
mod silent;
mod snapshot;
mod stories;
mod whose;

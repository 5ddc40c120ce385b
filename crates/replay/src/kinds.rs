//! A small number for each kind of event, by which the store keeps what every event was ([`kind_of`]). The engine asks for it as it counts events,
//! and sums and the rules about what was recorded use it. The schema of events in the trace crate has the kinds, their names and classes; nothing
//! here says what an event means.

use mmuscope_trace::{Body, Class, Kind};

/// The number of kinds.
pub(crate) const COUNT: usize = Kind::COUNT;

/// A small number for each kind of event; 0 for what has no typed form.
#[inline]
pub(crate) fn kind_of(b: &Body) -> u8 {
    b.kind() as u8
}

/// The number and the name of each kind that has a typed form.
pub(crate) fn kinds() -> impl Iterator<Item = (u8, &'static str)> {
    Kind::ALL.iter().filter(|k| **k != Kind::Other).map(|k| (*k as u8, k.name()))
}

/// The numbers of the kinds of a class.
pub(crate) fn of_class(class: Class) -> impl Iterator<Item = u8> {
    Kind::ALL.iter().filter(move |k| k.class() == class).map(|k| *k as u8)
}

/// Name of a kind by its number; `other` for what has no typed form.
pub(crate) fn name_of(kind: u8) -> &'static str {
    Kind::ALL.get(usize::from(kind)).map_or("other", |k| k.name())
}

/// Number of a kind by its name.
pub(crate) fn kind_by_name(name: &str) -> Option<u8> {
    kinds().find(|k| k.1 == name).map(|k| k.0)
}

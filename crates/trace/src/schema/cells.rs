//! How the fields of an event are shown in the table of events. The main types are [`Cell`] and [`Shown`], how the types of fields become cells.

use super::values::{ErrorEncoding, FastPfResult, Isa, Page, Role, StrId};
use crate::exits;

/// The content of a cell of the table of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The event does not have it, or the trace does not say it.
    Null,
    /// A number.
    Number(u64),
    /// A number that may be negative.
    Signed(i32),
    /// Yes or no.
    Flag(bool),
    /// One of the kernel's, or mmuscope's, words.
    Word(&'static str),
    /// Words that were put together.
    Text(String),
    /// A string of the trace: see [`Strings::text`](crate::Strings::text).
    Str(StrId),
}

macro_rules! cell {
    ($($t:ty => $v:ident),*) => { $(
        impl From<$t> for Cell {
            #[inline]
            fn from(v: $t) -> Self {
                Self::$v(v.into())
            }
        }
        impl Shown for $t {
            #[inline]
            fn cells(self, set: &mut impl FnMut(Cell)) {
                set(self.into());
            }
        }
    )* };
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    #[inline]
    fn from(v: Option<T>) -> Self {
        v.map_or(Self::Null, Into::into)
    }
}

/// A type of field that fills one column, or several.
pub(crate) trait Shown: Sized {
    /// Adds the names of its columns; `own` is the one that the entry names.
    fn columns(own: &'static str, to: &mut Vec<&'static str>) {
        to.push(own);
    }
    /// Gives the cells of its columns.
    fn cells(self, set: &mut impl FnMut(Cell));
}

cell! { u64 => Number, u32 => Number, u8 => Number, i32 => Signed, bool => Flag, &'static str => Word, String => Text, StrId => Str }

impl<T: Shown + Into<Cell>> Shown for Option<T> {
    #[inline]
    fn cells(self, set: &mut impl FnMut(Cell)) {
        set(self.into());
    }
}

impl Shown for ErrorEncoding {
    fn cells(self, set: &mut impl FnMut(Cell)) {
        set(Cell::Word(match self {
            Self::EptQualification => "ept",
            Self::NestedPageFault => "npf",
            Self::PageFault => "pf",
            Self::Ambiguous => "ambiguous",
        }));
    }
}

impl Shown for FastPfResult {
    fn cells(self, set: &mut impl FnMut(Cell)) {
        set(match self {
            Self::Invalid => Cell::Word("invalid"),
            Self::Fixed => Cell::Word("fixed"),
            Self::Spurious => Cell::Word("spurious"),
            Self::Retry => Cell::Word("retry"),
            Self::Emulate => Cell::Word("emulate"),
            Self::Other(n) => Cell::Text(n.to_string()),
        });
    }
}

impl Shown for Page {
    fn columns(_: &'static str, to: &mut Vec<&'static str>) {
        to.extend(["level", "role", "role_word", "unsync", "root_count", "mmu_valid_gen"]);
    }
    fn cells(self, set: &mut impl FnMut(Cell)) {
        set(self.role.level.into());
        set(role(&self.role).into());
        set(self.role.raw.into());
        set(self.unsync.into());
        set(self.root_count.into());
        set(self.mmu_valid_gen.into());
    }
}

/// A role in words, in the kernel's terms.
fn role(r: &Role) -> String {
    let mut words: Vec<String> = Vec::new();
    if r.direct {
        words.push("direct".into());
    }
    if let Some(bytes) = r.gpte_bytes {
        words.push(format!("{bytes}-byte"));
    }
    if r.quadrant != 0 {
        words.push(format!("q{}", r.quadrant));
    }
    let letter = |on: bool, l: char| if on { l } else { '-' };
    words.push([letter(r.w, 'w'), letter(r.u, 'u'), letter(r.x, 'x')].iter().collect());
    let flags = [
        (r.invalid, "invalid"),
        (r.nxe == Some(true), "nxe"),
        (r.ad_disabled, "ad_disabled"),
        (r.guest_mode == Some(true), "guest_mode"),
        (r.smm == Some(true), "smm"),
        (r.mirror == Some(true), "mirror"),
    ];
    words.extend(flags.iter().filter(|(on, _)| *on).map(|(_, w)| (*w).to_string()));
    words.join(" ")
}

/// The name of an exit reason: by its number where that has one, else the name in the text.
pub(super) fn exit_word(reason: Option<u32>, isa: Option<Isa>, said: StrId) -> Cell {
    match reason.zip(isa).and_then(|(r, isa)| exits::name(isa, r)) {
        Some(name) => Cell::Word(name),
        None if said != StrId::default() => Cell::Str(said),
        None => Cell::Null,
    }
}

pub(super) fn isa_word(isa: Option<Isa>) -> Cell {
    match isa {
        Some(Isa::Vmx) => Cell::Word("vmx"),
        Some(Isa::Svm) => Cell::Word("svm"),
        Some(Isa::Other(n)) => Cell::Text(n.to_string()),
        None => Cell::Null,
    }
}

pub(super) fn mmio_kind(kind: u32) -> &'static str {
    match kind {
        0 => "unsatisfied-read",
        1 => "read",
        2 => "write",
        _ => "unknown",
    }
}

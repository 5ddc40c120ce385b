//! The macro that makes everything there is to know about events from their entries. [`gather!`] collects the entries of all files, and
//! [`schema!`] has the grammar of an entry and what is made of it; the module page of `schema` explains an entry by an example.

/// Appends the entries of the named files to what was gathered, and makes the schema of all of them.
macro_rules! gather {
    ([] $($all:tt)*) => { schema! { $($all)* } };
    ([$file:ident $($more:ident)*] $($all:tt)*) => { $file! { [$($more)*] $($all)* } };
}

/// The value of a field from a source of named fields.
macro_rules! from_fields {
    // `by function(fields before it)`: the function asks for what it needs.
    ($in:ident, $second:ident, $f:ident, $t:ty, by $function:ident($($arg:ident),*)) => { sources::$function(&mut $in $(, $arg)*)? };
    // `second`: whether the event has the second of its two names.
    ($in:ident, $second:ident, $f:ident, $t:ty, second) => { $second };
    // A pointer, which a text may have hashed.
    ($in:ident, $second:ident, $f:ident, $t:ty, pointer) => { Read::read($in.fields.ptr(stringify!($f)))? };
    // The kernel's own name is another one, or the field was renamed; `decimal` after a name: the kernel prints it in decimal.
    ($in:ident, $second:ident, $f:ident, $t:ty, required $($source:tt)+) => { Read::read(Some(from_fields!(@any $in, $t, $($source)+)?))? };
    ($in:ident, $second:ident, $f:ident, $t:ty, or $default:literal) => {
        Read::read(Some($in.fields.num(stringify!($f), <$t as Read>::BASE).unwrap_or($default)))?
    };
    ($in:ident, $second:ident, $f:ident, $t:ty, decimal) => { Read::read($in.fields.num(stringify!($f), Base::Decimal))? };
    ($in:ident, $second:ident, $f:ident, $t:ty, ) => { Read::read($in.fields.num(stringify!($f), <$t as Read>::BASE))? };
    ($in:ident, $second:ident, $f:ident, $t:ty, $($source:tt)+) => { Read::read(from_fields!(@any $in, $t, $($source)+))? };
    (@any $in:ident, $t:ty, $name:literal $(| $more:tt $($dec:ident)?)*) => {
        $in.fields.num($name, <$t as Read>::BASE)$(.or_else(|| from_fields!(@any $in, $t, $more $($dec)?)))*
    };
    (@any $in:ident, $t:ty, $name:literal decimal $(| $more:tt $($dec:ident)?)*) => {
        $in.fields.num($name, Base::Decimal)$(.or_else(|| from_fields!(@any $in, $t, $more $($dec)?)))*
    };
}

/// The kernel's names of a field, as far as the entry says them.
macro_rules! kernel_names {
    ($f:ident, by $($rest:tt)*) => { &[] };
    ($f:ident, second) => { &[] };
    ($f:ident, required $($rest:tt)+) => { kernel_names!($f, $($rest)+) };
    ($f:ident, $name:literal $($dec:ident)? $(| $more:literal $($more_dec:ident)?)*) => { &[$name $(, $more)*] };
    ($f:ident, $($rest:tt)*) => { &[stringify!($f)] };
}

/// Reads what a pattern says, piece by piece, and binds the fields.
macro_rules! pattern {
    ($s:ident, $cx:ident;) => {};
    // What the kernel prints literally. Blanks before it are skipped, however many there are.
    ($s:ident, $cx:ident; $word:literal $($rest:tt)*) => {
        $s.key(const { $word.as_bytes().trim_ascii_start() })?;
        pattern!($s, $cx; $($rest)*);
    };
    // Everything up to a word, and the word.
    ($s:ident, $cx:ident; .. $word:literal $($rest:tt)*) => {
        $s.until($word.as_bytes())?;
        pattern!($s, $cx; $($rest)*);
    };
    ($s:ident, $cx:ident; {$f:ident: $how:ident} $($rest:tt)*) => {
        let $f = text::$how(&mut $s, $cx)?;
        pattern!($s, $cx; $($rest)*);
    };
    // One reader for several fields, or one that needs fields before it.
    ($s:ident, $cx:ident; {$f:ident $(, $more:ident)*: $how:ident $(($($arg:ident),*))?} $($rest:tt)*) => {
        let ($f, $($more),*) = text::$how(&mut $s, $cx $($(, $arg)*)?)?;
        pattern!($s, $cx; $($rest)*);
    };
    // A part that is there or not, as its first word is. Fields that are not there are absent, or 0.
    ($s:ident, $cx:ident; [$word:literal $({$f:ident: $how:ident} $($next:literal)?)*] $($rest:tt)*) => {
        $( let mut $f = Default::default(); )*
        if $s.key(const { $word.as_bytes().trim_ascii_start() }).is_some() {
            $(
                $f = text::$how(&mut $s, $cx)?;
                $( $s.key(const { $next.as_bytes().trim_ascii_start() })?; )?
            )*
        }
        pattern!($s, $cx; $($rest)*);
    };
}

/// Reads the first of several patterns that a text has, and makes the body of it.
macro_rules! read_text {
    ($s:ident, $cx:ident, $body:tt [$($text:tt)*]) => {{
        let mut $s = $s;
        pattern!($s, $cx; $($text)*);
        Some $body
    }};
    ($s:ident, $cx:ident, $body:tt [$($text:tt)*] $($more:tt)+) => {{
        let read = |mut $s: Scan<'_>, $cx: &mut Texts<'_>| -> Option<Body> {
            pattern!($s, $cx; $($text)*);
            Some $body
        };
        let body = read($s, $cx);
        if body.is_some() { body } else { read_text!($s, $cx, $body $($more)+) }
    }};
}

/// Makes of all entries: [`Body`], [`Kind`], [`TRACEPOINTS`], the packed form, and the readers of fields and texts.
macro_rules! schema {
    (
        notes {
            $( $(#[$note_doc:meta])* $note:ident $note_name:literal: $note_class:ident { $( $nf:ident: $nt:ty ),* } )*
        }
        $(
            $(#[$doc:meta])*
            $id:ident {
                tracepoint: $system:ident $name:literal $(| $alias:literal)*
                    $(, $second:literal $(| $second_alias:literal)* if $flag:ident)?;
                $( series: $series:literal; )?
                class: $class:ident;
                $( midway: $midway:literal; )?
                record: [$($set:ident),*];
                fields: { $( $f:ident: $t:ty $(= [$($source:tt)*])? $(=> $column:ident)?; )* }
                $( columns: { $( $also:ident: $cell:expr; )* } )?
                $( frames: { $( gfn: $gfn:expr; )? $( covers: $covers:expr; )? $( names: $names:expr; )? } )?
                $( text: [$($text:tt)*]; )+
                example: $example:literal;
            }
        )*
    ) => {
        /// What a tracepoint recorded. Names and meanings are the kernel's (`include/trace/events/kvm.h`, `arch/x86/kvm/mmu/mmutrace.h`,
        /// `arch/x86/kvm/trace.h`).
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "the fields are the tracepoints' own; each variant says what needs saying")]
        pub enum Body {
            $( $(#[$doc])* $id { $( $f: $t ),* }, )*
            $( $(#[$note_doc])* $note { $( $nf: $nt ),* }, )*
        }

        /// The variants of [`Body`] without their fields. Their numbers begin with 0 for [`Body::Other`]; they may change from one version of
        /// mmuscope to the next.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Kind {
            $( $(#[$note_doc])* $note, )*
            $( $(#[$doc])* $id, )*
        }

        impl Kind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &[Self] = &[$( Self::$note, )* $( Self::$id, )*];

            /// The word for it in counts and series. It is the name of the tracepoint where the kind has only one.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$note => $note_name, )*
                    $( Self::$id => or_else!($name $(, $series)?), )*
                }
            }

            /// What such an event is about.
            pub const fn class(self) -> Class {
                match self {
                    $( Self::$note => Class::$note_class, )*
                    $( Self::$id => Class::$class, )*
                }
            }

            /// Whether it comes in the middle of what its thread does to page tables: unlike other events, it does not show that this is over.
            pub const fn is_midway(self) -> bool {
                match self {
                    $( $( Self::$id => $midway, )? )*
                    _ => false,
                }
            }

            /// Whether [`Body::frames`] may name guest frames for it.
            pub const fn names_frames(self) -> bool {
                match self {
                    $( $( $( Self::$id => { let _ = stringify!($names); true } )? )? )*
                    _ => false,
                }
            }

            /// The columns of the table of events that [`Body::cells`] fills, in its order.
            pub fn columns(self) -> Vec<&'static str> {
                let mut to = Vec::new();
                match self {
                    $( Self::$note => {} )*
                    $( Self::$id => {
                        $( $( <$t as Shown>::columns(stringify!($column), &mut to); )? )*
                        $( $( to.push(stringify!($also)); )* )?
                    } )*
                }
                to
            }

            /// The number of words of its packed form.
            pub(crate) const fn words(self) -> usize {
                match self {
                    $( Self::$note => 0 $( + <$nt as Field>::N )*, )*
                    $( Self::$id => 0 $( + <$t as Field>::N )*, )*
                }
            }
        }

        /// A tracepoint, as a reader of names knows it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) struct Tp {
            pub(crate) kind: Kind,
            /// It is the second of the two tracepoints that the kind has.
            pub(crate) second: bool,
        }

        /// What the schema says of the tracepoints of one [`Kind`].
        #[derive(Clone, Copy, Debug)]
        pub struct Tracepoint {
            /// The kind of body that it is read into.
            pub kind: Kind,
            /// Its system: `kvmmmu`, `kvm`, or another one.
            pub system: &'static str,
            /// Its names, with those that old kernels have for it.
            pub names: &'static [&'static str],
            /// The collector's sets that it belongs to, besides `all`.
            pub sets: &'static [&'static str],
            /// Its fields.
            pub fields: &'static [TracepointField],
            /// The text of such an event, as a kernel printed it.
            pub example: &'static str,
        }

        /// All tracepoints that have a typed body.
        pub static TRACEPOINTS: &[Tracepoint] = &[$(
            Tracepoint {
                kind: Kind::$id,
                system: stringify!($system),
                names: &[$name $(, $alias)* $(, $second $(, $second_alias)*)?],
                sets: &[$(stringify!($set)),*],
                fields: &[$(
                    TracepointField {
                        name: stringify!($f),
                        kernel: kernel_names!($f, $($($source)*)?),
                        column: or_else!(None $(, Some(stringify!($column)))?),
                    }
                ),*],
                example: $example,
            },
        )*];

        /// The tracepoint of this name (without its system).
        pub(crate) fn tracepoint(name: &[u8]) -> Option<Tp> {
            // The compiler makes this a comparison of lengths first, then of bytes.
            $(
                if name == $name.as_bytes() $( || name == $alias.as_bytes() )* {
                    return Some(Tp { kind: Kind::$id, second: false });
                }
                $(
                    if name == $second.as_bytes() $( || name == $second_alias.as_bytes() )* {
                        return Some(Tp { kind: Kind::$id, second: true });
                    }
                )?
            )*
            None
        }

        /// The kernel's newest name of a body's tracepoint; `None` for what is no tracepoint.
        pub(crate) fn newest_name(body: &Body) -> Option<&'static str> {
            match body {
                $(
                    $( Body::$id { $flag: true, .. } => Some($second), )?
                    Body::$id { .. } => Some($name),
                )*
                _ => None,
            }
        }

        impl Body {
            /// Which variant it is.
            #[inline]
            pub const fn kind(&self) -> Kind {
                match self {
                    $( Self::$note { .. } => Kind::$note, )*
                    $( Self::$id { .. } => Kind::$id, )*
                }
            }

            /// Gives the cells of its [`Kind::columns`], one for each.
            #[allow(unused_variables, reason = "an entry need not use all of its fields")]
            pub fn cells(&self, set: &mut impl FnMut(Cell)) {
                match *self {
                    $( Self::$id { $($f),* } => {
                        $( $( let _ = stringify!($column); Shown::cells($f, set); )? )*
                        $( $( set(Cell::from($cell)); )* )?
                    } )*
                    _ => {}
                }
            }

            /// The guest frame number that an event names, or that its guest-physical address lies in.
            #[allow(unused_variables, reason = "an entry need not use all of its fields")]
            pub fn gfn(&self) -> Option<u64> {
                match *self {
                    $( Self::$id { $($f),* } => or_else!(None $( $( , Option::from($gfn) )? )?), )*
                    _ => None,
                }
            }

            /// The first and one past the last of the guest frames that an event covers. An entry of level 2 covers 512 frames.
            #[allow(unused_variables, reason = "an entry need not use all of its fields")]
            pub fn covers(&self) -> Option<(u64, u64)> {
                match *self {
                    $( Self::$id { $($f),* } => or_else!(self.gfn().map(one) $( $( , Option::from($covers) )? )?), )*
                    _ => None,
                }
            }

            /// The first and one past the last of the guest frames that an event names in the story of a page: by itself, or by an entry,
            /// a table or a range that they are in.
            #[allow(unused_variables, reason = "an entry need not use all of its fields")]
            pub fn frames(&self) -> Option<(u64, u64)> {
                match *self {
                    $( Self::$id { $($f),* } => or_else!(None $( $( , Option::from($names) )? )?), )*
                    _ => None,
                }
            }
        }

        /// Converts a body to words and returns its kind.
        #[inline]
        pub(crate) fn flatten(body: &Body, w: &mut Words) -> Kind {
            w.n = 0;
            match *body {
                $( Body::$id { $($f),* } => { $( Field::put($f, w); )* Kind::$id } )*
                $( Body::$note { $($nf),* } => { $( Field::put($nf, w); )* Kind::$note } )*
            }
        }

        /// Converts words to the body of this kind.
        #[inline]
        pub(crate) fn unflatten(kind: u8, w: &mut Words) -> Body {
            w.n = 0;
            match kind {
                $( k if k == Kind::$id as u8 => Body::$id { $($f: <$t as Field>::take(w)),* }, )*
                $( k if k == Kind::$note as u8 => Body::$note { $($nf: <$nt as Field>::take(w)),* }, )*
                _ => Body::Damage { index: u32::MAX },
            }
        }

        /// Makes the body of a tracepoint from its fields; `None` where a required field is missing.
        #[allow(unused_variables, unused_mut, reason = "not every body needs all")]
        pub(crate) fn from_fields(tp: Tp, fields: &mut impl Fields, meaning: &Meaning, names: &mut impl Names) -> Option<Body> {
            let second = tp.second;
            let mut input = Input { fields, meaning, names };
            Some(match tp.kind {
                $( Kind::$id => {
                    $( let $f: $t = from_fields!(input, second, $f, $t, $($($source)*)?); )*
                    Body::$id { $($f),* }
                } )*
                _ => return None,
            })
        }

        /// Reads the body of a tracepoint from the kernel's text, or libtraceevent's; `None` if the text has none of the known forms.
        #[allow(unused_mut, unused_variables, unused_assignments, reason = "not every pattern needs all")]
        pub(crate) fn from_text(tp: Tp, s: Scan<'_>, cx: &mut Texts<'_>) -> Option<Body> {
            let second = tp.second;
            match tp.kind {
                $( Kind::$id => {
                    $( let $flag = second; )?
                    read_text!(s, cx, (Body::$id { $($f),* }) $( [$($text)*] )+)
                } )*
                _ => None,
            }
        }
    };
}

/// The second of two, where it is there.
macro_rules! or_else {
    ($first:expr) => {
        $first
    };
    ($first:expr, $second:expr) => {
        $second
    };
}

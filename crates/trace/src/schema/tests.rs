//! Checks of every entry: its text, its fields, its packed form, its columns; and that a made-up tracepoint is one entry.

use super::*;
use crate::schema::text::Gaps;

/// A source that has every field, with a number for each name.
struct All;

impl Fields for All {
    fn num(&mut self, name: &'static str, _: Base) -> Option<u64> {
        // `u` is a letter, and levels are small.
        Some(if name == "u" { 1 } else { 1 + name.len() as u64 })
    }
    fn text(&mut self, _: &'static str) -> Option<String> {
        Some("a text\n".to_owned())
    }
}

/// A source that has every field but one.
struct Without(&'static str);

impl Fields for Without {
    fn num(&mut self, name: &'static str, base: Base) -> Option<u64> {
        All.num(name, base).filter(|_| name != self.0)
    }
    fn text(&mut self, name: &'static str) -> Option<String> {
        All.text(name).filter(|_| name != self.0)
    }
}

fn read(tp: Tp, text: &str) -> Option<Body> {
    let (mut strings, mut gaps) = (Strings::default(), Gaps::default());
    from_text(tp, Scan(text.as_bytes()), &mut Texts { strings: &mut strings, gaps: &mut gaps })
}

fn cells(body: &Body) -> Vec<Cell> {
    let mut out = Vec::new();
    body.cells(&mut |cell| out.push(cell));
    out
}

fn repacked(body: &Body) -> Body {
    let mut words = Words::default();
    let kind = flatten(body, &mut words);
    assert_eq!((words.n, kind), (kind.words(), body.kind()), "{body:?}");
    unflatten(kind as u8, &mut words)
}

#[test]
fn names_lead_to_their_entry_and_back() {
    for t in TRACEPOINTS {
        for name in t.names {
            let tp = tracepoint(name.as_bytes()).unwrap_or_else(|| panic!("{name} has an entry"));
            assert_eq!(tp.kind, t.kind, "{name}: only one entry has it");
            assert_eq!(Tracepoint::find(name).map(|t| t.kind), Some(t.kind));
        }
        let first = tracepoint(t.names[0].as_bytes()).expect("an entry");
        assert!(!first.second, "{}", t.names[0]);
        let body = from_fields(first, &mut All, &Meaning::default(), &mut Strings::default());
        let newest = body.as_ref().and_then(newest_name);
        assert_eq!(newest, Some(t.names[0]), "the first name is the one that is shown");
    }
    let notes = Kind::ALL.iter().filter(|k| matches!(k.class(), Class::Note | Class::Untyped)).count();
    assert_eq!(Kind::ALL.len(), TRACEPOINTS.len() + notes, "only notes have no tracepoint");
    for (n, kind) in Kind::ALL.iter().enumerate() {
        assert_eq!(usize::from(*kind as u8), n, "{kind:?}");
        assert_eq!(Kind::ALL.iter().filter(|k| k.name() == kind.name()).count(), 1, "{kind:?}");
    }
}

/// The example is a kernel's text: every number that it is read into stands in it.
#[test]
fn every_example_is_read_into_what_it_says() {
    for t in TRACEPOINTS {
        let tp = tracepoint(t.names[0].as_bytes()).expect("an entry");
        let body = read(tp, t.example).unwrap_or_else(|| panic!("{}: `{}`", t.names[0], t.example));
        assert_eq!(body.kind(), t.kind);
        let said: Vec<&str> =
            t.example.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
        let says = |n: u64| {
            said.iter().any(|w| {
                let hex = u64::from_str_radix(w.trim_start_matches("0x"), 16) == Ok(n);
                hex || w.parse() == Ok(n) || w.strip_prefix(['l', 'q']).is_some_and(|w| w.parse() == Ok(n))
            })
        };
        for (column, cell) in t.kind.columns().iter().zip(cells(&body)) {
            match cell {
                // Names and letters in the text are numbers in the body.
                Cell::Number(_) if matches!(*column, "reason" | "error_code" | "mmu_valid_gen") => {}
                Cell::Number(n) => assert!(says(n), "{}: {column} {n:#x}: `{}`", t.names[0], t.example),
                _ => {}
            }
        }
        if let Some(gfn) = body.gfn() {
            assert!(says(gfn) || says(gfn << 12), "{}: gfn {gfn:#x}", t.names[0]);
        }
        // Words that nothing follows are no event.
        assert!(t.kind == Kind::Marker || read(tp, "").is_none_or(|b| b.kind() == Kind::NestedVmenter));
    }
}

#[test]
fn every_entry_survives_packing() {
    for t in TRACEPOINTS {
        for name in t.names {
            let tp = tracepoint(name.as_bytes()).expect("an entry");
            let mut strings = Strings::default();
            let body = from_fields(tp, &mut All, &Meaning::default(), &mut strings);
            let body = body.unwrap_or_else(|| panic!("{name} is read from its fields"));
            assert_eq!(repacked(&body), body, "{name}");
            let body = read(tp, t.example).expect("an example");
            // The encoding of a page fault is not in its words, and a text does not say it either.
            assert_eq!(repacked(&body), body, "{name}");
        }
    }
}

/// An entry's fields are those that its body is made of: without a required one there is no body, and without another one it is absent.
#[test]
fn required_fields_are_required() {
    for t in TRACEPOINTS {
        let tp = tracepoint(t.names[0].as_bytes()).expect("an entry");
        let all = from_fields(tp, &mut All, &Meaning::default(), &mut Strings::default());
        for f in t.fields.iter().filter(|f| !f.kernel.is_empty()) {
            // A renamed field is there under its other name.
            if f.kernel.len() > 1 {
                continue;
            }
            let without =
                from_fields(tp, &mut Without(f.kernel[0]), &Meaning::default(), &mut Strings::default());
            assert_ne!(without, all, "{}: {} is not asked for", t.names[0], f.name);
        }
    }
    let tp = tracepoint(b"kvm_mmu_set_spte").expect("an entry");
    assert_eq!(from_fields(tp, &mut Without("sptep"), &Meaning::default(), &mut Strings::default()), None);
    let tp = tracepoint(b"kvm_exit").expect("an entry");
    assert_eq!(
        from_fields(tp, &mut Without("exit_reason"), &Meaning::default(), &mut Strings::default()),
        None
    );
}

#[test]
fn every_entry_has_columns_and_fills_each() {
    for t in TRACEPOINTS {
        let tp = tracepoint(t.names[0].as_bytes()).expect("an entry");
        let body = read(tp, t.example).expect("an example");
        let columns = t.kind.columns();
        assert_eq!(cells(&body).len(), columns.len(), "{}", t.names[0]);
        let mut once = columns.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), columns.len(), "{}: each column once: {columns:?}", t.names[0]);
        // The vCPU of an event is in the column of all events.
        let shown = |f: &TracepointField| f.column.is_some() || f.name == "vcpu" || f.name == "gfn";
        assert!(t.fields.iter().any(shown), "{}", t.names[0]);
        assert!(body.frames().is_none() || t.kind.names_frames(), "{}", t.names[0]);
        assert!(!matches!(t.kind.class(), Class::Note | Class::Untyped), "{}", t.names[0]);
    }
}

#[test]
fn the_recorders_sets_exist() {
    for t in TRACEPOINTS {
        assert!(t.sets.iter().all(|s| ["mmu", "faults", "mmio"].contains(s)), "{}: {:?}", t.names[0], t.sets);
    }
}

/// A tracepoint that no kernel has, of a system that none has: one entry makes all there is to it.
#[allow(
    unreachable_pub,
    dead_code,
    unused_imports,
    reason = "the macro makes all that the crate needs, and a test needs less"
)]
mod made_up {
    use super::super::*;
    use crate::schema::text::Gaps;

    schema! {
        notes {
            /// As in the real schema.
            Other "other": Untyped { name: StrId, fields: StrId }
            /// As in the real schema.
            Damage "damage": Note { index: u32 }
        }

        /// `probe:mmu_tea_changed` (`mmu_tea_set` in 9.0): a tea entry changed its value.
        TeaChanged {
            tracepoint: probe "mmu_tea_changed" | "mmu_tea_set", "mmu_tea_gone" if gone;
            class: Change;
            midway: true;
            record: [mmu];
            fields: {
                vcpu: u32 = ["vcpu_id" decimal];
                gfn: u64;
                level: u8 => level;
                old: u64 = ["old_tea" | "old"] => old_spte;
                new: u64 => new_spte;
                sugar: Option<u32> => access;
                gone: bool = [second] => flag;
            }
            columns: { valid: new & 1 != 0; }
            frames: { gfn: gfn; covers: covered(gfn, level); names: sized(gfn, level); }
            text: ["vcpu " {vcpu: dec} " gfn " {gfn: hex} " level " {level: dec} " " {old: hex} " -> " {new: hex} [" sugar " {sugar: hex}]];
            text: ["tea of " {vcpu: dec} " at " {gfn: hex} "/" {level: dec} " is " {new: hex} " was " {old: hex} [", sugar " {sugar: hex}]];
            example: "vcpu 1 gfn 2000 level 2 10 -> 11";
        }
    }

    struct Some3(&'static [(&'static str, u64)]);

    impl Fields for Some3 {
        fn num(&mut self, name: &'static str, _: Base) -> Option<u64> {
            self.0.iter().find(|f| f.0 == name).map(|f| f.1)
        }
        fn text(&mut self, _: &'static str) -> Option<String> {
            None
        }
    }

    fn read(tp: Tp, text: &str) -> Option<Body> {
        let (mut strings, mut gaps) = (Strings::default(), Gaps::default());
        from_text(tp, Scan(text.as_bytes()), &mut Texts { strings: &mut strings, gaps: &mut gaps })
    }

    #[test]
    fn a_made_up_tracepoint_is_one_entry() {
        let [t] = TRACEPOINTS else { panic!("one entry") };
        assert_eq!((t.system, t.names.len(), t.sets), ("probe", 3, &["mmu"][..]));
        assert_eq!(t.fields[3].kernel, ["old_tea", "old"]);
        let tp = tracepoint(b"mmu_tea_set").expect("a name of old kernels");
        assert_eq!(tp.kind.name(), "mmu_tea_changed");

        let body = read(tp, t.example).expect("the kernel's text");
        let want = Body::TeaChanged {
            vcpu: 1,
            gfn: 0x2000,
            level: 2,
            old: 0x10,
            new: 0x11,
            sugar: None,
            gone: false,
        };
        assert_eq!(body, want);
        assert_eq!(read(tp, "tea of 1 at 2000/2 is 11 was 10"), Some(want), "another form");
        assert_eq!(read(tp, "vcpu 1 gfn 2000 level 2 10 11"), None, "no known form");
        let sweet = read(tp, "vcpu 1 gfn 2000 level 2 10 -> 11 sugar 3");
        assert!(matches!(sweet, Some(Body::TeaChanged { sugar: Some(3), .. })), "{sweet:?}");

        let gone = tracepoint(b"mmu_tea_gone").expect("the second name");
        let of_old =
            [("vcpu_id", 1), ("gfn", 0x2000), ("level", 2), ("old", 0x10), ("new", 0x11), ("sugar", 5)];
        let fields = Box::leak(Box::new(of_old));
        let body = from_fields(gone, &mut Some3(fields), &Meaning::default(), &mut Strings::default());
        let body = body.expect("all fields");
        assert!(matches!(body, Body::TeaChanged { gone: true, sugar: Some(5), old: 0x10, .. }), "{body:?}");
        assert_eq!(newest_name(&body), Some("mmu_tea_gone"));
        assert_eq!(
            from_fields(gone, &mut Some3(&fields[1..]), &Meaning::default(), &mut Strings::default()),
            None
        );

        let mut words = Words::default();
        let kind = flatten(&body, &mut words);
        assert_eq!((kind, unflatten(kind as u8, &mut words)), (Kind::TeaChanged, body));

        assert_eq!(kind.columns(), ["level", "old_spte", "new_spte", "access", "flag", "valid"]);
        let mut cells = Vec::new();
        body.cells(&mut |c| cells.push(c));
        assert_eq!(cells[3..], [Cell::Number(5), Cell::Flag(true), Cell::Flag(true)]);
        assert_eq!((body.gfn(), body.covers()), (Some(0x2000), Some((0x2000, 0x2200))));
        assert_eq!((body.frames(), kind.names_frames()), (Some((0x2000, 0x2200)), true));
        assert_eq!(kind.class(), Class::Change);
        assert!(kind.is_midway());
    }
}

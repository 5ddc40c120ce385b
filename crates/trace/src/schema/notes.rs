//! What is among the events without being a tracepoint with a type. The first one has the number 0.

macro_rules! notes {
    ([$($more:ident)*] $($all:tt)*) => { gather! { [$($more)*] $($all)*
        notes {
            /// An event without a typed form: its `system:name` (or `name`), and its raw fields, which
            /// [`Strings::text`](crate::Strings::text) formats as `key=value`.
            Other "other": Untyped { name: StrId, fields: StrId }

            /// The recorder lost events on `cpu` before this moment; `count` where it is known. `event` names the event where losses are counted per event.
            Lost "lost": Note { count: Option<u64>, event: Option<StrId> }

            /// Input that could not be read was skipped here (see [`TraceInfo::damage`](crate::TraceInfo)).
            Damage "damage": Note { index: u32 }

            /// A part of what the recorder read in KVM's own memory; `index` is its place in [`TraceInfo::snapshots`](crate::TraceInfo).
            Snapshot "snapshot": Note { index: u32 }

            /// A task appeared, was renamed or ended (perf COMM/FORK/EXIT, `sched_process_*`).
            Task "task": Note { kind: TaskKind, tid: u32, pid: Option<u32>, comm: StrId }
        }
    } };
}

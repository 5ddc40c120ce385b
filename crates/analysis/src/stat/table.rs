//! The table `stat`: a row for each thing that was counted.

use super::{Kind, Row, Whose};
use crate::table::{Rows, table};
use mmuscope_trace::Isa;

table! {
    /// Exits, faults, zaps, MMIO and time, counted.
    pub Columns / STAT = "stat", lead 12, "How often something happened in a VM, or with `--by vcpu` on one of its vCPUs, and how long it took." {
        vm: Number, "number of the VM, as in `mmuscope summary`; null where nothing says which";
        vcpu: Number, "number of the vCPU, with `--by vcpu`; null in rows of a whole VM (zaps are always a VM's)";
        kind: Text, "what is counted: time, exit, vmm, fault, install, zap, zap-for, huge or mmio";
        name: Text, "what happened, as the list below explains it for each kind";
        count: Count, "how often it happened";
        total: Duration, "sum of the times of all that were measured; null where none was";
        min: Duration, "shortest time";
        mean: Duration, "mean time, in whole nanoseconds";
        p50: Duration, "median time; this and the next two are times that were measured (nearest rank)";
        p90: Duration, "90th percentile of the times";
        p99: Duration, "99th percentile of the times";
        max: Duration, "longest time";
        measured: Count, "how many of `count` have a time: beginning and end are in the trace";
        vmm: Duration, "of exits: how much of `total` was in the VMM; null where kvm_userspace_exit is not recorded";
        accesses: Count, "of mmio: accesses to the frame (an instruction can make several, a fault none); null where they are not recorded";
        gfn: Hex, "of mmio: the guest frame, where known";
        isa: Text, "of exits: instruction set of the reason, vmx or svm";
        reason: Number, "of exits: the reason's number";
        tid: Number, "with `--by vcpu`: thread of a vCPU whose number no event names";
        bytes: Count, "of huge: bytes of guest memory that the pages map; null in other rows";
    }
}

/// Adds a row.
pub fn push(rows: &mut Rows, whose: Whose, kind: Kind, row: &Row) {
    use Columns as C;
    rows.row();
    rows.set(C::vm, whose.vm);
    rows.set(C::vcpu, whose.vcpu);
    rows.set(C::kind, kind.name());
    rows.set(C::name, row.name.as_ref());
    rows.set(C::count, row.count);
    let t = &row.times;
    rows.set(C::total, (t.measured > 0).then_some(t.total));
    rows.set(C::min, t.min);
    rows.set(C::mean, t.mean());
    rows.set(C::p50, t.p50);
    rows.set(C::p90, t.p90);
    rows.set(C::p99, t.p99);
    rows.set(C::max, t.max);
    rows.set(C::measured, t.measured);
    rows.set(C::vmm, row.vmm);
    rows.set(C::accesses, row.accesses);
    rows.set(C::gfn, row.gfn);
    let isa = row.reason.and_then(|r| r.1).map(|isa| match isa {
        Isa::Vmx => "vmx".to_owned(),
        Isa::Svm => "svm".to_owned(),
        Isa::Other(n) => n.to_string(),
    });
    rows.set(C::isa, isa.as_ref());
    rows.set(C::reason, row.reason.map(|r| r.0));
    rows.set(C::tid, whose.tid);
    rows.set(C::bytes, row.bytes);
}

//! Filters that the kernel applies before an event goes into the ring. The main function is [`build`].

use mmuscope_units::ranges;

use crate::tracefs::Tracepoint;

/// The most bytes of filter text. The kernel takes one page.
const LIMIT: usize = 3500;

/// The back-end that KVM runs on this host, as far as filters depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Vmx,
    Svm,
    /// The back-end is not known (PVM and others), or both modules are loaded, so exit reasons have no known meaning.
    Other,
}

impl Backend {
    /// The back-end of the loaded modules.
    pub(crate) fn here() -> Self {
        let loaded = |m: &str| std::path::Path::new("/sys/module").join(m).exists();
        match (loaded("kvm_intel"), loaded("kvm_amd")) {
            (true, false) => Self::Vmx,
            (false, true) => Self::Svm,
            _ => Self::Other,
        }
    }
}

/// What the filters should let through.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub gfn: Option<(u64, u64)>,
    pub user: &'a [(String, String)],
    pub mmu_exits_only: bool,
    pub backend: Backend,
    /// Threads of VMs that are not recorded.
    pub not_tids: &'a [u32],
}

/// Makes the filter for one tracepoint; an empty text means no filter.
pub(crate) fn build(tp: &Tracepoint, w: &Wanted<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (name, expression) in w.user {
        if *name == tp.name || *name == tp.full_name() {
            parts.push(format!("({expression})"));
        }
    }
    if let Some((first, last)) = w.gfn {
        parts.extend(gfn(tp, first, last));
    }
    if w.mmu_exits_only && tp.name == "kvm_exit" {
        match w.backend {
            // The reasons are EXCEPTION_NMI, EPT_VIOLATION, EPT_MISCONFIG and PML_FULL.
            Backend::Vmx => parts.push(any("exit_reason", &[0, 48, 49, 62])),
            // The reasons are EXCP_PF and NPF.
            Backend::Svm => parts.push(any("exit_reason", &[0x4e, 0x400])),
            Backend::Other => {}
        }
    }
    if !w.not_tids.is_empty() {
        let room = LIMIT.saturating_sub(parts.iter().map(|p| p.len() + 2).sum());
        if let Some(p) = none_of(w.not_tids, room) {
            parts.push(p);
        }
    }
    parts.join("&&")
}

fn any(field: &str, values: &[u64]) -> String {
    let all: Vec<String> = values.iter().map(|v| format!("{field}=={v}")).collect();
    format!("({})", all.join("||"))
}

/// A filter for the frames `first..=last` in an event that names a frame or an address. It is `None` for an event that names none, and for page
/// events, which show how the tables are linked and are needed for the story of any frame.
fn gfn(tp: &Tracepoint, first: u64, last: u64) -> Option<String> {
    if tp.field("role").is_some() {
        return None;
    }
    let range = |field: &str, shift: u32| {
        format!("({field}>={:#x}&&{field}<={:#x})", first << shift, (last << shift) | ((1u64 << shift) - 1))
    };
    if tp.field("gfn").is_some() {
        if tp.field("level").is_none() {
            return Some(range("gfn", 0));
        }
        // An entry of a higher level covers the frames from its own gfn on.
        let mut ways = vec![range("gfn", 0)];
        for level in 2..=5u32 {
            let mask = (1u64 << (9 * (level - 1))) - 1;
            ways.push(format!("(level=={level}&&gfn>={:#x}&&gfn<={last:#x})", first & !mask));
        }
        return Some(format!("({})", ways.join("||")));
    }
    for field in ["fault_address", "gpa"] {
        // In kvm_mmu_set_accessed_bit, gpa is the address of a guest PTE and not that of the page.
        if tp.field(field).is_some() && !tp.name.starts_with("kvm_mmu_set_") {
            return Some(range(field, 12));
        }
    }
    None
}

/// A filter "none of these threads", with as many of them as fit.
fn none_of(tids: &[u32], room: usize) -> Option<String> {
    let ranges = ranges::join(tids.iter().map(|t| (u64::from(*t), u64::from(*t) + 1)), 0);
    let mut out = String::new();
    for (a, b) in ranges.into_iter().map(|(a, end)| (a, end - 1)) {
        let p = if a == b { format!("common_pid!={a}") } else { format!("(common_pid<{a}||common_pid>{b})") };
        if out.len() + p.len() + 2 > room {
            break;
        }
        if !out.is_empty() {
            out.push_str("&&");
        }
        out.push_str(&p);
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tp(name: &str, fields: &[&str]) -> Tracepoint {
        let lines: Vec<String> =
            fields.iter().map(|f| format!("\tfield:u64 {f};\toffset:8;\tsize:8;\tsigned:0;\n")).collect();
        let format = lines.concat();
        Tracepoint { system: "kvmmmu".into(), name: name.into(), id: 1, format }
    }

    const NOTHING: Wanted<'_> =
        Wanted { gfn: None, user: &[], mmu_exits_only: false, backend: Backend::Svm, not_tids: &[] };

    #[test]
    fn nothing_wanted_is_no_filter() {
        assert_eq!(build(&tp("kvm_exit", &["exit_reason"]), &NOTHING), "");
    }

    #[test]
    fn frames_by_level() {
        let w = Wanted { gfn: Some((0x2001, 0x2003)), ..NOTHING };
        let f = build(&tp("kvm_mmu_set_spte", &["gfn", "level"]), &w);
        assert!(f.contains("(gfn>=0x2001&&gfn<=0x2003)"), "{f}");
        assert!(f.contains("(level==2&&gfn>=0x2000&&gfn<=0x2003)"), "{f}");
        assert!(f.contains("(level==3&&gfn>=0x0&&gfn<=0x2003)"), "{f}");
        assert_eq!(
            build(&tp("kvm_page_fault", &["fault_address"]), &w),
            "(fault_address>=0x2001000&&fault_address<=0x2003fff)"
        );
        assert_eq!(build(&tp("kvm_mmu_get_page", &["gfn", "role"]), &w), "");
        assert_eq!(build(&tp("kvm_mmu_set_dirty_bit", &["gpa"]), &w), "");
        assert_eq!(build(&tp("kvm_entry", &["vcpu_id"]), &w), "");
    }

    #[test]
    fn exits_of_the_mmu() {
        let w = Wanted { mmu_exits_only: true, ..NOTHING };
        let exit = tp("kvm_exit", &["exit_reason"]);
        assert_eq!(build(&exit, &w), "(exit_reason==78||exit_reason==1024)");
        assert_eq!(
            build(&exit, &Wanted { backend: Backend::Vmx, ..w.clone() }),
            "(exit_reason==0||exit_reason==48||exit_reason==49||exit_reason==62)"
        );
        assert_eq!(build(&exit, &Wanted { backend: Backend::Other, ..w }), "");
    }

    #[test]
    fn other_vms_threads_and_the_users_words() {
        let user = [("kvm_mmu_set_spte".to_owned(), "level > 1".to_owned())];
        let w = Wanted { user: &user, not_tids: &[7, 5, 6, 9], ..NOTHING };
        assert_eq!(
            build(&tp("kvm_mmu_set_spte", &["gfn", "level"]), &w),
            "(level > 1)&&(common_pid<5||common_pid>7)&&common_pid!=9"
        );
        let many: Vec<u32> = (0..4000).map(|n| n * 2 + 100_000).collect();
        let f = build(&tp("x", &[]), &Wanted { not_tids: &many, ..NOTHING });
        assert!(f.len() <= LIMIT && f.len() > LIMIT - 40);
    }
}

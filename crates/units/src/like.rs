//! [`like`]: patterns of names, as `--event`, `--where … like` and the lists of `record` have them.

/// Whether `text` matches a pattern in which `*` stands for any number of characters and `?` for exactly one.
pub fn like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut t, mut p) = (0, 0);
    // Place of the last `*` in the pattern, and the place in the text up to which it has been stretched.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, reach)) => {
                    *reach += 1;
                    t = *reach;
                    p = *at + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn stars_and_question_marks() {
        for (text, pattern, matches) in [
            ("kvm_mmu_set_spte", "kvm_mmu_*", true),
            ("kvm_mmu_get_page", "*page*", true),
            ("kvm_mmu_set", "kvm_mmu_?", false),
            ("kvm_exit", "kvm_e?it", true),
            ("kvm_exit", "kvm_exi", false),
            ("", "*", true),
            ("é", "?", true),
        ] {
            assert_eq!(like(text, pattern), matches, "{text} {pattern}");
        }
    }
}

//! [`Union`]: things that turn out to belong together. Grouping threads into VMs asks it; it knows nothing of either.

/// Sets of numbers from 0, each known by its least member.
#[derive(Clone, Debug)]
pub(super) struct Union(Vec<usize>);

impl Union {
    /// `n` numbers, each on its own.
    pub(super) fn new(n: usize) -> Self {
        Self((0..n).collect())
    }

    /// The least number of the set that one is in.
    pub(super) fn root(&mut self, x: usize) -> usize {
        let mut root = x;
        while self.0[root] != root {
            root = self.0[root];
        }
        let mut at = x;
        while self.0[at] != root {
            at = std::mem::replace(&mut self.0[at], root);
        }
        root
    }

    /// Makes two sets one, given their least numbers.
    pub(super) fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (a.min(b), a.max(b));
        self.0[b] = a;
    }

    /// Whether a number is in a set of its own.
    pub(super) fn is_alone(&mut self, x: usize) -> bool {
        (0..self.0.len()).all(|o| (o == x) == (self.root(o) == self.root(x)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_has_one_root_the_least() {
        let mut u = Union::new(6);
        for (a, b) in [(4, 5), (3, 4), (1, 3)] {
            let (a, b) = (u.root(a), u.root(b));
            u.join(a, b);
        }
        assert_eq!((0..6).map(|x| u.root(x)).collect::<Vec<_>>(), [0, 1, 2, 1, 1, 1]);
        assert!(u.is_alone(0) && u.is_alone(2) && !u.is_alone(1) && !u.is_alone(5));
    }
}

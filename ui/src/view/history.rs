//! [`History`]: the places that were shown before, as a browser keeps them.

/// The last places. Going back and then to another place drops those ahead.
#[derive(Clone, Debug)]
pub(crate) struct History<T> {
    past: Vec<T>,
    ahead: Vec<T>,
}

/// Most places that are kept; nobody goes back further.
const KEPT: usize = 100;

impl<T> Default for History<T> {
    fn default() -> Self {
        Self { past: Vec::new(), ahead: Vec::new() }
    }
}

impl<T: PartialEq + Clone> History<T> {
    /// Remembers the place that is being left.
    pub(crate) fn leave(&mut self, place: T) {
        if self.past.last() == Some(&place) {
            return;
        }
        self.past.push(place);
        if self.past.len() > KEPT {
            self.past.remove(0);
        }
        self.ahead.clear();
    }

    /// The previous place; `here` is the current one.
    pub(crate) fn back(&mut self, here: T) -> Option<T> {
        let place = self.past.pop()?;
        self.ahead.push(here);
        Some(place)
    }

    /// The place that was left by going back; `here` is the current one.
    pub(crate) fn forward(&mut self, here: T) -> Option<T> {
        let place = self.ahead.pop()?;
        self.past.push(here);
        Some(place)
    }

    /// Whether there is a previous place.
    pub(crate) fn can_back(&self) -> bool {
        !self.past.is_empty()
    }

    /// Whether there is a place ahead.
    pub(crate) fn can_forward(&self) -> bool {
        !self.ahead.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_and_forward_are_each_others_undo() {
        let mut h = History::default();
        h.leave(1);
        h.leave(2);
        assert_eq!(h.back(3), Some(2));
        assert_eq!(h.back(2), Some(1));
        assert_eq!(h.back(1), None);
        assert_eq!(h.forward(1), Some(2));
        assert_eq!(h.forward(2), Some(3));
        assert!(!h.can_forward() && h.can_back());
    }

    #[test]
    fn a_new_way_forgets_the_old_one() {
        let mut h = History::default();
        h.leave(1);
        assert_eq!(h.back(2), Some(1));
        h.leave(1);
        assert!(!h.can_forward());
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let mut h = History::default();
        for i in 0..10 * KEPT {
            h.leave(i);
        }
        assert_eq!(h.past.len(), KEPT);
    }
}

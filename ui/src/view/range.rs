//! [`Range`]: the part of an axis that is shown. Panning and zooming return a new range; nothing here needs a screen.

/// Shortest time that the view can show, in nanoseconds: two events of one CPU are farther apart.
pub(crate) const MIN_TIME: f64 = 200.0;
/// Smallest number of rows of the GFN axis that the view can show.
pub(crate) const MIN_ROWS: f64 = 1.0;

/// The part of an axis that is shown, in units of the axis: nanoseconds since the first event, or rows of the GFN axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    /// Start of the part that is shown.
    pub(crate) start: f64,
    /// End of the part that is shown.
    pub(crate) end: f64,
}

impl Range {
    /// The range between two values in either order.
    pub(crate) fn new(a: f64, b: f64) -> Self {
        Self { start: a.min(b), end: a.max(b) }
    }

    /// Length of the range.
    pub(crate) fn span(self) -> f64 {
        self.end - self.start
    }

    /// Middle of the range.
    pub(crate) fn centre(self) -> f64 {
        f64::midpoint(self.start, self.end)
    }

    /// Position of a value: 0 at the start and 1 at the end of the range.
    pub(crate) fn fraction(self, v: f64) -> f64 {
        (v - self.start) / self.span()
    }

    /// The value at a fraction of the range.
    pub(crate) fn at(self, fraction: f64) -> f64 {
        self.start + fraction * self.span()
    }

    /// The range, moved by a fraction of its length.
    #[must_use]
    pub(crate) fn pan(self, fraction: f64) -> Self {
        let d = fraction * self.span();
        Self { start: self.start + d, end: self.end + d }
    }

    /// The range, scaled by `factor` (below 1 zooms in) so that the value at `fraction` stays in place.
    #[must_use]
    pub(crate) fn zoom(self, fraction: f64, factor: f64) -> Self {
        let anchor = self.at(fraction);
        let span = self.span() * factor;
        Self { start: anchor - fraction * span, end: anchor + (1.0 - fraction) * span }
    }

    /// The range, moved into `bounds` and at least `min` long; its length is kept where possible.
    #[must_use]
    pub(crate) fn within(self, bounds: Range, min: f64) -> Self {
        let full = bounds.span().max(min);
        if !(self.start.is_finite() && self.end.is_finite()) {
            return Self { start: bounds.start, end: bounds.start + full };
        }
        let span = self.span().clamp(min.min(full), full);
        let mut start = self.start;
        if (span - self.span()).abs() > f64::EPSILON * span {
            start = self.centre() - span / 2.0;
        }
        let start = start.clamp(bounds.start, (bounds.start + full - span).max(bounds.start));
        Self { start, end: start + span }
    }

    /// The range, moved so that `v` is in its middle, unless `v` is inside already.
    #[must_use]
    pub(crate) fn reveal(self, v: f64) -> Self {
        let margin = self.span() * 0.1;
        if v < self.start + margin / 2.0 || v > self.end - margin / 2.0 {
            let half = self.span() / 2.0;
            Self { start: v - half, end: v + half }
        } else {
            self
        }
    }

    /// The range with a margin on both sides, as a fraction of its length.
    #[must_use]
    pub(crate) fn padded(self, fraction: f64) -> Self {
        let d = self.span() * fraction;
        Self { start: self.start - d, end: self.end + d }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Range = Range { start: 0.0, end: 1000.0 };

    #[test]
    fn zooming_keeps_what_is_under_the_pointer() {
        let r = Range::new(100.0, 300.0);
        let under = r.at(0.25);
        let z = r.zoom(0.25, 0.5);
        assert!((z.at(0.25) - under).abs() < 1e-9);
        assert!((z.span() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn zooming_in_and_out_again_is_no_change() {
        let r = Range::new(100.0, 300.0);
        let back = r.zoom(0.7, 0.8).zoom(0.7, 1.0 / 0.8);
        assert!((back.start - r.start).abs() < 1e-9 && (back.end - r.end).abs() < 1e-9);
    }

    #[test]
    fn a_window_never_leaves_its_axis() {
        assert_eq!(Range::new(-50.0, 50.0).within(ALL, 1.0), Range::new(0.0, 100.0));
        assert_eq!(Range::new(950.0, 1050.0).within(ALL, 1.0), Range::new(900.0, 1000.0));
        assert_eq!(Range::new(-50.0, 5000.0).within(ALL, 1.0), ALL);
        assert_eq!(Range::new(500.0, 500.0).within(ALL, 10.0), Range::new(495.0, 505.0));
    }

    #[test]
    fn an_axis_shorter_than_the_smallest_window_still_has_one() {
        let r = Range::new(0.0, 0.0).within(Range::new(0.0, 0.0), 10.0);
        assert_eq!(r, Range::new(0.0, 10.0));
    }

    #[test]
    fn nonsense_becomes_the_whole_axis() {
        assert_eq!(Range { start: f64::NAN, end: 3.0 }.within(ALL, 1.0), ALL);
        assert_eq!(Range { start: 0.0, end: f64::INFINITY }.within(ALL, 1.0), ALL);
    }

    #[test]
    fn revealing_moves_only_when_it_must() {
        let r = Range::new(100.0, 200.0);
        assert_eq!(r.reveal(150.0), r);
        assert_eq!(r.reveal(500.0), Range::new(450.0, 550.0));
    }
}

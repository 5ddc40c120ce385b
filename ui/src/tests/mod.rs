//! Tests of the panels.

//! Questions over a replay: tables, summaries, and the visual language of the pictures

pub mod visual;

//! A finished analysis as a self-contained page

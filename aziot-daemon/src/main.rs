//! `aziotd`, the multi-call binary.
fn main() {}

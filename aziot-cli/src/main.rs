//! `aziotctl`.
fn main() {}

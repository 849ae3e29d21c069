//! The simulator, driven by a raw TLS client.

mod client;
mod dps;
mod est;
mod faults;
mod hub;
mod program;

use aziot_tests::simulator::Simulator;

/// The id scope of every simulator in these tests.
const SCOPE: &str = "0ne00000001";
#[track_caller]
fn assert_no_violations(simulator: &Simulator) {
    let violations: Vec<String> = simulator
        .violations()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(violations, Vec::<String>::new());
}

#[track_caller]
fn assert_violation(simulator: &Simulator, part: &str) {
    let violations: Vec<String> = simulator
        .violations()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        violations.iter().any(|text| text.contains(part)),
        "{part:?} is not among {violations:?}"
    );
    simulator.clear_violations();
}

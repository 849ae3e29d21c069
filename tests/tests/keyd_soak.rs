//! The short form of `make soak`.

use aziot_tests::back_end::BackEnd;
use aziot_tests::soak::{Plan, run};

fn assert_lasts(back_end: BackEnd, signatures: u64, interrupt: bool) {
    let plan = Plan {
        back_end,
        signatures,
        clients: 4,
        interrupt,
    };
    let report = run(plan, |_| {});
    let complaints = report.complaints();
    assert!(complaints.is_empty(), "{complaints:?}\n{report}");
}

#[test]
fn many_signatures_over_one_login_on_softhsm() {
    assert_lasts(BackEnd::SoftHsm, 5_000, false);
}

#[test]
fn many_signatures_over_one_login_on_a_tpm() {
    assert_lasts(BackEnd::Tpm, 1_000, false);
}

#[test]
fn a_tpm_that_is_restarted_under_load() {
    assert_lasts(BackEnd::Tpm, 600, true);
}

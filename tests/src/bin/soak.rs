//! `make soak`: a hundred thousand signatures of a token over one login, on SoftHSM and on a TPM; on the TPM once more with
//! the TPM killed and started again half-way. Prints what happened; the exit status is 1 when something is wrong.

use std::process::ExitCode;

use aziot_tests::back_end::BackEnd;
use aziot_tests::soak::{Plan, run};
use clap::Parser;

/// Long runs of the Keys Service on tokens.
#[derive(Parser)]
struct Arguments {
    /// Signatures on SoftHSM; 0 leaves that part out.
    #[arg(long, default_value_t = 100_000)]
    softhsm: u64,
    /// Signatures on tpm2-pkcs11 with swtpm; 0 leaves that part out.
    #[arg(long, default_value_t = 100_000)]
    tpm: u64,
    /// Signatures in the part where the TPM is killed half-way; 0 leaves it out.
    #[arg(long, default_value_t = 10_000)]
    interrupted: u64,
    /// Clients that ask at the same time.
    #[arg(long, default_value_t = 4)]
    clients: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let parts = [
        ("SoftHSM", BackEnd::SoftHsm, arguments.softhsm, false),
        ("tpm2-pkcs11 on swtpm", BackEnd::Tpm, arguments.tpm, false),
        (
            "tpm2-pkcs11, swtpm restarted half-way",
            BackEnd::Tpm,
            arguments.interrupted,
            true,
        ),
    ];
    let mut good = true;
    for (title, back_end, signatures, interrupt) in parts {
        if signatures == 0 {
            continue;
        }
        println!("{title}: {signatures} signatures");
        let plan = Plan {
            back_end,
            signatures,
            clients: arguments.clients,
            interrupt,
        };
        let report = run(plan, |line| println!("  … {line}"));
        print!("{report}");
        let complaints = report.complaints();
        for complaint in &complaints {
            println!("  FAILED          {complaint}");
        }
        good &= complaints.is_empty();
        println!(
            "{}",
            if complaints.is_empty() {
                "passed\n"
            } else {
                "failed\n"
            }
        );
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

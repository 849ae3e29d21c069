//! `aziotd`, the multi-call binary of the services.

fn main() -> std::process::ExitCode {
    aziot_daemon::process::run(std::env::args_os())
}

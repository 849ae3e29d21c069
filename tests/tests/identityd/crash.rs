//! The state files after a power cut at any point: the service is killed before each of its calls on files in turn.

use std::path::{Path, PathBuf};

use aziot_tests::binaries;
use aziot_tests::client::eventually;
use aziot_tests::daemon::Daemon;
use aziot_tests::root::copy_tree;
use aziot_tests::simulator::NewModule;

use crate::device::{Bench, DEVICE, Source, principal};

/// More calls than there are in one start.
const CALLS: u32 = 400;

#[test]
fn is_58_a_crash_at_any_call_leaves_old_or_new_state() {
    let bench = Bench::new();
    let tools = bench.root.join("tools");
    let interposer =
        binaries::compile_shared("crashpoint.c", &[], &["-ldl"], &tools, "crashpoint.so");
    bench.register_device();
    // A device that has been reconciled with the module `old`; then the configuration wants `new` instead.
    let identityd = bench.reconciled(Source::Manual, &principal(4242, "old", Some(&["module"])));
    identityd.daemon.stop();
    let home = bench.root.join("var/lib/aziot/identityd");
    let before = bench.root.join("before");
    copy_tree(&home, &before);
    let (info, old) = (
        bench.state("device_info").unwrap(),
        bench.state("prev_state").unwrap(),
    );
    let new = old.replace("\"old\"", "\"new\"");
    bench.configure(
        Source::Manual,
        "",
        &principal(4242, "new", Some(&["module"])),
    );

    for at in 1..CALLS {
        std::fs::remove_dir_all(&home).unwrap();
        copy_tree(&before, &home);
        bench.cloud.remove_module(DEVICE, "new");
        bench
            .cloud
            .add_module(DEVICE, "old", NewModule::default())
            .unwrap();

        let daemon = bench
            .launch()
            .env("LD_PRELOAD", &interposer)
            .env("CRASHPOINT_DIR", &home)
            .env("CRASHPOINT_AT", at.to_string())
            .spawn();
        let done = |daemon: &Daemon| daemon.log().count("Identity reconciliation complete.") > 0;
        eventually("the end of the reconciliation, or of the service", || {
            done(&daemon) || is_dead(&daemon)
        });
        let crashed = is_dead(&daemon);
        let log = daemon.kill().log;

        let device = bench.state("device_info");
        assert_eq!(device.as_ref(), Some(&info), "call {at}:\n{log}");
        let settings = bench.state("prev_state").unwrap();
        assert!(settings == old || settings == new, "call {at}: {settings}");

        // The next start makes everything good.
        let identityd = bench.started();
        identityd
            .daemon
            .log()
            .wait_for("Identity reconciliation complete.");
        assert_eq!(identityd.identity()["spec"]["deviceId"], DEVICE);
        assert!(bench.cloud.module(DEVICE, "new").is_some(), "call {at}");
        assert!(bench.cloud.module(DEVICE, "old").is_none(), "call {at}");
        identityd.daemon.stop();
        assert_eq!(bench.state("prev_state").as_ref(), Some(&new), "call {at}");
        let left: Vec<_> = files(&home)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|e| e == "tmp"))
            .collect();
        assert!(left.is_empty(), "call {at} left {left:?}");
        if !crashed {
            assert!(at > 10, "only {at} calls were counted");
            bench.assert_clean();
            return;
        }
    }
    panic!("the service makes more than {CALLS} calls on files in one start");
}

/// Whether the process has ended, though nobody has waited for it.
fn is_dead(daemon: &Daemon) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid()))
        .is_ok_and(|stat| stat.contains(") Z "))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry of the directory").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

//! Configuration and state that release 1.6.0 left on a device.
#![cfg(feature = "alloc")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use aziot_core::config::{Merged, Places, certd, device_info, identityd, keyd, tpmd};
use aziot_core::super_config::{self, HEADER, Machine};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/reference-1.6.0")
        .join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(fixture(path)).unwrap()
}

/// The same super-config gives the same documents, byte by byte.
#[test]
fn sc_01_the_references_own_output_is_reproduced() {
    let loaded = super_config::parse("config.toml", &read("etc/aziot/config.toml")).unwrap();
    assert!(loaded.warnings.is_empty());
    let places = Places::default();
    let machine = Machine {
        hostname: "unused",
        certd_uid: 1,
        identityd_uid: 994,
        places: &places,
    };
    let output = loaded.settings.translate(&machine);
    for (service, text) in [
        ("keyd", output.keyd.to_toml()),
        ("certd", output.certd.to_toml()),
        ("identityd", output.identityd.to_toml()),
        ("tpmd", output.tpmd.to_toml()),
    ] {
        let expected = read(&format!("etc/aziot/{service}/config.d/00-super.toml"));
        assert_eq!(format!("{HEADER}{}", *text), expected, "{service}");
    }
    let key = fs::read(fixture("var/secrets/aziot/keyd/device-id")).unwrap();
    assert_eq!(output.device_key.as_deref(), Some(&key));
}

/// After an upgrade in place the services find their settings and the state.
#[test]
fn sc_17_configuration_and_state_load() {
    let places = Places::default();
    let merged = |paths: &[&str]| {
        let mut merged = Merged::with_scalars(tpmd::SCALARS);
        for path in paths {
            merged.add(path, &read(path)).unwrap();
        }
        merged
    };
    let super_toml = |service: &str| format!("etc/aziot/{service}/config.d/00-super.toml");
    let keyd = keyd::Settings::read(&merged(&[&super_toml("keyd")]), &places).unwrap();
    assert_eq!(
        keyd.settings.principals[0].keys,
        ["aziot_identityd_master_id", "device-id"]
    );
    certd::Settings::read(&merged(&[&super_toml("certd")]), &places).unwrap();
    tpmd::Settings::read(&merged(&[&super_toml("tpmd")]), &places).unwrap();

    let files = [
        &super_toml("identityd"),
        "etc/aziot/identityd/config.d/10-mod.toml",
    ];
    let settings = identityd::Settings::read(&merged(&files), &places)
        .unwrap()
        .settings;
    let previous = "var/lib/aziot/identityd/prev_state";
    assert_eq!(settings.to_toml().as_str(), read(previous));
    assert_eq!(
        identityd::Settings::read(&merged(&[previous]), &places)
            .unwrap()
            .settings,
        settings
    );

    let info = device_info("device_info", &read("var/lib/aziot/identityd/device_info"))
        .unwrap()
        .unwrap();
    assert_eq!(
        (info.hub_name.as_str(), info.device_id.as_str()),
        ("localhost:8443", "Dev=1")
    );
}

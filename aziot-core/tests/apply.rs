//! The reference's cases of `config apply`: a super-config in, four documents and a key out.
//!
//! Each directory in `apply/` is one case. The documents are compared byte by byte.
#![cfg(feature = "alloc")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

use aziot_core::config::{Merged, Places, certd, identityd, keyd, tpmd};
use aziot_core::super_config::{self, Machine};

#[test]
fn sc_01_reference_cases() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apply");
    let mut cases: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|case| case.unwrap().path())
        .collect();
    cases.sort();
    assert_eq!(cases.len(), 21);
    for case in &cases {
        check(case);
    }
}

fn check(case: &Path) {
    let name = case.file_name().unwrap().to_str().unwrap();
    let read = |file: &str| fs::read_to_string(case.join(file)).unwrap();
    let loaded = super_config::parse("config.toml", &read("config.toml"))
        .unwrap_or_else(|invalid| panic!("{name}: {invalid}"));
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    if name.ends_with("-http") {
        assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
        assert!(
            warnings[0].contains("EST server URL \"http://est.example.com/.well-known/est\" is configured with unencrypted HTTP"),
            "{warnings:?}"
        );
    } else {
        assert!(warnings.is_empty(), "{name}: {warnings:?}");
    }

    let places = Places::default();
    let machine = Machine {
        hostname: "my-device",
        certd_uid: 5555,
        identityd_uid: 5556,
        places: &places,
    };
    let output = loaded.settings.translate(&machine);
    for (file, text) in [
        ("keyd.toml", output.keyd.to_toml()),
        ("certd.toml", output.certd.to_toml()),
        ("identityd.toml", output.identityd.to_toml()),
        ("tpmd.toml", output.tpmd.to_toml()),
    ] {
        assert_eq!(text.as_str(), read(file), "{name}/{file}");
    }
    let key = fs::read(case.join("device-id")).ok();
    assert_eq!(
        output.device_key.as_deref().map(Vec::as_slice),
        key.as_deref(),
        "{name}/device-id"
    );

    // The services read back what was written.
    let merged = |file: &str| {
        let mut merged = Merged::new();
        merged.add(file, &read(file)).unwrap();
        merged
    };
    let keyd = keyd::Settings::read(&merged("keyd.toml"), &places).unwrap();
    assert_eq!(keyd.settings, output.keyd, "{name}");
    assert!(keyd.warnings.is_empty(), "{name}: {:?}", keyd.warnings);
    let certd = certd::Settings::read(&merged("certd.toml"), &places).unwrap();
    assert_eq!(certd.settings, output.certd, "{name}");
    assert!(certd.warnings.is_empty(), "{name}: {:?}", certd.warnings);
    let identityd = identityd::Settings::read(&merged("identityd.toml"), &places).unwrap();
    assert_eq!(identityd.settings, output.identityd, "{name}");
    assert!(
        identityd.warnings.is_empty(),
        "{name}: {:?}",
        identityd.warnings
    );
    let tpmd = tpmd::Settings::read(&merged("tpmd.toml"), &places).unwrap();
    assert_eq!(tpmd.settings, output.tpmd, "{name}");
}

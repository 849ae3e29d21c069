//! The example configurations that are installed say the truth.
#![cfg(feature = "alloc")]
#![allow(clippy::unwrap_used, reason = "a test")]

use aziot_core::config::{Merged, Places, certd, identityd, keyd, tpmd};
use aziot_core::super_config;

const TEMPLATE: &str = include_str!("../../packaging/config/config.toml.template");

/// Removes one `#` from a line, if it is a commented setting.
fn uncomment(line: &str) -> Option<&str> {
    if line.starts_with("##") {
        return None;
    }
    line.strip_prefix("# ").or((line == "#").then_some(""))
}

/// Groups of successive settings, uncommented.
fn blocks(text: &str) -> Vec<Vec<&str>> {
    let mut blocks = vec![Vec::new()];
    for line in text.lines() {
        match uncomment(line) {
            Some(setting) => blocks.last_mut().unwrap().push(setting),
            None => blocks.push(Vec::new()),
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

/// The block as it is, and once with each alternative in place of the line it belongs to.
fn variants(block: &[&str]) -> Vec<String> {
    let mut variants = vec![block.join("\n")];
    for (i, line) in block.iter().enumerate() {
        let Some(alternative) = line.strip_prefix("# ") else {
            continue;
        };
        let chosen = (0..i).rev().find(|j| !block[*j].starts_with('#')).unwrap();
        let mut lines = block.to_vec();
        lines[chosen] = alternative;
        variants.push(lines.join("\n"));
    }
    variants
}

#[test]
fn the_template_is_empty_as_it_is() {
    let invalid = super_config::parse("t", TEMPLATE).unwrap_err();
    assert_eq!(invalid.problems.len(), 1);
    assert!(
        invalid.to_string().contains("missing field `provisioning`"),
        "{invalid}"
    );
}

#[test]
fn every_block_of_the_template_is_valid_when_uncommented() {
    let blocks = blocks(TEMPLATE);
    assert!(blocks.len() > 20, "{}", blocks.len());
    let mut checked = 0;
    for block in &blocks {
        for variant in variants(block) {
            let text = if variant.contains("[provisioning]") {
                variant
            } else {
                // Settings of the top level come first in a document.
                format!("{variant}\n[provisioning]\nsource = \"none\"\n")
            };
            let loaded = super_config::parse("t", &text)
                .unwrap_or_else(|invalid| panic!("{invalid}\n{text}"));
            assert!(loaded.warnings.is_empty(), "{:?}\n{text}", loaded.warnings);
            checked += 1;
        }
    }
    assert!(checked > 35, "{checked}");
}

/// Every key that the super-config knows is explained.
#[test]
fn the_template_documents_every_setting() {
    for key in [
        "hostname",
        "local_gateway_hostname",
        "parent_hostname",
        "cloud_timeout_sec",
        "cloud_retries",
        "prefer_module_identity_cache",
        "aziot_max_requests",
        "connection_string",
        "iothub_hostname",
        "device_id",
        "device_id_pk",
        "identity_cert",
        "identity_pk",
        "expiry_days",
        "common_name",
        "subject",
        "global_endpoint",
        "id_scope",
        "registration_id",
        "symmetric_key",
        "payload",
        "auto_renew",
        "rotate_key",
        "threshold",
        "retry",
        "url",
        "username",
        "password",
        "bootstrap_identity_cert",
        "bootstrap_identity_pk",
        "localid",
        "domain",
        "trusted_certs",
        "urls",
        "identity_auto_renew",
        "local_ca",
        "cert",
        "pk",
        "tcti",
        "auth_key_index",
        "hierarchy_authorization",
        "endorsement",
        "owner",
        "pkcs11_lib_path",
        "pkcs11_base_slot",
        "preloaded_keys",
        "preloaded_certs",
    ] {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(
            TEMPLATE.split(|c| !word(c)).any(|found| found == key),
            "{key}"
        );
    }
    for value in [
        "manual",
        "dps",
        "none",
        "sas",
        "x509",
        "symmetric_key",
        "tpm",
        "est",
        "local_ca",
        "self_signed",
    ] {
        assert!(TEMPLATE.contains(&format!("\"{value}\"")), "{value}");
    }
}

#[test]
fn default_files_are_valid_as_they_are_and_uncommented() {
    let places = Places::default();
    for (text, decode) in [
        (
            include_str!("../../packaging/config/keyd/config.toml.default"),
            &(|m: &Merged| keyd::Settings::read(m, &places).map(|loaded| loaded.warnings))
                as &dyn Fn(&Merged) -> _,
        ),
        (
            include_str!("../../packaging/config/certd/config.toml.default"),
            &|m| certd::Settings::read(m, &places).map(|loaded| loaded.warnings),
        ),
        (
            include_str!("../../packaging/config/identityd/config.toml.default"),
            &|m| identityd::Settings::read(m, &places).map(|loaded| loaded.warnings),
        ),
        (
            include_str!("../../packaging/config/tpmd/config.toml.default"),
            &|m| tpmd::Settings::read(m, &places).map(|loaded| loaded.warnings),
        ),
    ] {
        let uncommented: Vec<&str> = text
            .lines()
            .map(|line| uncomment(line).unwrap_or(line))
            .collect();
        for text in [text, &uncommented.join("\n")] {
            let mut merged = Merged::new();
            merged.add("f", text).unwrap();
            let warnings = decode(&merged).unwrap_or_else(|invalid| panic!("{invalid}\n{text}"));
            assert!(warnings.is_empty(), "{warnings:?}\n{text}");
        }
    }
}

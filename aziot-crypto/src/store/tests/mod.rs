use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use aziot_core::id;
use tempfile::TempDir;

use super::files::FilePlace;
use super::*;
use crate::openssl;
use crate::software::HmacSha256;

mod keys;
mod moving;
mod pairs;
mod parallel;
mod report;

/// Usage of a key for signatures and derivation.
const SIGN: u32 = 1;

const PEM: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

fn store() -> (TempDir, Store) {
    let home = TempDir::new().unwrap();
    let store = Store::new();
    store.set_home(home.path());
    (home, store)
}

fn file_of(home: &TempDir, id: &str) -> PathBuf {
    home.path()
        .join("keys")
        .join(id::file_name(id, ".key").unwrap().as_str())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn keys_in(home: &TempDir) -> usize {
    fs::read_dir(home.path().join("keys")).map_or(0, Iterator::count)
}

/// Long enough for a file to count as settled.
fn settle() {
    thread::sleep(Duration::from_millis(70));
}

fn tag(key: &Key) -> [u8; 32] {
    *key.sign(b"message").unwrap().as_bytes()
}

fn tag_of(key: &[u8]) -> [u8; 32] {
    *HmacSha256::new(key).sign(b"message").as_bytes()
}

/// A fresh P-256 key pair in PEM.
fn pem() -> Vec<u8> {
    let pair = openssl::KeyPair::generate(crate::key_pair::Algorithm::EcP256).unwrap();
    pair.to_pem().unwrap().to_vec()
}

/// The public point of a key pair.
fn point(pair: &KeyPair) -> Vec<u8> {
    match pair.parameter(crate::key_pair::Parameter::EcPoint).unwrap() {
        crate::key_pair::ParameterValue::Bytes(point) => point.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// The public point of the key pair in PEM text.
fn point_of(pem: &[u8]) -> Vec<u8> {
    let pair = openssl::KeyPair::from_pem(pem).unwrap();
    point(&KeyPair(PairInner::File(pair.into())))
}

//! The store over any file: what it takes a key's file for, and that it never harms one.
#![no_main]

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use aziot_crypto::openssl::KeyPair;
use aziot_crypto::store::Store;
use hmac::{Hmac, KeyInit as _, Mac as _};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;

/// Usage of a key that signs.
const SIGN: u32 = 0x1;

/// A directory of this process's own.
static HOME: LazyLock<PathBuf> = LazyLock::new(|| {
    let home = std::env::temp_dir().join(format!("aziot-fuzz-store-{}", std::process::id()));
    fs::create_dir_all(&home).expect("a directory for the key");
    home
});

fuzz_target!(|content: &[u8]| {
    let file = HOME.join("key");
    write(&file, content);
    let store = Store::new();
    let uri = format!("file://{}", file.display());
    store.preload("k", &uri).expect("a location");

    let key = store.key("k");
    let pair = store.key_pair("k");
    assert!(key.is_err() || pair.is_err(), "taken for both kinds");
    assert_eq!(pair.is_ok(), KeyPair::from_pem(content).is_ok());
    if let Ok(key) = &key {
        let tag = key.sign(b"message").expect("an HMAC");
        let mut mac = Hmac::<Sha256>::new_from_slice(content).expect("any length is a key");
        mac.update(b"message");
        assert_eq!(tag.as_bytes()[..], mac.finalize().into_bytes()[..]);
    }
    for error in [key.as_ref().err(), pair.as_ref().err()]
        .into_iter()
        .flatten()
    {
        assert!(!error.to_string().is_empty());
    }
    let mut seen = 0;
    store.report(&mut |_| seen += 1);
    assert!(seen > 0, "the file is not told of");

    // Whatever it is, it is not replaced by a new key, unless there was nothing in it.
    let created = store.create_key("k", SIGN);
    if content.is_empty() {
        assert_eq!(fs::read(&file).expect("the new key").len(), 32);
        write(&file, content);
    } else {
        assert_eq!(created.is_ok(), key.is_ok());
    }
    let created = store.create_key_pair("k", Some("ec-p256"));
    if !content.is_empty() {
        assert_eq!(created.is_ok(), pair.is_ok());
        assert_eq!(fs::read(&file).expect("the file is still there"), content);
    }
});

fn write(path: &Path, content: &[u8]) {
    use std::io::Write as _;

    // A new file each time: one that has only just been written is read anew anyway, this is about its identity.
    let _ = fs::remove_file(path);
    let file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(content));
    written.expect("a file for the key");
}

//! An independent reader and writer of the store in the file system, made from the specification alone (B5 to B7):
//! OpenSSL's program, and no code of ours. What the library writes can be read by it and means the same, and what it
//! writes in the way of release 1.6.0 the library takes over.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aziot_crypto::keys_abi::*;

use crate::common::{Keys, openssl, scratch};

/// Ids that say something about names of files.
const IDS: [&str; 6] = [
    "device-id",
    "aziot_identityd_master_id",
    "../../etc/passwd",
    "Ünï/cödé key",
    "",
    "0123456789",
];

/// Where the key with this id is.
pub fn file_of(home: &Path, id: &str) -> PathBuf {
    let plain: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    let hash = openssl(&["dgst", "-sha256", "-r"], id.as_bytes());
    let hash = String::from_utf8(hash).unwrap();
    let hash = hash.split(' ').next().unwrap();
    home.join("keys").join(format!("{plain}-{hash}.key"))
}

/// HMAC-SHA256 by OpenSSL's program.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = format!("hexkey:{hex}");
    openssl(
        &[
            "dgst", "-sha256", "-mac", "HMAC", "-macopt", &key, "-binary",
        ],
        message,
    )
}

/// Runs `openssl pkeyutl` with the private key in a file and this input.
fn pkeyutl(dir: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let path = dir.join("pkeyutl-input");
    fs::write(&path, input).unwrap();
    let mut all = vec!["pkeyutl", "-in", path.to_str().unwrap()];
    all.extend(arguments);
    let output = openssl(&all, b"");
    fs::remove_file(path).unwrap();
    output
}

#[test]
fn kf_01_file_names() {
    for (id, name) in [
        (
            "device-id",
            "deviceid-bd732105ef89cf8edd2606a5309c8a26b7b5599a4e124a0fe6199b6b2f60e655.key",
        ),
        (
            "../../etc/passwd",
            "etcpasswd-3754d6cb3a38e1185e5b382d5f3ef3f118af75bf4bf0254d1fdb8437f51423e0.key",
        ),
        (
            "Ünï/cödé key",
            "ncdkey-47b3cd261ad836c42e298da33dff507543e7d45b5203bcd3ae4724635b0b41e2.key",
        ),
        (
            "",
            "-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.key",
        ),
    ] {
        assert_eq!(
            file_of(Path::new("/h"), id),
            Path::new("/h/keys").join(name)
        );
    }
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    let mut expected = BTreeSet::new();
    for id in IDS {
        assert_eq!(keys.create(id, 1), Rc::OK);
        expected.insert(file_of(&home, id));
    }
    let written: BTreeSet<_> = fs::read_dir(home.join("keys"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(written, expected);
    // 186 characters beside the hash, the hyphen and the suffix are as many as a name of a file can have.
    assert_eq!(keys.create(&"a".repeat(186), 1), Rc::OK);
    assert_eq!(keys.create(&"a".repeat(187), 1), Rc::EXTERNAL);
    assert_eq!(keys.create_pair(&"b".repeat(187), None), Rc::EXTERNAL);
    assert_eq!(keys.load(&"a".repeat(187)), Rc::EXTERNAL);
}

#[test]
fn kf_02_an_independent_reader_understands_what_we_write() {
    let (_dir, home) = scratch();
    let keys = Keys::with_home(&home);
    for id in IDS {
        assert_eq!(keys.create(id, 1), Rc::OK);
        let bytes = fs::read(file_of(&home, id)).unwrap();
        assert_eq!(keys.sign(id, b"m").unwrap(), hmac(&bytes, b"m"));
        assert_eq!(keys.derive(id, b"d").unwrap(), hmac(&bytes, b"d"));
        assert_eq!(
            keys.sign_derived(id, b"d", b"m").unwrap(),
            hmac(&hmac(&bytes, b"d"), b"m")
        );
        assert_eq!(keys.import(id, b"imported"), Rc::OK);
        assert_eq!(fs::read(file_of(&home, id)).unwrap(), b"imported");
        assert_eq!(keys.delete(id), Rc::OK);
        assert!(!file_of(&home, id).exists());

        assert_eq!(keys.create_pair(id, Some("ec-p256")), Rc::OK);
        let path = file_of(&home, id);
        let path = path.to_str().unwrap();
        let structure = openssl(&["asn1parse", "-in", path], b"");
        let structure = String::from_utf8(structure).unwrap();
        assert!(
            structure.contains("prim: INTEGER           :00\n"),
            "{structure}"
        );
        assert!(structure.contains("prim: OBJECT            :id-ecPublicKey\n"));
        let compressed = openssl(
            &[
                "ec",
                "-in",
                path,
                "-pubout",
                "-conv_form",
                "compressed",
                "-outform",
                "DER",
            ],
            b"",
        );
        let point = keys
            .parameter(id, KEY_PAIR_PARAMETER_TYPE_EC_POINT)
            .unwrap();
        assert!(compressed.ends_with(&point));
        let signature = keys.ecdsa(id, &[9; 32]).unwrap();
        let file = home.join("signature");
        fs::write(&file, signature).unwrap();
        let verified = pkeyutl(
            &home,
            &[
                "-verify",
                "-inkey",
                path,
                "-sigfile",
                file.to_str().unwrap(),
            ],
            &[9; 32],
        );
        assert_eq!(verified, b"Signature Verified Successfully\n");
        assert_eq!(keys.delete_pair(id), Rc::OK);
    }

    assert_eq!(keys.create_pair("rsa", Some("rsa-2048")), Rc::OK);
    let path = file_of(&home, "rsa");
    let path = path.to_str().unwrap();
    let modulus = openssl(&["rsa", "-in", path, "-modulus", "-noout"], b"");
    let expected: String = keys
        .parameter("rsa", KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS)
        .unwrap()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    assert_eq!(modulus, format!("Modulus={expected}\n").into_bytes());
    let padded = [
        "-sign",
        "-inkey",
        path,
        "-pkeyopt",
        "rsa_padding_mode:pkcs1",
    ];
    assert_eq!(
        keys.rsa("rsa", ENCRYPT_MECHANISM_RSA_PKCS1, b"input")
            .unwrap(),
        pkeyutl(&home, &padded, b"input")
    );
    let mut block = [7; 256];
    block[0] = 0;
    // The same operation by another name: without padding, signing is decrypting.
    let raw = [
        "-decrypt",
        "-inkey",
        path,
        "-pkeyopt",
        "rsa_padding_mode:none",
    ];
    assert_eq!(
        keys.rsa("rsa", ENCRYPT_MECHANISM_RSA_NO_PADDING, &block)
            .unwrap(),
        pkeyutl(&home, &raw, &block)
    );
}

/// Release 1.6.0 makes files that everybody may read in a directory that nobody else may enter.
#[test]
fn kf_12_we_take_over_a_store_in_the_way_of_release_1_6_0() {
    let (_dir, home) = scratch();
    fs::create_dir(home.join("keys")).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let write = |id: &str, content: &[u8]| {
        let path = file_of(&home, id);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    };
    let bytes = openssl(&["rand", "32"], b"");
    let curve = [
        "genpkey",
        "-quiet",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ];
    let ec = openssl(&curve, b"");
    let rsa = openssl(&["genpkey", "-quiet", "-algorithm", "RSA"], b"");
    write("sym", &bytes);
    write("odd & id?", b"short");
    write("ec", &ec);
    write("rsa", &rsa);
    write("to be moved", &ec);

    let keys = Keys::with_home(&home);
    assert_eq!(keys.sign("sym", b"m").unwrap(), hmac(&bytes, b"m"));
    assert_eq!(keys.sign("odd & id?", b"m").unwrap(), hmac(b"short", b"m"));
    let sealed = keys.encrypt("sym", None, [b"iv", b"aad"], b"text").unwrap();
    assert_eq!(
        keys.decrypt("sym", None, [b"iv", b"aad"], &sealed).unwrap(),
        b"text"
    );
    for id in ["sym", "odd & id?"] {
        assert_eq!(keys.create(id, 1), Rc::OK);
    }
    for id in ["ec", "rsa"] {
        assert_eq!(keys.load_pair(id), Rc::OK);
        assert_eq!(keys.create_pair(id, None), Rc::OK);
    }
    assert_eq!(keys.move_pair("to be moved", "moved"), Rc::OK);
    assert!(!file_of(&home, "to be moved").exists());
    // Nothing was written that was not asked for.
    for (id, content) in [
        ("sym", &bytes[..]),
        ("odd & id?", b"short"),
        ("ec", &ec),
        ("rsa", &rsa),
        ("moved", &ec),
    ] {
        assert_eq!(fs::read(file_of(&home, id)).unwrap(), content);
    }
    assert_eq!(fs::read_dir(home.join("keys")).unwrap().count(), 5);
}

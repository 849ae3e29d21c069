//! Key pairs in files, and keys of either kind in each other's way.

use super::*;
use crate::key_pair::{Parameter, ParameterValue, RsaPadding};

#[test]
fn kf_02_a_generated_pair_is_pkcs_8_with_a_private_mode() {
    let (home, store) = store();
    let pair = store.create_key_pair("pair", None).unwrap();
    let pem = fs::read(file_of(&home, "pair")).unwrap();
    assert!(pem.starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
    assert!(pem.ends_with(b"-----END PRIVATE KEY-----\n"));
    assert_eq!(point(&pair), point_of(&pem));
    assert_eq!(mode(&file_of(&home, "pair")), 0o600);
    assert!(pair.signs_at_once() && !pair.is_in_token());
    let mut signature = vec![0; pair.signature_bound().unwrap()];
    assert!(pair.sign_ecdsa(&[7; 32], &mut signature).unwrap() >= 8);
    assert_eq!(keys_in(&home), 1);
}

#[test]
fn kf_09_the_first_known_algorithm_is_taken() {
    let (home, store) = store();
    for (id, list, bound, modulus) in [
        ("none", None, Some(72), None),
        ("star", Some("*"), Some(72), None),
        ("rsa first", Some("rsa-2048:ec-p256"), None, Some(256)),
        ("unknown first", Some("foo:ec-p384"), Some(104), None),
    ] {
        let pair = store.create_key_pair(id, list).unwrap();
        assert_eq!(
            (pair.signature_bound(), pair.modulus_len()),
            (bound, modulus),
            "{id}"
        );
    }
    for list in ["", "foo", "EC-P256", "ec-p256 "] {
        for id in ["refused", "none"] {
            let err = store.create_key_pair(id, Some(list)).unwrap_err();
            assert!(matches!(err, Error::NoAlgorithm) && err.is_invalid_parameter());
        }
    }
    assert_eq!(keys_in(&home), 4);
}

#[test]
fn kf_10_create_keeps_a_key_pair_whatever_its_algorithm() {
    let (home, store) = store();
    let first = store.create_key_pair("pair", Some("ec-p256")).unwrap();
    let before = fs::read(file_of(&home, "pair")).unwrap();
    for list in [None, Some("ec-p256"), Some("rsa-2048"), Some("rsa-4096")] {
        let again = store.create_key_pair("pair", list).unwrap();
        assert_eq!(point(&again), point(&first));
        settle();
    }
    assert_eq!(fs::read(file_of(&home, "pair")).unwrap(), before);
}

#[test]
fn kf_15_a_file_that_is_no_usable_pair_is_never_overwritten() {
    let (home, store) = store();
    let dir = TempDir::new().unwrap();
    let preloaded = dir.path().join("key");
    store
        .preload("p", &format!("file://{}", preloaded.display()))
        .unwrap();
    fs::create_dir(home.path().join("keys")).unwrap();
    let whole = pem();
    let encrypted =
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let contents: [&[u8]; 6] = [
        &whole[..whole.len() / 2],
        encrypted,
        b"-----BEGIN PUBLIC KEY-----\nMAAA\n-----END PUBLIC KEY-----\n",
        &[0x30, 0x82, 1, 2, 3],
        &[7; 32],
        b"\n",
    ];
    for (id, path) in [("p", preloaded), ("dynamic", file_of(&home, "dynamic"))] {
        for content in contents {
            fs::write(&path, content).unwrap();
            for err in [
                store.key_pair(id).unwrap_err(),
                store.create_key_pair(id, None).unwrap_err(),
            ] {
                assert!(!err.is_invalid_parameter(), "{err}");
                assert!(
                    err.to_string().contains(&path.display().to_string()),
                    "{err}"
                );
            }
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        // An empty file is what an interrupted writer of an earlier release leaves.
        fs::write(&path, "").unwrap();
        assert!(matches!(store.key_pair(id), Err(Error::Empty { .. })));
        store.create_key_pair(id, None).unwrap();
        assert!(
            fs::read(&path)
                .unwrap()
                .starts_with(b"-----BEGIN PRIVATE KEY-----")
        );
    }
}

#[test]
fn kf_11_missing_key_pairs() {
    let (home, store) = store();
    let err = store.key_pair("missing").unwrap_err();
    assert!(matches!(err, Error::NotFound { .. }) && err.is_invalid_parameter());
    assert!(!store.delete_key_pair("missing").unwrap());
    assert!(!home.path().join("keys").exists());
    store.create_key_pair("pair", None).unwrap();
    assert!(store.delete_key_pair("pair").unwrap());
    assert!(matches!(
        store.key_pair("pair"),
        Err(Error::NotFound { .. })
    ));
    assert_eq!(keys_in(&home), 0);
}

#[test]
fn keys_of_one_kind_are_never_taken_for_the_other() {
    let (_home, store) = store();
    store.create_key("symmetric", SIGN).unwrap();
    store.create_key_pair("pair", None).unwrap();
    settle();
    for _ in 0..2 {
        // First from the file, then with the other kind in memory.
        assert!(
            !store
                .key_pair("symmetric")
                .unwrap_err()
                .is_invalid_parameter()
        );
        assert!(store.cached_key_pair("symmetric").is_none());
        assert!(store.key("pair").unwrap_err().is_invalid_parameter());
        assert!(store.cached_key("pair").is_none());
        store.key("symmetric").unwrap();
        store.key_pair("pair").unwrap();
    }
    assert!(store.cached_key("symmetric").is_some());
    assert!(store.cached_key_pair("pair").is_some());
}

#[test]
fn a_parsed_pair_serves_until_its_file_changes() {
    let (home, store) = store();
    let (one, other) = (pem(), pem());
    let path = file_of(&home, "pair");
    fs::create_dir(home.path().join("keys")).unwrap();
    fs::write(&path, &one).unwrap();
    assert!(store.cached_key_pair("pair").is_none());
    settle();
    store.key_pair("pair").unwrap();
    assert_eq!(
        point(&store.cached_key_pair("pair").unwrap()),
        point_of(&one)
    );
    fs::write(&path, &other).unwrap();
    assert!(store.cached_key_pair("pair").is_none());
    assert_eq!(point(&store.key_pair("pair").unwrap()), point_of(&other));
    settle();
    store.key_pair("pair").unwrap();
    store.move_key_pair("pair", "moved").unwrap();
    assert!(store.cached_key_pair("pair").is_none());
    assert!(store.key_pair("pair").is_err());
    assert_eq!(point(&store.key_pair("moved").unwrap()), point_of(&other));
}

#[test]
fn rsa_pairs_of_files_work_and_are_not_for_the_loop() {
    let (_home, store) = store();
    let pair = store.create_key_pair("rsa", Some("rsa-2048")).unwrap();
    assert!(!pair.signs_at_once());
    assert!(matches!(
        pair.parameter(Parameter::Algorithm),
        Ok(ParameterValue::Rsa)
    ));
    let mut out = [0; 256];
    assert_eq!(
        pair.rsa_private(RsaPadding::Pkcs1, b"input", &mut out)
            .unwrap(),
        256
    );
    assert!(
        pair.sign_ecdsa(&[0; 32], &mut out)
            .unwrap_err()
            .is_invalid_parameter()
    );
    assert!(
        !store
            .create_key_pair("p384", Some("ec-p384"))
            .unwrap()
            .signs_at_once()
    );
}

#[test]
fn aead_with_keys_of_files_and_derived_keys() {
    let (_home, store) = store();
    let key = store
        .import_key("k", &(0..32).collect::<Vec<u8>>(), SIGN)
        .unwrap();
    let (iv, aad) = (
        [
            0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b,
        ],
        b"$iotedged",
    );
    let vector = "021c9ff97728a84bbca81b0fa111a98a588b3224b17077";
    let mut sealed = [0; 23];
    assert_eq!(key.encrypt(&iv, aad, b"aaaaaa", &mut sealed).unwrap(), 23);
    assert_eq!(hex(&sealed), vector);
    let mut opened = [0; 6];
    assert_eq!(key.decrypt(&iv, aad, &sealed, &mut opened).unwrap(), 6);
    assert_eq!(&opened, b"aaaaaa");

    let derived = key.derived(b"edgeAgent").unwrap();
    assert_eq!(
        derived.as_bytes(),
        key.derive(b"edgeAgent").unwrap().as_bytes()
    );
    let mut sealed = [0; 22];
    assert_eq!(
        derived.encrypt(&iv, aad, b"hello", &mut sealed).unwrap(),
        22
    );
    assert_eq!(hex(&sealed), "020396dbbe4844977212b83ce5d6dc292249e7e41ecd");
    let mut opened = [0; 5];
    assert_eq!(derived.decrypt(&iv, aad, &sealed, &mut opened).unwrap(), 5);
    assert_eq!(&opened, b"hello");
    assert!(
        !key.decrypt(&iv, aad, &sealed, &mut opened)
            .unwrap_err()
            .is_invalid_parameter()
    );
    assert!(
        key.decrypt(&iv, aad, b"", &mut opened)
            .unwrap_err()
            .is_invalid_parameter()
    );
    assert!(
        key.encrypt(&iv, aad, b"hello", &mut opened)
            .unwrap_err()
            .is_invalid_parameter()
    );

    for len in [16, 33] {
        let key = store.import_key("k", &vec![1; len], SIGN).unwrap();
        let err = key.encrypt(&iv, aad, b"", &mut [0; 17]).unwrap_err();
        assert!(
            !err.is_invalid_parameter() && err.to_string().contains(&len.to_string()),
            "{err}"
        );
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! Encryption and decryption.

use proptest::prelude::*;

use super::{fixture, hex};
use crate::aead::{Malformed, OVERHEAD, TAG_LEN};
use crate::openssl::{AesGcm, Error};

const AAD: &[u8] = b"$iotedged";

fn key() -> AesGcm {
    AesGcm::new(&(0..32).collect::<Vec<u8>>()).unwrap()
}

fn iv() -> Vec<u8> {
    hex("101112131415161718191a1b")
}

fn encrypt(key: &AesGcm, iv: &[u8], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = vec![0xee; plaintext.len() + OVERHEAD];
    let len = key.encrypt(iv, aad, plaintext, &mut out)?;
    assert_eq!(len, out.len());
    Ok(out)
}

fn decrypt(key: &AesGcm, iv: &[u8], aad: &[u8], whole: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = vec![0xee; whole.len()];
    let len = key.decrypt(iv, aad, whole, &mut out)?;
    out.truncate(len);
    Ok(out)
}

/// The same ciphertext in the layout of IoT Edge 1.1.
fn v1(v2: &[u8]) -> Vec<u8> {
    let (ciphertext, tag) = v2[1..].split_at(v2.len() - OVERHEAD);
    [&[1], tag, ciphertext].concat()
}

#[test]
fn kc_01_vectors_in_both_layouts() {
    let key = key();
    for (plaintext, v2, v1) in [
        (
            &b""[..],
            "02dcc74041b8db19a7806af91e220e3cd7",
            "01dcc74041b8db19a7806af91e220e3cd7",
        ),
        (
            b"aaaaaa",
            "021c9ff97728a84bbca81b0fa111a98a588b3224b17077",
            "014bbca81b0fa111a98a588b3224b170771c9ff97728a8",
        ),
        (
            b"hello, azure iot",
            "02159bf47a26e51ad2b0007a782f100627d04d1a654977695bfb9cd88f59695371",
            "01d04d1a654977695bfb9cd88f59695371159bf47a26e51ad2b0007a782f100627",
        ),
        (
            b"0123456789abcdef0",
            "024dcfaa257dfc0c84f24c697f6c1d0c35e7c9ef69aea325a97e4d8440e32fd34afb",
            "01c9ef69aea325a97e4d8440e32fd34afb4dcfaa257dfc0c84f24c697f6c1d0c35e7",
        ),
    ] {
        assert_eq!(encrypt(&key, &iv(), AAD, plaintext).unwrap(), hex(v2));
        assert_eq!(decrypt(&key, &iv(), AAD, &hex(v2)).unwrap(), plaintext);
        assert_eq!(decrypt(&key, &iv(), AAD, &hex(v1)).unwrap(), plaintext);
        assert_eq!(hex(v2).len(), plaintext.len() + 17);
    }
}

#[test]
fn kc_01_an_iv_of_another_length_between_two_of_twelve_bytes() {
    let key = key();
    let expected = hex("02159bf47a26e51ad2b0007a782f100627d04d1a654977695bfb9cd88f59695371");
    let sixteen = hex("202122232425262728292a2b2c2d2e2f");
    for _ in 0..2 {
        assert_eq!(
            encrypt(&key, &iv(), AAD, b"hello, azure iot").unwrap(),
            expected
        );
        assert_eq!(
            encrypt(&key, &sixteen, b"", b"hello").unwrap(),
            hex("02a3a9c88a73d8921b87d580d6988f235b21ca810548")
        );
    }
}

#[test]
fn kc_02_lengths_of_keys_and_ivs() {
    for len in [0, 1, 16, 24, 31, 33, 64] {
        let err = AesGcm::new(&vec![7; len]).unwrap_err();
        assert!(matches!(err, Error::KeyLen(found) if found == len));
        assert!(!err.is_invalid_parameter());
    }
    let key = key();
    for len in [0, 129, 1000] {
        let err = encrypt(&key, &vec![7; len], AAD, b"text").unwrap_err();
        assert!(matches!(err, Error::IvLen(found) if found == len));
        assert!(!err.is_invalid_parameter());
        let err = decrypt(&key, &vec![7; len], AAD, &[2; 20]).unwrap_err();
        assert!(matches!(err, Error::IvLen(found) if found == len));
    }
    for len in [1, 2, 11, 12, 13, 16, 64, 127, 128] {
        let iv = vec![7; len];
        let whole = encrypt(&key, &iv, AAD, b"text").unwrap();
        assert_eq!(decrypt(&key, &iv, AAD, &whole).unwrap(), b"text");
    }
}

#[test]
fn kc_02_malformed_is_the_callers_fault_and_a_wrong_tag_is_not() {
    let key = key();
    for (whole, expected) in [
        (&[][..], Malformed::Empty),
        (&[2; 16], Malformed::TooShort(16)),
        (&[1], Malformed::TooShort(1)),
        (&[3; 40], Malformed::UnknownLayout(3)),
    ] {
        let err = decrypt(&key, &iv(), AAD, whole).unwrap_err();
        assert!(matches!(err, Error::Malformed(found) if found == expected));
        assert!(err.is_invalid_parameter());
        assert!(err.to_string().starts_with("malformed ciphertext"), "{err}");
    }
    let err = decrypt(&key, &iv(), AAD, &[2; 40]).unwrap_err();
    assert!(matches!(err, Error::Authentication));
    assert!(!err.is_invalid_parameter());
    assert!(
        err.to_string().starts_with("authentication failed"),
        "{err}"
    );
}

#[test]
fn kc_02_nothing_changed_is_ever_decrypted() {
    let key = key();
    let good = encrypt(&key, &iv(), AAD, b"0123456789abcdef0").unwrap();
    for whole in [good.clone(), v1(&good)] {
        for at in 1..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            let mut out = [0xee; 40];
            let err = key.decrypt(&iv(), AAD, &changed, &mut out).unwrap_err();
            assert!(matches!(err, Error::Authentication));
            assert_eq!(out[..17], [0; 17], "nothing of the plaintext stays");
            assert_eq!(out[17..], [0xee; 23], "nothing else is touched");
            // The context has been through a failure and goes on working.
            assert_eq!(
                decrypt(&key, &iv(), AAD, &whole).unwrap(),
                b"0123456789abcdef0"
            );
        }
    }
    let other_iv = hex("101112131415161718191a1c");
    for (iv, aad) in [
        (&iv()[..], &b"$iotedge"[..]),
        (&iv(), b""),
        (&other_iv, AAD),
    ] {
        assert!(matches!(
            decrypt(&key, iv, aad, &good),
            Err(Error::Authentication)
        ));
    }
    // The other layout of the same bytes is another ciphertext.
    let mut relabelled = good;
    relabelled[0] = 1;
    assert!(matches!(
        decrypt(&key, &iv(), AAD, &relabelled),
        Err(Error::Authentication)
    ));
}

#[test]
fn what_release_1_6_0_encrypted() {
    use base64ct::{Base64, Encoding as _};
    let answer = std::fs::read_to_string(fixture("results/encrypt-aead.json")).unwrap();
    let ciphertext = answer.split('"').nth(3).unwrap();
    let whole = Base64::decode_vec(ciphertext).unwrap();
    assert_eq!(
        decrypt(&key(), b"iviviviviviv", b"aad", &whole).unwrap(),
        b"secret text"
    );
    assert_eq!(
        encrypt(&key(), b"iviviviviviv", b"aad", b"secret text").unwrap(),
        whole
    );
}

#[test]
fn output_that_is_too_small_and_output_that_just_fits() {
    let key = key();
    let mut out = [0xee; 21];
    let err = key.encrypt(&iv(), AAD, b"12345", &mut out).unwrap_err();
    assert!(matches!(err, Error::OutputTooSmall { enough: 22 }));
    assert!(err.is_invalid_parameter());
    assert_eq!(out, [0xee; 21]);

    let whole = encrypt(&key, &iv(), AAD, b"12345").unwrap();
    let err = key.decrypt(&iv(), AAD, &whole, &mut out[..4]).unwrap_err();
    assert!(matches!(err, Error::OutputTooSmall { enough: 5 }));
    assert_eq!(out, [0xee; 21]);
    assert_eq!(key.decrypt(&iv(), AAD, &whole, &mut out[..5]).unwrap(), 5);
    assert_eq!(&out[..6], b"12345\xee");
}

#[test]
fn many_threads_at_once() {
    let key = key();
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let key = &key;
            scope.spawn(move || {
                for round in 0..200_u8 {
                    let iv = [thread, round, 7];
                    let text = vec![thread ^ round; usize::from(round)];
                    let whole = encrypt(key, &iv, &[thread], &text).unwrap();
                    assert_eq!(decrypt(key, &iv, &[thread], &whole).unwrap(), text);
                }
            });
        }
    });
}

#[test]
fn several_megabytes() {
    let key = key();
    let text: Vec<u8> = (0..5_000_003_u32).map(|at| (at % 251) as u8).collect();
    let aad = &text[..3_000_001];
    let mut whole = encrypt(&key, &iv(), aad, &text).unwrap();
    assert_eq!(decrypt(&key, &iv(), aad, &whole).unwrap(), text);
    whole[4_999_999] ^= 1;
    let mut out = vec![0xee; text.len()];
    assert!(key.decrypt(&iv(), aad, &whole, &mut out).is_err());
    assert!(out.iter().all(|byte| *byte == 0));
}

#[test]
fn nothing_of_the_key_is_shown() {
    assert_eq!(format!("{:?}", key()), "AesGcm(..)");
}

proptest! {
    #[test]
    fn what_is_encrypted_decrypts(
        secret in any::<[u8; 32]>(),
        iv in proptest::collection::vec(any::<u8>(), 1..=128),
        aad in proptest::collection::vec(any::<u8>(), 0..40),
        text in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let key = AesGcm::new(&secret).unwrap();
        let whole = encrypt(&key, &iv, &aad, &text).unwrap();
        prop_assert_eq!(whole[0], 2);
        prop_assert_eq!(&decrypt(&key, &iv, &aad, &whole).unwrap(), &text);
        prop_assert_eq!(&decrypt(&key, &iv, &aad, &v1(&whole)).unwrap(), &text);

        // Against OpenSSL's function for one message with one context.
        let mut tag = [0; TAG_LEN];
        let cipher = ::openssl::symm::Cipher::aes_256_gcm();
        let ciphertext = ::openssl::symm::encrypt_aead(cipher, &secret, Some(&iv), &aad, &text, &mut tag).unwrap();
        prop_assert_eq!(&whole[1..], [&ciphertext[..], &tag].concat());
    }

    #[test]
    fn arbitrary_bytes_do_not_decrypt(whole in proptest::collection::vec(any::<u8>(), 0..80)) {
        prop_assert!(decrypt(&key(), &iv(), AAD, &whole).is_err());
    }
}

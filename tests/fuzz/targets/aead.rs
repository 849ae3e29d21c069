//! Ciphertexts: any bytes as one, and what we encrypt against RustCrypto's AES-GCM.
#![no_main]

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};
use aziot_crypto::aead::{Layout, OVERHEAD, Sealed, TAG_LEN};
use aziot_crypto::openssl::AesGcm;
use aziot_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let key = [input.byte(); 32];
    let flip = usize::from(input.byte());
    let (iv, aad) = (input.piece(), input.piece());
    let text = input.0;
    let ours = AesGcm::new(&key).expect("a key of 32 bytes");

    // Any bytes are taken apart or refused; they are nobody's ciphertext.
    let mut out = vec![0xee; text.len()];
    match Sealed::parse(text) {
        Ok(sealed) => {
            assert!(text.len() >= OVERHEAD && matches!(text[0], 1 | 2));
            assert_eq!(sealed.ciphertext.len() + OVERHEAD, text.len());
            assert_eq!(
                sealed.layout,
                if text[0] == 1 { Layout::V1 } else { Layout::V2 }
            );
        }
        Err(_) => assert!(text.len() < OVERHEAD || !matches!(text[0], 1 | 2)),
    }
    if ours.decrypt(iv, aad, text, &mut out).is_ok() {
        // Only the fuzzer's luck could do that, 2^-128 a time, were the tag not checked.
        panic!("a forged ciphertext was accepted");
    }
    assert!(
        out.iter().all(|byte| matches!(byte, 0 | 0xee)),
        "plaintext got out"
    );

    let mut whole = vec![0; text.len() + OVERHEAD];
    if let Err(error) = ours.encrypt(iv, aad, text, &mut whole) {
        assert!(iv.is_empty() || iv.len() > 128, "{error}");
        return;
    }
    let decrypted = |whole: &[u8]| {
        let mut out = vec![0; text.len()];
        let length = ours.decrypt(iv, aad, whole, &mut out).ok()?;
        out.truncate(length);
        Some(out)
    };
    assert_eq!(decrypted(&whole).as_deref(), Some(text));

    // The older layout holds the same parts in another order.
    let (ciphertext, tag) = whole[1..].split_at(text.len());
    let older = [&[1], tag, ciphertext].concat();
    assert_eq!(decrypted(&older).as_deref(), Some(text));
    assert_eq!(tag.len(), TAG_LEN);

    if let Ok(nonce) = <[u8; 12]>::try_from(iv) {
        let theirs = Aes256Gcm::new(&key.into());
        let payload = Payload { msg: text, aad };
        let expected = theirs
            .encrypt(&Nonce::from(nonce), payload)
            .expect("short enough");
        assert_eq!(whole[1..], expected);
    }

    // Nothing can be changed. (The first byte of an empty text changes nothing but the order of nothing.)
    for mut changed in [whole.clone(), older] {
        let at = flip % changed.len();
        changed[at] ^= 1 << (flip % 8);
        let same = text.is_empty() && at == 0 && matches!(changed[0], 1 | 2);
        assert!(
            same || decrypted(&changed).is_none(),
            "byte {at} was changed unnoticed"
        );
    }
    whole.pop();
    assert_eq!(decrypted(&whole), None);
});

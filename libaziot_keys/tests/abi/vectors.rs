//! The vectors of the specification of the key library, sections B6 to B10, and checks that hold them against keys
//! wherever these live.

use aziot_crypto::keys_abi::*;
use openssl::bn::{BigNum, BigNumContext};
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sha::sha256;

use crate::common::{Keys, hex};

pub const IV: &str = "101112131415161718191a1b";
pub const AAD: &[u8] = b"$iotedged";

/// Plaintext, ciphertext in layout 2, ciphertext in layout 1; with [`IV`], [`AAD`] and the base key.
pub const AEAD: [(&[u8], &str, &str); 4] = [
    (
        b"",
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
];

/// Holds the vectors of B8 against a key that was imported as the bytes 0 to 31.
pub fn check_aead(keys: &Keys, id: &str) {
    let iv = hex(IV);
    let parameters = [iv.as_slice(), AAD];
    for (plaintext, v2, v1) in AEAD {
        let sealed = keys.encrypt(id, None, parameters, plaintext).unwrap();
        assert_eq!((sealed.len(), &sealed), (plaintext.len() + 17, &hex(v2)));
        for frame in [v2, v1] {
            let opened = keys.decrypt(id, None, parameters, &hex(frame)).unwrap();
            assert_eq!(opened, plaintext, "{frame}");
        }
    }
    let long_iv = hex("202122232425262728292a2b2c2d2e2f");
    let sealed = hex("02a3a9c88a73d8921b87d580d6988f235b21ca810548");
    let parameters: [&[u8]; 2] = [&long_iv, b""];
    assert_eq!(
        keys.encrypt(id, None, parameters, b"hello").unwrap(),
        sealed
    );
    assert_eq!(
        keys.decrypt(id, None, parameters, &sealed).unwrap(),
        b"hello"
    );
}

/// Holds what ciphertexts are refused for against a key, wherever it lives.
pub fn check_aead_refusals(keys: &Keys, id: &str) {
    let iv = hex(IV);
    let parameters = [iv.as_slice(), AAD];
    let sealed = keys.encrypt(id, None, parameters, b"plaintext").unwrap();
    for malformed in [&[][..], &[2], &[1; 16], &[2; 16], &[0; 40], &[3; 40]] {
        let refused = keys.decrypt(id, None, parameters, malformed);
        assert_eq!(refused, Err(Rc::INVALID_PARAMETER), "{malformed:02x?}");
    }
    for at in 1..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 0x10;
        let refused = keys.decrypt(id, None, parameters, &changed);
        assert_eq!(refused, Err(Rc::EXTERNAL), "byte {at}");
    }
    for parameters in [[b"other iv 123".as_slice(), AAD], [&iv, b"other"]] {
        let refused = keys.decrypt(id, None, parameters, &sealed);
        assert_eq!(refused, Err(Rc::EXTERNAL));
    }
    let no_parameters = None::<&EncryptAeadParameters>;
    for function in [keys.list.public.encrypt, keys.list.public.decrypt] {
        let refused = |mechanism| keys.crypt_as(function, id, mechanism, no_parameters, &sealed);
        assert_eq!(refused(ENCRYPT_MECHANISM_AEAD), Err(Rc::INVALID_PARAMETER));
        assert_eq!(
            refused(ENCRYPT_MECHANISM_DERIVED),
            Err(Rc::INVALID_PARAMETER)
        );
        assert_eq!(refused(0), Err(Rc::INVALID_PARAMETER));
        assert_eq!(refused(5), Err(Rc::INVALID_PARAMETER));
    }
    for mechanism in [
        ENCRYPT_MECHANISM_RSA_PKCS1,
        ENCRYPT_MECHANISM_RSA_NO_PADDING,
    ] {
        let refused = keys.crypt_as(
            keys.list.public.decrypt,
            id,
            mechanism,
            no_parameters,
            &sealed,
        );
        assert_eq!(refused, Err(Rc::INVALID_PARAMETER));
    }
    let missing = keys.decrypt("missing", None, parameters, &sealed);
    assert_eq!(missing, Err(Rc::INVALID_PARAMETER));
}

/// Holds the vectors of B9 against a key that was imported as the bytes 0 to 31.
pub fn check_derivation(keys: &Keys, id: &str) {
    for (data, derived) in [
        (
            b"".as_slice(),
            "d38b42096d80f45f826b44a9d5607de72496a415d3f4a1a8c88e3bb9da8dc1cb",
        ),
        (
            b"edgeAgent",
            "97112774bdb9e7b8b0b24d0e1722f71705318702686e831642c9126f8d0e79fc",
        ),
        (
            &[0, 1, 2],
            "bf76611b6b1bcb37147401a745a954811257202eff22ba8a0acf3cc08a7b0504",
        ),
    ] {
        assert_eq!(keys.derive(id, data).unwrap(), hex(derived));
    }
    assert_eq!(
        keys.sign(id, b"message").unwrap(),
        hex("6297b77508a1a30ea4dfadd8f847c31b49aba45de10a79daf721d3f7ec112a24")
    );
    assert_eq!(
        keys.sign_derived(id, b"edgeAgent", b"message").unwrap(),
        hex("a7717cd39805af75775dbdd37fdbacc3eaf63ed273e24ea579347c5b98f57bc7")
    );
    let parameters = [&hex(IV), AAD];
    let sealed = hex("020396dbbe4844977212b83ce5d6dc292249e7e41ecd");
    assert_eq!(
        keys.encrypt(id, Some(b"edgeAgent"), parameters, b"hello")
            .unwrap(),
        sealed
    );
    assert_eq!(
        keys.decrypt(id, Some(b"edgeAgent"), parameters, &sealed)
            .unwrap(),
        b"hello"
    );
    // In the older layout too.
    let mut older = vec![1];
    older.extend(&sealed[6..]);
    older.extend(&sealed[1..6]);
    assert_eq!(
        keys.decrypt(id, Some(b"edgeAgent"), parameters, &older)
            .unwrap(),
        b"hello"
    );
    assert_eq!(
        keys.decrypt(id, Some(b"other"), parameters, &sealed),
        Err(Rc::EXTERNAL)
    );
}

/// Holds what derivation is refused for against a key, wherever it lives.
pub fn check_derivation_refusals(keys: &Keys, id: &str) {
    const INVALID: Rc = Rc::INVALID_PARAMETER;
    let data = b"edgeAgent";
    let signing = SignDerivedParameters {
        derivation_data: data.as_ptr(),
        derivation_data_len: data.len(),
        mechanism: SIGN_MECHANISM_HMAC_SHA256,
        parameters: std::ptr::null(),
    };
    let sign = |id, parameters: Option<&SignDerivedParameters>| {
        keys.sign_as(id, SIGN_MECHANISM_DERIVED, parameters, b"message")
    };
    assert_eq!(sign(id, Some(&signing)).unwrap().len(), 32);
    assert_eq!(sign(id, None), Err(INVALID));
    for mechanism in [0, SIGN_MECHANISM_ECDSA, SIGN_MECHANISM_DERIVED, 4] {
        let nested = SignDerivedParameters {
            mechanism,
            parameters: (&raw const signing).cast(),
            ..signing
        };
        assert_eq!(sign(id, Some(&nested)), Err(INVALID), "{mechanism}");
    }
    let no_data = SignDerivedParameters {
        derivation_data: std::ptr::null(),
        derivation_data_len: 0,
        ..signing
    };
    assert_eq!(sign(id, Some(&no_data)), Err(INVALID));
    assert_eq!(sign("missing", Some(&signing)), Err(INVALID));
    assert_eq!(keys.derive("missing", b""), Err(INVALID));
    for unknown in [0, 4, u32::MAX] {
        assert_eq!(keys.sign_as(id, unknown, None, b""), Err(INVALID));
    }

    let aead = EncryptAeadParameters {
        iv: data.as_ptr(),
        iv_len: data.len(),
        aad: std::ptr::null(),
        aad_len: 0,
    };
    let sealing = EncryptDerivedParameters {
        derivation_data: data.as_ptr(),
        derivation_data_len: data.len(),
        mechanism: ENCRYPT_MECHANISM_AEAD,
        parameters: (&raw const aead).cast(),
    };
    for function in [keys.list.public.encrypt, keys.list.public.decrypt] {
        let crypt = |id, parameters: Option<&EncryptDerivedParameters>| {
            keys.crypt_as(
                function,
                id,
                ENCRYPT_MECHANISM_DERIVED,
                parameters,
                &[2; 20],
            )
        };
        assert_eq!(crypt(id, None), Err(INVALID));
        assert_eq!(crypt("missing", Some(&sealing)), Err(INVALID));
        let no_parameters = EncryptDerivedParameters {
            parameters: std::ptr::null(),
            ..sealing
        };
        assert_eq!(crypt(id, Some(&no_parameters)), Err(INVALID));
        let no_data = EncryptDerivedParameters {
            derivation_data: std::ptr::null(),
            derivation_data_len: 0,
            ..sealing
        };
        assert_eq!(crypt(id, Some(&no_data)), Err(INVALID));
        for mechanism in [0, 2, 3, ENCRYPT_MECHANISM_DERIVED, 5] {
            let nested = EncryptDerivedParameters {
                mechanism,
                parameters: (&raw const sealing).cast(),
                ..sealing
            };
            assert_eq!(crypt(id, Some(&nested)), Err(INVALID), "{mechanism}");
        }
    }
}

/// Holds what `verify` answers against a key that was imported as the bytes 0 to 31.
pub fn check_verification(keys: &Keys, id: &str) {
    const HMAC: u32 = SIGN_MECHANISM_HMAC_SHA256;
    let tag = keys.sign(id, b"message").unwrap();
    assert_eq!(keys.verify(id, HMAC, b"message", &tag), Ok(true));
    assert_eq!(keys.verify(id, HMAC, b"other", &tag), Ok(false));
    assert_eq!(keys.verify(id, HMAC, b"message", b""), Ok(false));
    assert_eq!(keys.verify(id, HMAC, b"message", &tag[..31]), Ok(false));
    assert_eq!(
        keys.verify(id, HMAC, b"message", &[&tag[..], &[0]].concat()),
        Ok(false)
    );
    for at in [0, 31] {
        let mut wrong = tag.clone();
        wrong[at] ^= 1;
        assert_eq!(keys.verify(id, HMAC, b"message", &wrong), Ok(false));
    }
    for mechanism in [0, SIGN_MECHANISM_ECDSA, SIGN_MECHANISM_DERIVED, 4] {
        let refused = keys.verify(id, mechanism, b"message", &tag);
        assert_eq!(refused, Err(Rc::INVALID_PARAMETER));
    }
    let missing = keys.verify("missing", HMAC, b"message", &tag);
    assert_eq!(missing, Err(Rc::INVALID_PARAMETER));
}

/// `DigestInfo` of SHA-256 and the hash of `hello\n`.
pub const DIGEST_INFO: &str = "3031300d0609608648016503040201050004205891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

/// SHA-256 of the signature of [`DIGEST_INFO`] with [`rsa_key`].
pub const RSA_SIGNATURE_HASH: &str =
    "1d201f840ce3d609b82ddd1f97bdc8ba7927c65272053be79374a322d9e469c1";

/// The RSA key of B10, made from its two seeds.
pub fn rsa_key() -> PKey<Private> {
    let mut context = BigNumContext::new().unwrap();
    let mut prime = |seed: &str| {
        let bytes: Vec<u8> = (0..4)
            .flat_map(|n| sha256(&[seed.as_bytes(), &[n]].concat()))
            .collect();
        let mut number = BigNum::from_slice(&bytes).unwrap();
        number.set_bit(1023).unwrap();
        number.set_bit(1022).unwrap();
        number.set_bit(0).unwrap();
        loop {
            let mut below = number.to_owned().unwrap();
            below.sub_word(1).unwrap();
            if number.is_prime(64, &mut context).unwrap() && below.mod_word(65537).unwrap() != 0 {
                return number;
            }
            number.add_word(2).unwrap();
        }
    };
    let (p, q) = (prime("aziot-rsa-p"), prime("aziot-rsa-q"));
    let big = || BigNum::new().unwrap();
    let (mut n, mut d, mut phi) = (big(), big(), big());
    let (mut dmp1, mut dmq1, mut iqmp) = (big(), big(), big());
    let e = BigNum::from_u32(65537).unwrap();
    let (mut p1, mut q1) = (p.to_owned().unwrap(), q.to_owned().unwrap());
    p1.sub_word(1).unwrap();
    q1.sub_word(1).unwrap();
    n.checked_mul(&p, &q, &mut context).unwrap();
    phi.checked_mul(&p1, &q1, &mut context).unwrap();
    d.mod_inverse(&e, &phi, &mut context).unwrap();
    dmp1.nnmod(&d, &p1, &mut context).unwrap();
    dmq1.nnmod(&d, &q1, &mut context).unwrap();
    iqmp.mod_inverse(&q, &p, &mut context).unwrap();
    let modulus = n.to_vec_padded(256).unwrap();
    assert_eq!(
        sha256(&modulus).as_slice(),
        hex("bac055f15c02ace2439f9b73e71b3d23db56165e9fad53fa304488de7fb000ef"),
        "the key that the vector was made with"
    );
    let rsa = Rsa::from_private_components(n, e, d, p, q, dmp1, dmq1, iqmp).unwrap();
    PKey::from_rsa(rsa).unwrap()
}

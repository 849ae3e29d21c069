//! The header against the Rust types: a C program that is generated from these, with every size, offset, constant and
//! signature, compiles as C and as C++.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::mem::{offset_of, size_of};

use aziot_crypto::keys_abi::*;

/// The constants, by their name in C without the prefix.
const CONSTANTS: [(&str, u32); 22] = [
    ("RC_OK", Rc::OK.0),
    ("RC_ERR_INVALID_PARAMETER", Rc::INVALID_PARAMETER.0),
    ("RC_ERR_EXTERNAL", Rc::EXTERNAL.0),
    ("VERSION_2_0_0_0", VERSION_2_0_0_0),
    ("VERSION_2_1_0_0", VERSION_2_1_0_0),
    (
        "KEY_PAIR_PARAMETER_TYPE_ALGORITHM",
        KEY_PAIR_PARAMETER_TYPE_ALGORITHM,
    ),
    (
        "KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID",
        KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID,
    ),
    (
        "KEY_PAIR_PARAMETER_TYPE_EC_POINT",
        KEY_PAIR_PARAMETER_TYPE_EC_POINT,
    ),
    (
        "KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS",
        KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS,
    ),
    (
        "KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT",
        KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT,
    ),
    (
        "KEY_PAIR_PARAMETER_ALGORITHM_EC",
        KEY_PAIR_PARAMETER_ALGORITHM_EC,
    ),
    (
        "KEY_PAIR_PARAMETER_ALGORITHM_RSA",
        KEY_PAIR_PARAMETER_ALGORITHM_RSA,
    ),
    ("KEY_USAGE_DERIVE", KEY_USAGE_DERIVE),
    ("KEY_USAGE_ENCRYPT", KEY_USAGE_ENCRYPT),
    ("KEY_USAGE_SIGN", KEY_USAGE_SIGN),
    ("SIGN_MECHANISM_ECDSA", SIGN_MECHANISM_ECDSA),
    ("SIGN_MECHANISM_HMAC_SHA256", SIGN_MECHANISM_HMAC_SHA256),
    ("SIGN_MECHANISM_DERIVED", SIGN_MECHANISM_DERIVED),
    ("ENCRYPT_MECHANISM_AEAD", ENCRYPT_MECHANISM_AEAD),
    ("ENCRYPT_MECHANISM_RSA_PKCS1", ENCRYPT_MECHANISM_RSA_PKCS1),
    (
        "ENCRYPT_MECHANISM_RSA_NO_PADDING",
        ENCRYPT_MECHANISM_RSA_NO_PADDING,
    ),
    ("ENCRYPT_MECHANISM_DERIVED", ENCRYPT_MECHANISM_DERIVED),
];

/// The types of the members that are functions, as a C caller who knows only the specification writes them.
const SIGNATURES: [(&str, &str); 15] = [
    ("set_parameter", "const char *, const char *"),
    (
        "create_key_pair_if_not_exists",
        "const char *, const char *",
    ),
    ("move_key_pair", "const char *, const char *"),
    ("load_key_pair", "const char *"),
    (
        "get_key_pair_parameter",
        "const char *, unsigned int, unsigned char *, uintptr_t *",
    ),
    ("delete_key_pair", "const char *"),
    ("create_key_if_not_exists", "const char *, unsigned int"),
    ("load_key", "const char *"),
    (
        "import_key",
        "const char *, const uint8_t *, uintptr_t, unsigned int",
    ),
    ("delete_key", "const char *"),
    (
        "derive_key",
        "const char *, const uint8_t *, uintptr_t, unsigned char *, uintptr_t *",
    ),
    (
        "sign",
        "const char *, unsigned int, const void *, const unsigned char *, uintptr_t, unsigned char *, uintptr_t *",
    ),
    (
        "verify",
        "const char *, unsigned int, const void *, const unsigned char *, uintptr_t, const unsigned char *, uintptr_t, int *",
    ),
    (
        "encrypt",
        "const char *, unsigned int, const void *, const unsigned char *, uintptr_t, unsigned char *, uintptr_t *",
    ),
    (
        "decrypt",
        "const char *, unsigned int, const void *, const unsigned char *, uintptr_t, unsigned char *, uintptr_t *",
    ),
];

/// A member and where it stands.
type Offset = (&'static str, usize);

/// Sizes and offsets: the name of a structure in C, its size, its members.
fn layouts() -> Vec<(&'static str, usize, Vec<Offset>)> {
    macro_rules! layout {
        ($name:literal, $type:ident, $($member:ident),+) => {
            ($name, size_of::<$type>(), vec![$((stringify!($member), offset_of!($type, $member))),+])
        };
    }
    vec![
        layout!("FUNCTION_LIST", FunctionList, version),
        layout!(
            "SIGN_DERIVED_PARAMETERS",
            SignDerivedParameters,
            derivation_data,
            derivation_data_len,
            mechanism,
            parameters
        ),
        layout!(
            "ENCRYPT_DERIVED_PARAMETERS",
            EncryptDerivedParameters,
            derivation_data,
            derivation_data_len,
            mechanism,
            parameters
        ),
        layout!(
            "ENCRYPT_AEAD_PARAMETERS",
            EncryptAeadParameters,
            iv,
            iv_len,
            aad,
            aad_len
        ),
        layout!(
            "FUNCTION_LIST_2_0_0_0",
            FunctionList2_0_0_0,
            base,
            set_parameter,
            create_key_pair_if_not_exists,
            load_key_pair,
            get_key_pair_parameter,
            create_key_if_not_exists,
            load_key,
            import_key,
            derive_key,
            sign,
            verify,
            encrypt,
            decrypt
        ),
        layout!(
            "FUNCTION_LIST_2_1_0_0",
            FunctionList2_1_0_0,
            base,
            set_parameter,
            create_key_pair_if_not_exists,
            move_key_pair,
            load_key_pair,
            get_key_pair_parameter,
            delete_key_pair,
            create_key_if_not_exists,
            load_key,
            import_key,
            delete_key,
            derive_key,
            sign,
            verify,
            encrypt,
            decrypt
        ),
    ]
}

fn program() -> String {
    let mut text = String::from(
        "#include \"aziot-keys.h\"\n#include \"aziot-keys.h\"\n#include <stddef.h>\n\
         #ifdef __cplusplus\n#define CHECK(c) static_assert(c, #c)\n#else\n#define CHECK(c) _Static_assert(c, #c)\n#endif\n",
    );
    for name in [
        "RC",
        "VERSION",
        "KEY_PAIR_PARAMETER_TYPE",
        "KEY_PAIR_PARAMETER_ALGORITHM",
        "KEY_USAGE",
        "SIGN_MECHANISM",
        "ENCRYPT_MECHANISM",
    ] {
        // Of the same type, not only of the same size.
        writeln!(
            text,
            "extern unsigned int a_{name}; extern AZIOT_KEYS_{name} a_{name};"
        )
        .unwrap();
    }
    for (name, value) in CONSTANTS {
        writeln!(text, "CHECK(AZIOT_KEYS_{name} == {value}u);").unwrap();
    }
    for (name, size, members) in layouts() {
        writeln!(text, "CHECK(sizeof(AZIOT_KEYS_{name}) == {size});").unwrap();
        for (member, offset) in members {
            writeln!(
                text,
                "CHECK(offsetof(AZIOT_KEYS_{name}, {member}) == {offset});"
            )
            .unwrap();
        }
    }
    text.push_str("void check_types(const AZIOT_KEYS_FUNCTION_LIST_2_0_0_0 *, const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *);\n");
    text.push_str(
        "void check_types(const AZIOT_KEYS_FUNCTION_LIST_2_0_0_0 *old, const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *list) {\n",
    );
    for (member, arguments) in SIGNATURES {
        writeln!(
            text,
            "    {{ unsigned int (*f)({arguments}) = list->{member}; (void)f; }}"
        )
        .unwrap();
        if !matches!(member, "move_key_pair" | "delete_key_pair" | "delete_key") {
            writeln!(
                text,
                "    {{ unsigned int (*f)({arguments}) = old->{member}; (void)f; }}"
            )
            .unwrap();
        }
    }
    text.push_str(
        "    { unsigned int (*f)(unsigned int, const AZIOT_KEYS_FUNCTION_LIST **) = aziot_keys_get_function_list; (void)f; }\n}\n",
    );
    text
}

#[test]
fn ka_03_ka_04_the_header_says_what_the_rust_types_say_in_c_and_in_cpp() {
    let (_dir, dir) = common::scratch();
    let source = dir.join("check.c");
    fs::write(&source, program()).unwrap();
    let include = common::here().join("include");
    let (source, include) = (source.to_str().unwrap(), include.to_str().unwrap());
    for language in [
        ["-x", "c", "-std=c99"],
        ["-x", "c", "-std=c11"],
        ["-x", "c++", "-std=c++11"],
        ["-x", "c++", "-std=c++20"],
    ] {
        let pedantic = [
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Wno-c11-extensions",
            "-Werror",
        ];
        // C99 has no static assertions; without them the header alone has to do.
        let c99 = language[2] == "-std=c99";
        let checks: &[&str] = if c99 {
            &["-D_Static_assert(c,s)=struct unused"]
        } else {
            &[]
        };
        let mut arguments = vec!["-fsyntax-only", "-I", include];
        arguments.extend(language);
        arguments.extend(pedantic);
        arguments.extend(checks);
        arguments.push(source);
        common::cc(&arguments);
    }
}

/// A wrong offset or value does not compile, so the test above can fail.
#[test]
fn a_wrong_offset_or_value_does_not_compile() {
    let (_dir, dir) = common::scratch();
    let source = dir.join("check.c");
    let include = common::here().join("include");
    for (right, wrong) in [
        (
            "AZIOT_KEYS_KEY_USAGE_ENCRYPT == 16u",
            "AZIOT_KEYS_KEY_USAGE_ENCRYPT == 2u",
        ),
        ("_2_1_0_0, delete_key) == 80", "_2_1_0_0, delete_key) == 72"),
        (
            "(*f)(const char *, unsigned int) =",
            "(*f)(const char *, long) =",
        ),
    ] {
        let program = program();
        assert!(program.contains(right), "{right}");
        fs::write(&source, program.replace(right, wrong)).unwrap();
        let output = std::process::Command::new("cc")
            .args(["-fsyntax-only", "-std=c11", "-Werror", "-I"])
            .arg(&include)
            .arg(&source)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{wrong}");
    }
}

#[test]
fn ka_04_the_header_has_these_constants_and_no_others() {
    let header = fs::read_to_string(common::here().join("include/aziot-keys.h")).unwrap();
    let defined: BTreeSet<&str> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define AZIOT_KEYS_"))
        .filter_map(|rest| rest.split_once(' '))
        .map(|(name, _)| name)
        .collect();
    let expected: BTreeSet<&str> = CONSTANTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(defined, expected);
    // As the specification writes them: plain decimal numbers, and an alias.
    for line in header
        .lines()
        .filter(|line| line.starts_with("#define AZIOT_KEYS_"))
    {
        if let Some(value) = line.split(' ').nth(2) {
            let alias = value == "AZIOT_KEYS_KEY_USAGE_DERIVE";
            assert!(alias || value.parse::<u32>().is_ok(), "{line}");
        }
    }
}

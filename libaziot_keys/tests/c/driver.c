/*
 * Drives a key library as a C program does, through the public header.
 *
 *     driver abi LIBRARY HOME          checks the ABI; prints what is wrong, exits 1 if anything is
 *     driver run LIBRARY HOME OP...    does the operations in order; exits 10 + the first result that is not 0
 *
 * Operations: create ID, import ID TEXT, load ID, delete ID, pair ID ALGORITHMS, load-pair ID, delete-pair ID,
 * move FROM TO, hmac ID TEXT, ecdsa ID TEXT, encrypt ID TEXT, decrypt ID TEXT, preload ID URI, set NAME VALUE.
 */
#include "aziot-keys.h"
/* Twice, for the include guard. */
#include "aziot-keys.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD sizeof(void *)
#define FIELD_AT(list, field, index) \
    _Static_assert(offsetof(AZIOT_KEYS_FUNCTION_LIST_##list, field) == (index) * WORD, #list " " #field)

_Static_assert(sizeof(AZIOT_KEYS_RC) == 4, "RC");
_Static_assert(sizeof(AZIOT_KEYS_VERSION) == 4, "VERSION");
_Static_assert(sizeof(AZIOT_KEYS_FUNCTION_LIST) == 4, "FUNCTION_LIST");
_Static_assert(sizeof(AZIOT_KEYS_FUNCTION_LIST_2_0_0_0) == 13 * WORD, "2.0.0.0");
_Static_assert(sizeof(AZIOT_KEYS_FUNCTION_LIST_2_1_0_0) == 16 * WORD, "2.1.0.0");
_Static_assert(sizeof(AZIOT_KEYS_SIGN_DERIVED_PARAMETERS) == 4 * WORD, "sign derived");
_Static_assert(sizeof(AZIOT_KEYS_ENCRYPT_DERIVED_PARAMETERS) == 4 * WORD, "encrypt derived");
_Static_assert(sizeof(AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS) == 4 * WORD, "aead");
_Static_assert(offsetof(AZIOT_KEYS_SIGN_DERIVED_PARAMETERS, derivation_data_len) == WORD, "derivation_data_len");
_Static_assert(offsetof(AZIOT_KEYS_SIGN_DERIVED_PARAMETERS, mechanism) == 2 * WORD, "mechanism");
_Static_assert(offsetof(AZIOT_KEYS_SIGN_DERIVED_PARAMETERS, parameters) == 3 * WORD, "parameters");
_Static_assert(offsetof(AZIOT_KEYS_ENCRYPT_DERIVED_PARAMETERS, mechanism) == 2 * WORD, "mechanism");
_Static_assert(offsetof(AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS, iv_len) == WORD, "iv_len");
_Static_assert(offsetof(AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS, aad) == 2 * WORD, "aad");
_Static_assert(offsetof(AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS, aad_len) == 3 * WORD, "aad_len");

FIELD_AT(2_0_0_0, base, 0);
FIELD_AT(2_0_0_0, set_parameter, 1);
FIELD_AT(2_0_0_0, create_key_pair_if_not_exists, 2);
FIELD_AT(2_0_0_0, load_key_pair, 3);
FIELD_AT(2_0_0_0, get_key_pair_parameter, 4);
FIELD_AT(2_0_0_0, create_key_if_not_exists, 5);
FIELD_AT(2_0_0_0, load_key, 6);
FIELD_AT(2_0_0_0, import_key, 7);
FIELD_AT(2_0_0_0, derive_key, 8);
FIELD_AT(2_0_0_0, sign, 9);
FIELD_AT(2_0_0_0, verify, 10);
FIELD_AT(2_0_0_0, encrypt, 11);
FIELD_AT(2_0_0_0, decrypt, 12);

FIELD_AT(2_1_0_0, base, 0);
FIELD_AT(2_1_0_0, set_parameter, 1);
FIELD_AT(2_1_0_0, create_key_pair_if_not_exists, 2);
FIELD_AT(2_1_0_0, move_key_pair, 3);
FIELD_AT(2_1_0_0, load_key_pair, 4);
FIELD_AT(2_1_0_0, get_key_pair_parameter, 5);
FIELD_AT(2_1_0_0, delete_key_pair, 6);
FIELD_AT(2_1_0_0, create_key_if_not_exists, 7);
FIELD_AT(2_1_0_0, load_key, 8);
FIELD_AT(2_1_0_0, import_key, 9);
FIELD_AT(2_1_0_0, delete_key, 10);
FIELD_AT(2_1_0_0, derive_key, 11);
FIELD_AT(2_1_0_0, sign, 12);
FIELD_AT(2_1_0_0, verify, 13);
FIELD_AT(2_1_0_0, encrypt, 14);
FIELD_AT(2_1_0_0, decrypt, 15);

_Static_assert(AZIOT_KEYS_RC_OK == 0, "rc");
_Static_assert(AZIOT_KEYS_RC_ERR_INVALID_PARAMETER == 1, "rc");
_Static_assert(AZIOT_KEYS_RC_ERR_EXTERNAL == 2, "rc");
_Static_assert(AZIOT_KEYS_VERSION_2_0_0_0 == 0x02000000, "version");
_Static_assert(AZIOT_KEYS_VERSION_2_1_0_0 == 0x02010000, "version");
_Static_assert(AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_ALGORITHM == 1, "type");
_Static_assert(AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID == 2, "type");
_Static_assert(AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_POINT == 3, "type");
_Static_assert(AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS == 4, "type");
_Static_assert(AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT == 5, "type");
_Static_assert(AZIOT_KEYS_KEY_PAIR_PARAMETER_ALGORITHM_EC == 1, "algorithm");
_Static_assert(AZIOT_KEYS_KEY_PAIR_PARAMETER_ALGORITHM_RSA == 2, "algorithm");
_Static_assert(AZIOT_KEYS_KEY_USAGE_DERIVE == 1, "usage");
_Static_assert(AZIOT_KEYS_KEY_USAGE_ENCRYPT == 16, "usage");
_Static_assert(AZIOT_KEYS_KEY_USAGE_SIGN == AZIOT_KEYS_KEY_USAGE_DERIVE, "usage");
_Static_assert(AZIOT_KEYS_SIGN_MECHANISM_ECDSA == 1, "sign");
_Static_assert(AZIOT_KEYS_SIGN_MECHANISM_HMAC_SHA256 == 2, "sign");
_Static_assert(AZIOT_KEYS_SIGN_MECHANISM_DERIVED == 3, "sign");
_Static_assert(AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD == 1, "encrypt");
_Static_assert(AZIOT_KEYS_ENCRYPT_MECHANISM_RSA_PKCS1 == 2, "encrypt");
_Static_assert(AZIOT_KEYS_ENCRYPT_MECHANISM_RSA_NO_PADDING == 3, "encrypt");
_Static_assert(AZIOT_KEYS_ENCRYPT_MECHANISM_DERIVED == 4, "encrypt");

typedef AZIOT_KEYS_RC getter(AZIOT_KEYS_VERSION, const AZIOT_KEYS_FUNCTION_LIST **);

static int failures;

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            printf("line %d: %s\n", __LINE__, #condition); \
            failures++; \
        } \
    } while (0)

#define CHECK_RC(expected, call) \
    do { \
        AZIOT_KEYS_RC rc_ = (call); \
        if (rc_ != (expected)) { \
            printf("line %d: %s answered %u, not %d\n", __LINE__, #call, rc_, (expected)); \
            failures++; \
        } \
    } while (0)

static void check_versions(getter *get) {
    const AZIOT_KEYS_FUNCTION_LIST *list = NULL;
    const AZIOT_KEYS_FUNCTION_LIST *again = NULL;
    AZIOT_KEYS_VERSION good[] = {AZIOT_KEYS_VERSION_2_0_0_0, AZIOT_KEYS_VERSION_2_1_0_0};
    AZIOT_KEYS_VERSION bad[] = {0, 0x01000000, 0x02000001, 0x02010001, 0x02020000, 0x03000000, 0xffffffff};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK_RC(0, get(good[i], &list));
        CHECK(list && list->version == good[i]);
        CHECK_RC(0, get(good[i], &again));
        CHECK(list == again);
        CHECK_RC(1, get(good[i], NULL));
        /* No member is NULL. */
        void *const *members = (void *const *)(const void *)list;
        size_t n = good[i] == AZIOT_KEYS_VERSION_2_0_0_0 ? 13 : 16;
        for (size_t m = 1; m < n; m++)
            CHECK(members[m] != NULL);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        list = NULL;
        CHECK_RC(1, get(bad[i], &list));
        CHECK(list == NULL);
        CHECK_RC(1, get(bad[i], NULL));
    }
}

static void check_buffers(const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys) {
    unsigned char out[64];
    unsigned char message[] = "message";
    uintptr_t len;
    AZIOT_KEYS_SIGN_DERIVED_PARAMETERS derived = {
        message, sizeof message - 1, AZIOT_KEYS_SIGN_MECHANISM_HMAC_SHA256, NULL};
    AZIOT_KEYS_SIGN_MECHANISM mechanisms[] = {AZIOT_KEYS_SIGN_MECHANISM_HMAC_SHA256, AZIOT_KEYS_SIGN_MECHANISM_DERIVED};

    CHECK_RC(0, keys->create_key_if_not_exists("key", AZIOT_KEYS_KEY_USAGE_SIGN));
    for (size_t i = 0; i < 2; i++) {
        len = 12345;
        CHECK_RC(0, keys->sign("key", mechanisms[i], &derived, message, 7, NULL, &len));
        CHECK(len == 32);
        memset(out, 0xee, sizeof out);
        len = 31;
        CHECK_RC(1, keys->sign("key", mechanisms[i], &derived, message, 7, out, &len));
        CHECK(len == 32 && out[0] == 0xee && out[31] == 0xee);
        CHECK_RC(0, keys->sign("key", mechanisms[i], &derived, message, 7, out, &len));
        CHECK(len == 32 && out[32] == 0xee);
        len = sizeof out;
        CHECK_RC(0, keys->sign("key", mechanisms[i], &derived, message, 7, out, &len));
        CHECK(len == 32 && out[32] == 0xee);
        CHECK_RC(1, keys->sign("missing", mechanisms[i], &derived, message, 7, out, &len));
        /* No bytes are fine, no pointer is not. */
        len = sizeof out;
        CHECK_RC(0, keys->sign("key", mechanisms[i], &derived, message, 0, out, &len));
        CHECK_RC(1, keys->sign("key", mechanisms[i], &derived, NULL, 0, out, &len));
        CHECK_RC(1, keys->sign("key", mechanisms[i], &derived, message, 7, out, NULL));
        CHECK_RC(1, keys->sign("key", mechanisms[i], &derived, message, UINTPTR_MAX, out, &len));
    }
    len = 0;
    CHECK_RC(0, keys->derive_key("key", message, 7, NULL, &len));
    CHECK(len == 32);
    len = 31;
    CHECK_RC(1, keys->derive_key("key", message, 7, out, &len));
    CHECK(len == 32);
    CHECK_RC(0, keys->derive_key("key", message, 0, out, &len));
    CHECK(len == 32);
    CHECK_RC(1, keys->derive_key("key", NULL, 0, out, &len));
    CHECK_RC(1, keys->derive_key("key", message, 7, out, NULL));
    /* The length pointer is looked at before the key. */
    CHECK_RC(1, keys->derive_key("missing", message, 7, out, NULL));
}

/* A length that is not known beforehand: what the query answers is a bound, and what counts is the result. */
static void check_signature_buffer(const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys) {
    unsigned char digest[32] = {1}, out[80];
    uintptr_t len;
    CHECK_RC(0, keys->create_key_pair_if_not_exists("pair", "ec-p256"));
    len = 12345;
    CHECK_RC(0, keys->sign("pair", AZIOT_KEYS_SIGN_MECHANISM_ECDSA, NULL, digest, 32, NULL, &len));
    CHECK(len == 72);
    /* Every second signature has 71 bytes, every fourth 72. */
    int exact = 0;
    for (int i = 0; i < 400 && !exact; i++) {
        memset(out, 0xee, sizeof out);
        len = 71;
        AZIOT_KEYS_RC rc = keys->sign("pair", AZIOT_KEYS_SIGN_MECHANISM_ECDSA, NULL, digest, 32, out, &len);
        if (rc == 0) {
            CHECK(len <= 71 && out[1] == len - 2 && out[71] == 0xee);
            exact = len == 71;
        } else {
            CHECK(rc == 1 && len == 72 && out[0] == 0xee);
        }
    }
    CHECK(exact);
    len = 7;
    CHECK_RC(1, keys->sign("pair", AZIOT_KEYS_SIGN_MECHANISM_ECDSA, NULL, digest, 32, out, &len));
    CHECK(len == 72);
    CHECK_RC(1, keys->sign("pair", AZIOT_KEYS_SIGN_MECHANISM_ECDSA, NULL, NULL, 0, out, &len));
    CHECK_RC(1, keys->sign("pair", AZIOT_KEYS_SIGN_MECHANISM_ECDSA, NULL, digest, 32, out, NULL));
    CHECK_RC(1, keys->sign("missing", AZIOT_KEYS_SIGN_MECHANISM_ECDSA, NULL, digest, 32, NULL, &len));
}

/* Lengths that are known: exactly as long is enough, one byte less is not, and nothing is written then. */
static void check_exact(
    int line, const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys, int decrypt, const char *id,
    AZIOT_KEYS_ENCRYPT_MECHANISM mechanism, const void *parameters, const unsigned char *in, uintptr_t in_len,
    uintptr_t expected) {
    unsigned char out[600];
    AZIOT_KEYS_RC (*crypt)(
        const char *, AZIOT_KEYS_ENCRYPT_MECHANISM, const void *, const unsigned char *, uintptr_t, unsigned char *,
        uintptr_t *) = decrypt ? keys->decrypt : keys->encrypt;
    uintptr_t len = 12345;
    int before = failures;
    CHECK_RC(0, crypt(id, mechanism, parameters, in, in_len, NULL, &len));
    CHECK(len == expected);
    memset(out, 0xee, sizeof out);
    if (expected > 0) {
        len = expected - 1;
        CHECK_RC(1, crypt(id, mechanism, parameters, in, in_len, out, &len));
        CHECK(len == expected && out[0] == 0xee);
    }
    len = expected;
    CHECK_RC(0, crypt(id, mechanism, parameters, in, in_len, out, &len));
    CHECK(len == expected && out[expected] == 0xee);
    len = sizeof out;
    CHECK_RC(0, crypt(id, mechanism, parameters, in, in_len, out, &len));
    CHECK(len == expected && out[expected] == 0xee);
    CHECK_RC(1, crypt(id, mechanism, parameters, NULL, 0, out, &len));
    CHECK_RC(1, crypt(id, mechanism, parameters, in, in_len, out, NULL));
    CHECK_RC(1, crypt("missing", mechanism, parameters, in, in_len, NULL, &len));
    if (failures != before)
        printf("  in the check from line %d\n", line);
}

static void check_crypt_buffers(const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys) {
    unsigned char message[] = "0123456789", frame[64];
    AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS aead = {message, 10, message, 3};
    AZIOT_KEYS_ENCRYPT_DERIVED_PARAMETERS derived = {message, 10, AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD, &aead};
    AZIOT_KEYS_ENCRYPT_MECHANISM mechanisms[] = {AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD, AZIOT_KEYS_ENCRYPT_MECHANISM_DERIVED};
    const void *parameters[] = {&aead, &derived};
    CHECK_RC(0, keys->create_key_if_not_exists("aes", AZIOT_KEYS_KEY_USAGE_ENCRYPT));
    for (int i = 0; i < 2; i++) {
        for (uintptr_t n = 0; n <= 10; n += 5) {
            uintptr_t len = sizeof frame;
            check_exact(__LINE__, keys, 0, "aes", mechanisms[i], parameters[i], message, n, n + 17);
            CHECK_RC(0, keys->encrypt("aes", mechanisms[i], parameters[i], message, n, frame, &len));
            check_exact(__LINE__, keys, 1, "aes", mechanisms[i], parameters[i], frame, len, n);
        }
    }
    CHECK_RC(0, keys->create_key_pair_if_not_exists("rsa", "rsa-2048"));
    check_exact(
        __LINE__, keys, 0, "rsa", AZIOT_KEYS_ENCRYPT_MECHANISM_RSA_PKCS1, NULL, message, 10, 256);
    unsigned char block[256] = {0, 1};
    check_exact(
        __LINE__, keys, 0, "rsa", AZIOT_KEYS_ENCRYPT_MECHANISM_RSA_NO_PADDING, NULL, block, sizeof block, 256);
}

static void check_parameter_buffers(const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys) {
    struct {
        const char *id;
        AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE type;
        uintptr_t len; /* 0: does not apply to this key */
    } cases[] = {
        {"pair", AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_ALGORITHM, 4},
        {"pair", AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID, 10},
        {"pair", AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_POINT, 33},
        {"pair", AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS, 0},
        {"pair", AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT, 0},
        {"rsa", AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_ALGORITHM, 4},
        {"rsa", AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID, 0},
        {"rsa", AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_POINT, 0},
        {"rsa", AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS, 256},
        {"rsa", AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT, 3},
    };
    unsigned char out[300];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uintptr_t len = 12345;
        CHECK_RC(cases[i].len == 0, keys->get_key_pair_parameter(cases[i].id, cases[i].type, NULL, &len));
        CHECK_RC(1, keys->get_key_pair_parameter(cases[i].id, cases[i].type, out, NULL));
        CHECK_RC(1, keys->get_key_pair_parameter("missing", cases[i].type, NULL, &len));
        if (cases[i].len == 0) {
            len = sizeof out;
            CHECK_RC(1, keys->get_key_pair_parameter(cases[i].id, cases[i].type, out, &len));
            continue;
        }
        len = 12345;
        CHECK_RC(0, keys->get_key_pair_parameter(cases[i].id, cases[i].type, NULL, &len));
        CHECK(len == cases[i].len);
        memset(out, 0xee, sizeof out);
        len = cases[i].len - 1;
        CHECK_RC(1, keys->get_key_pair_parameter(cases[i].id, cases[i].type, out, &len));
        CHECK(len == cases[i].len && out[0] == 0xee);
        CHECK_RC(0, keys->get_key_pair_parameter(cases[i].id, cases[i].type, out, &len));
        CHECK(len == cases[i].len && out[len] == 0xee);
        len = sizeof out;
        CHECK_RC(0, keys->get_key_pair_parameter(cases[i].id, cases[i].type, out, &len));
        CHECK(len == cases[i].len && out[len] == 0xee);
    }
}

static void check_arguments(const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys) {
    const char *bad[] = {NULL, "\xff", "k\xc3", "\xed\xa0\x80"};
    unsigned char bytes[] = "0123456789abcdef0123456789abcdef";
    unsigned char out[64];
    AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS aead = {bytes, 12, bytes, 0};
    uintptr_t len = sizeof out;
    int ok = 77;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *id = bad[i];
        CHECK_RC(1, keys->set_parameter(id, "/"));
        CHECK_RC(1, keys->set_parameter("homedir_path", id));
        CHECK_RC(1, keys->set_parameter("preloaded_key:x", id));
        CHECK_RC(1, keys->create_key_pair_if_not_exists(id, NULL));
        if (id)
            CHECK_RC(1, keys->create_key_pair_if_not_exists("x", id));
        CHECK_RC(1, keys->move_key_pair(id, "x"));
        CHECK_RC(1, keys->move_key_pair("x", id));
        CHECK_RC(1, keys->load_key_pair(id));
        CHECK_RC(1, keys->get_key_pair_parameter(id, 1, out, &len));
        CHECK_RC(1, keys->delete_key_pair(id));
        CHECK_RC(1, keys->create_key_if_not_exists(id, 1));
        CHECK_RC(1, keys->load_key(id));
        CHECK_RC(1, keys->import_key(id, bytes, 32, 1));
        CHECK_RC(1, keys->delete_key(id));
        CHECK_RC(1, keys->derive_key(id, bytes, 1, out, &len));
        CHECK_RC(1, keys->sign(id, 2, NULL, bytes, 1, out, &len));
        CHECK_RC(1, keys->verify(id, 2, NULL, bytes, 1, bytes, 32, &ok));
        CHECK_RC(1, keys->encrypt(id, 1, &aead, bytes, 1, out, &len));
        CHECK_RC(1, keys->decrypt(id, 1, &aead, bytes, 17, out, &len));
    }
    CHECK_RC(1, keys->import_key("key", NULL, 0, 1));
    CHECK_RC(1, keys->import_key("key", bytes, 0, 1));
    CHECK_RC(0, keys->load_key("key"));
    CHECK_RC(1, keys->verify("key", 2, NULL, NULL, 0, bytes, 32, &ok));
    CHECK_RC(1, keys->verify("key", 2, NULL, bytes, 1, NULL, 0, &ok));
    CHECK_RC(1, keys->verify("key", 2, NULL, bytes, 1, bytes, 32, NULL));
    CHECK_RC(1, keys->verify("missing", 2, NULL, bytes, 1, bytes, 32, &ok));
    CHECK_RC(1, keys->verify("key", 1, NULL, bytes, 1, bytes, 32, &ok));
    CHECK_RC(1, keys->encrypt("key", 1, &aead, NULL, 0, out, &len));
    CHECK_RC(1, keys->encrypt("key", 1, &aead, bytes, 1, out, NULL));
    CHECK_RC(1, keys->encrypt("key", 1, NULL, bytes, 1, out, &len));
    CHECK_RC(1, keys->encrypt("key", 99, &aead, bytes, 1, out, &len));
    CHECK_RC(1, keys->decrypt("key", 1, &aead, NULL, 0, out, &len));
    CHECK_RC(1, keys->decrypt("key", 1, &aead, bytes, 17, out, NULL));
    CHECK_RC(1, keys->decrypt("key", 2, NULL, bytes, 17, out, &len));
    CHECK_RC(1, keys->decrypt("key", 3, NULL, bytes, 17, out, &len));
    /* No pointer is no bytes for these two, but not some bytes. */
    AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS no_aad = {bytes, 12, NULL, 0};
    AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS no_iv = {NULL, 0, bytes, 1};
    AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS bad_aad = {bytes, 12, NULL, 1};
    AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS bad_iv = {NULL, 12, bytes, 1};
    AZIOT_KEYS_ENCRYPT_DERIVED_PARAMETERS derived = {bytes, 0, AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD, &aead};
    len = sizeof out;
    CHECK_RC(0, keys->encrypt("key", 1, &no_aad, bytes, 1, out, &len));
    len = sizeof out;
    CHECK_RC(2, keys->encrypt("key", 1, &no_iv, bytes, 1, out, &len));
    CHECK_RC(1, keys->encrypt("key", 1, &bad_aad, bytes, 1, out, &len));
    CHECK_RC(1, keys->encrypt("key", 1, &bad_iv, bytes, 1, out, &len));
    CHECK_RC(1, keys->encrypt("key", 1, &bad_iv, bytes, 1, NULL, &len));
    CHECK_RC(1, keys->decrypt("key", 1, &bad_aad, bytes, 17, out, &len));
    len = sizeof out;
    CHECK_RC(0, keys->encrypt("key", 4, &derived, bytes, 1, out, &len));
    CHECK_RC(1, keys->encrypt("key", 4, NULL, bytes, 1, out, &len));
    derived.parameters = NULL;
    CHECK_RC(1, keys->encrypt("key", 4, &derived, bytes, 1, out, &len));
    derived.parameters = &aead;
    derived.derivation_data = NULL;
    CHECK_RC(1, keys->encrypt("key", 4, &derived, bytes, 1, out, &len));
    derived.derivation_data = bytes;
    for (unsigned int inner = 0; inner < 6; inner++) {
        derived.mechanism = inner;
        len = sizeof out;
        CHECK_RC(inner != 1, keys->encrypt("key", 4, &derived, bytes, 1, out, &len));
    }
    CHECK_RC(1, keys->encrypt("missing", 2, NULL, bytes, 1, out, &len));
    CHECK_RC(1, keys->load_key_pair("missing"));
    CHECK_RC(1, keys->get_key_pair_parameter("missing", 1, out, NULL));
    CHECK_RC(1, keys->get_key_pair_parameter("key", 0, out, &len));
    CHECK_RC(1, keys->get_key_pair_parameter("key", 6, out, &len));
    CHECK(ok == 77);
    /* The empty string is an id. */
    CHECK_RC(1, keys->load_key(""));
    CHECK_RC(0, keys->create_key_if_not_exists("", 1));
    CHECK_RC(0, keys->load_key(""));
    CHECK_RC(0, keys->delete_key(""));
    /* The library keeps no pointer. */
    char *name = strdup("preloaded_key:copied");
    char *value = malloc(64);
    strcpy(value, "file:///nonexistent/copied");
    CHECK_RC(0, keys->set_parameter(name, value));
    memset(name, 'x', strlen(name));
    memset(value, 'x', strlen(value));
    free(name);
    free(value);
    CHECK_RC(2, keys->create_key_if_not_exists("copied", 1));
}

static int run(const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys, char **op) {
    for (; *op; op++) {
        AZIOT_KEYS_RC rc;
        unsigned char out[1024];
        uintptr_t len = sizeof out;
        AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS aead = {(const unsigned char *)"iv", 2, out, 0};
        if (!strcmp(*op, "create") && op[1]) {
            rc = keys->create_key_if_not_exists(op[1], 1);
            op += 1;
        } else if (!strcmp(*op, "pair") && op[1] && op[2]) {
            rc = keys->create_key_pair_if_not_exists(op[1], op[2]);
            op += 2;
        } else if (!strcmp(*op, "load-pair") && op[1]) {
            rc = keys->load_key_pair(op[1]);
            op += 1;
        } else if (!strcmp(*op, "delete-pair") && op[1]) {
            rc = keys->delete_key_pair(op[1]);
            op += 1;
        } else if (!strcmp(*op, "hmac") && op[1] && op[2]) {
            rc = keys->sign(op[1], 2, NULL, (const unsigned char *)op[2], strlen(op[2]), out, &len);
            op += 2;
        } else if (!strcmp(*op, "ecdsa") && op[1] && op[2]) {
            rc = keys->sign(op[1], 1, NULL, (const unsigned char *)op[2], strlen(op[2]), out, &len);
            op += 2;
        } else if (!strcmp(*op, "encrypt") && op[1] && op[2]) {
            rc = keys->encrypt(op[1], 1, &aead, (const unsigned char *)op[2], strlen(op[2]), out, &len);
            op += 2;
        } else if (!strcmp(*op, "decrypt") && op[1] && op[2]) {
            rc = keys->decrypt(op[1], 1, &aead, (const unsigned char *)op[2], strlen(op[2]), out, &len);
            op += 2;
        } else if (!strcmp(*op, "set") && op[1] && op[2]) {
            rc = keys->set_parameter(op[1], op[2]);
            op += 2;
        } else if (!strcmp(*op, "load") && op[1]) {
            rc = keys->load_key(op[1]);
            op += 1;
        } else if (!strcmp(*op, "delete") && op[1]) {
            rc = keys->delete_key(op[1]);
            op += 1;
        } else if (!strcmp(*op, "import") && op[1] && op[2]) {
            rc = keys->import_key(op[1], (const uint8_t *)op[2], strlen(op[2]), 1);
            op += 2;
        } else if (!strcmp(*op, "move") && op[1] && op[2]) {
            rc = keys->move_key_pair(op[1], op[2]);
            op += 2;
        } else if (!strcmp(*op, "preload") && op[1] && op[2]) {
            char name[512];
            snprintf(name, sizeof name, "preloaded_key:%s", op[1]);
            rc = keys->set_parameter(name, op[2]);
            op += 2;
        } else {
            fprintf(stderr, "driver: what is %s?\n", *op);
            return 2;
        }
        if (rc)
            return 10 + (int)rc;
    }
    return 0;
}

int main(int argc, char **argv) {
    const AZIOT_KEYS_FUNCTION_LIST *list = NULL;
    getter *get;
    if (argc < 4) {
        fprintf(stderr, "usage: driver abi|run LIBRARY HOME OP...\n");
        return 2;
    }
    void *library = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "driver: %s\n", dlerror());
        return 2;
    }
    *(void **)&get = dlsym(library, "aziot_keys_get_function_list");
    if (!get) {
        fprintf(stderr, "driver: %s\n", dlerror());
        return 2;
    }
    if (get(AZIOT_KEYS_VERSION_2_1_0_0, &list) || !list) {
        fprintf(stderr, "driver: no function list\n");
        return 2;
    }
    const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys = (const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *)(const void *)list;
    if (keys->set_parameter("homedir_path", argv[3]))
        return 2;
    if (!strcmp(argv[1], "run"))
        return run(keys, argv + 4);
    check_versions(get);
    check_buffers(keys);
    check_signature_buffer(keys);
    check_crypt_buffers(keys);
    check_parameter_buffers(keys);
    check_arguments(keys);
    return failures ? 1 : 0;
}

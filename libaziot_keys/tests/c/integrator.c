/*
 * Uses the key library as a program that links against it does, and holds every answer against OpenSSL's.
 *
 *     integrator HOME                 keys in files
 *     integrator HOME MODULE TOKEN    keys in the PKCS#11 token with the URI TOKEN, of the module at the path MODULE
 *
 * Says what is wrong and exits with 1, or prints "ok". Also valid C++.
 */
#include "aziot-keys.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(int line, const char *what, AZIOT_KEYS_RC rc) {
    fprintf(stderr, "integrator.c:%d: %s (%u)\n", line, what, rc);
    exit(1);
}

#define MUST(condition) \
    do { \
        if (!(condition)) \
            fail(__LINE__, #condition, 0); \
    } while (0)

#define EXPECT(expected, call) \
    do { \
        AZIOT_KEYS_RC rc_ = (call); \
        if (rc_ != (expected)) \
            fail(__LINE__, #call, rc_); \
    } while (0)

#define OK(call) EXPECT(AZIOT_KEYS_RC_OK, call)
#define INVALID(call) EXPECT(AZIOT_KEYS_RC_ERR_INVALID_PARAMETER, call)

typedef struct {
    unsigned char bytes[1024];
    uintptr_t len;
} DATA;

static const unsigned char MESSAGE[] = "a message";
static const uintptr_t MESSAGE_LEN = sizeof MESSAGE - 1;

/* A public parameter, by the two calls that the interface prescribes. */
static DATA parameter(
    const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys, const char *id, AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE type) {
    DATA value;
    uintptr_t bound = 0;
    OK(keys->get_key_pair_parameter(id, type, NULL, &bound));
    MUST(bound > 0 && bound <= sizeof value.bytes);
    value.len = bound;
    OK(keys->get_key_pair_parameter(id, type, value.bytes, &value.len));
    MUST(value.len <= bound);
    return value;
}

static unsigned int algorithm(const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys, const char *id) {
    DATA value = parameter(keys, id, AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_ALGORITHM);
    unsigned int number;
    MUST(value.len == sizeof number);
    memcpy(&number, value.bytes, sizeof number);
    return number;
}

/* Puts a DER value with its tag and length after what is in `out`. */
static void put_der(DATA *out, unsigned char tag, const unsigned char *content, size_t len) {
    MUST(out->len + len + 4 <= sizeof out->bytes);
    out->bytes[out->len++] = tag;
    if (len >= 0x100) {
        out->bytes[out->len++] = 0x82;
        out->bytes[out->len++] = (unsigned char)(len >> 8);
    } else if (len >= 0x80) {
        out->bytes[out->len++] = 0x81;
    }
    out->bytes[out->len++] = (unsigned char)len;
    memcpy(out->bytes + out->len, content, len);
    out->len += len;
}

/* SubjectPublicKeyInfo (RFC 5280) from the parts of its AlgorithmIdentifier and the key. */
static EVP_PKEY *public_key(const DATA *identifier, const DATA *key) {
    DATA bits, content, info;
    bits.bytes[0] = 0;
    memcpy(bits.bytes + 1, key->bytes, key->len);
    bits.len = key->len + 1;
    content.len = info.len = 0;
    put_der(&content, 0x30, identifier->bytes, identifier->len);
    put_der(&content, 0x03, bits.bytes, bits.len);
    put_der(&info, 0x30, content.bytes, content.len);
    const unsigned char *at = info.bytes;
    EVP_PKEY *pkey = d2i_PUBKEY(NULL, &at, (long)info.len);
    MUST(pkey != NULL);
    return pkey;
}

static EVP_PKEY *ec_public_key(const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys, const char *id) {
    static const unsigned char EC_PUBLIC_KEY[] = {0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01};
    DATA curve = parameter(keys, id, AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID);
    DATA point = parameter(keys, id, AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_POINT);
    DATA identifier;
    memcpy(identifier.bytes, EC_PUBLIC_KEY, sizeof EC_PUBLIC_KEY);
    memcpy(identifier.bytes + sizeof EC_PUBLIC_KEY, curve.bytes, curve.len);
    identifier.len = sizeof EC_PUBLIC_KEY + curve.len;
    return public_key(&identifier, &point);
}

static EVP_PKEY *rsa_public_key(const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys, const char *id) {
    static const unsigned char RSA_ENCRYPTION[] = {
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00};
    DATA modulus = parameter(keys, id, AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS);
    DATA exponent = parameter(keys, id, AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT);
    MUST(modulus.bytes[0] != 0 && exponent.bytes[0] != 0);
    DATA identifier, integer, numbers, key;
    memcpy(identifier.bytes, RSA_ENCRYPTION, sizeof RSA_ENCRYPTION);
    identifier.len = sizeof RSA_ENCRYPTION;
    /* A sign byte: the modulus has its highest bit set. */
    integer.bytes[0] = 0;
    memcpy(integer.bytes + 1, modulus.bytes, modulus.len);
    numbers.len = key.len = 0;
    put_der(&numbers, 0x02, integer.bytes, modulus.len + 1);
    put_der(&numbers, 0x02, exponent.bytes, exponent.len);
    put_der(&key, 0x30, numbers.bytes, numbers.len);
    return public_key(&identifier, &key);
}

static int verifies(EVP_PKEY *pkey, int pkcs1, const EVP_MD *md, const unsigned char *digest, const DATA *signature) {
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(pkey, NULL);
    MUST(ctx != NULL && EVP_PKEY_verify_init(ctx) == 1);
    MUST(EVP_PKEY_CTX_set_signature_md(ctx, md) == 1);
    MUST(!pkcs1 || EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1);
    int ok = EVP_PKEY_verify(ctx, signature->bytes, signature->len, digest, (size_t)EVP_MD_size(md)) == 1;
    EVP_PKEY_CTX_free(ctx);
    return ok;
}

static void use_ec_pair(const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys) {
    unsigned char digest[32];
    unsigned int digest_len = sizeof digest;
    DATA signature;
    uintptr_t bound = 0;
    OK(keys->create_key_pair_if_not_exists("device id", "ec-p256:rsa-2048"));
    OK(keys->create_key_pair_if_not_exists("device id", "rsa-2048"));
    OK(keys->load_key_pair("device id"));
    MUST(algorithm(keys, "device id") == AZIOT_KEYS_KEY_PAIR_PARAMETER_ALGORITHM_EC);
    EVP_PKEY *pkey = ec_public_key(keys, "device id");
    MUST(EVP_Digest(MESSAGE, MESSAGE_LEN, digest, &digest_len, EVP_sha256(), NULL) == 1);
    OK(keys->sign("device id", AZIOT_KEYS_SIGN_MECHANISM_ECDSA, NULL, digest, sizeof digest, NULL, &bound));
    MUST(bound == 72);
    for (int i = 0; i < 20; i++) {
        signature.len = bound;
        OK(keys->sign(
            "device id", AZIOT_KEYS_SIGN_MECHANISM_ECDSA, NULL, digest, sizeof digest, signature.bytes, &signature.len));
        MUST(signature.len <= bound);
        MUST(verifies(pkey, 0, EVP_sha256(), digest, &signature));
        digest[0] ^= 1;
        MUST(!verifies(pkey, 0, EVP_sha256(), digest, &signature));
    }
    INVALID(keys->get_key_pair_parameter(
        "device id", AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS, NULL, &signature.len));
    INVALID(keys->encrypt(
        "device id", AZIOT_KEYS_ENCRYPT_MECHANISM_RSA_PKCS1, NULL, digest, 32, signature.bytes, &signature.len));

    /* The same key under another id, and none under the old one. */
    DATA before = parameter(keys, "device id", AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_POINT);
    OK(keys->move_key_pair("device id", "new id"));
    INVALID(keys->load_key_pair("device id"));
    DATA after = parameter(keys, "new id", AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_POINT);
    MUST(before.len == after.len && memcmp(before.bytes, after.bytes, before.len) == 0);
    OK(keys->delete_key_pair("new id"));
    OK(keys->delete_key_pair("new id"));
    INVALID(keys->load_key_pair("new id"));
    EVP_PKEY_free(pkey);
}

static void use_rsa_pair(const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys) {
    /* DigestInfo of SHA-256 (RFC 8017, 9.2). */
    unsigned char info[51] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                              0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};
    unsigned char *digest = info + 19;
    unsigned int digest_len = 32;
    unsigned char block[256];
    DATA padded, raw;
    uintptr_t bound = 0;
    OK(keys->create_key_pair_if_not_exists("rsa", "rsa-2048"));
    MUST(algorithm(keys, "rsa") == AZIOT_KEYS_KEY_PAIR_PARAMETER_ALGORITHM_RSA);
    EVP_PKEY *pkey = rsa_public_key(keys, "rsa");
    MUST(EVP_PKEY_bits(pkey) == 2048);
    MUST(EVP_Digest(MESSAGE, MESSAGE_LEN, digest, &digest_len, EVP_sha256(), NULL) == 1);
    OK(keys->encrypt("rsa", AZIOT_KEYS_ENCRYPT_MECHANISM_RSA_PKCS1, NULL, info, sizeof info, NULL, &bound));
    MUST(bound == sizeof block);
    padded.len = raw.len = bound;
    OK(keys->encrypt(
        "rsa", AZIOT_KEYS_ENCRYPT_MECHANISM_RSA_PKCS1, NULL, info, sizeof info, padded.bytes, &padded.len));
    MUST(padded.len == bound && verifies(pkey, 1, EVP_sha256(), digest, &padded));
    /* The same with the padding done here. */
    memset(block, 0xff, sizeof block);
    block[0] = 0;
    block[1] = 1;
    block[sizeof block - sizeof info - 1] = 0;
    memcpy(block + sizeof block - sizeof info, info, sizeof info);
    OK(keys->encrypt(
        "rsa", AZIOT_KEYS_ENCRYPT_MECHANISM_RSA_NO_PADDING, NULL, block, sizeof block, raw.bytes, &raw.len));
    MUST(raw.len == padded.len && memcmp(raw.bytes, padded.bytes, raw.len) == 0);
    INVALID(keys->sign("rsa", AZIOT_KEYS_SIGN_MECHANISM_ECDSA, NULL, digest, 32, raw.bytes, &raw.len));
    INVALID(keys->decrypt(
        "rsa", AZIOT_KEYS_ENCRYPT_MECHANISM_RSA_PKCS1, NULL, padded.bytes, padded.len, raw.bytes, &raw.len));
    OK(keys->delete_key_pair("rsa"));
    EVP_PKEY_free(pkey);
}

/* AES-256-GCM by OpenSSL: whether `frame` is the plaintext sealed with this key. */
static int opens(
    const unsigned char *key, const AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS *aead, const DATA *frame,
    const unsigned char *plaintext, size_t len) {
    unsigned char out[256], tag[16];
    int n = 0, rest = 0;
    MUST(frame->len == len + 17 && frame->bytes[0] == 2 && len <= sizeof out);
    memcpy(tag, frame->bytes + 1 + len, sizeof tag);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    MUST(ctx != NULL && EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, NULL, NULL) == 1);
    MUST(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_IVLEN, (int)aead->iv_len, NULL) == 1);
    MUST(EVP_DecryptInit_ex(ctx, NULL, NULL, key, aead->iv) == 1);
    MUST(EVP_DecryptUpdate(ctx, NULL, &n, aead->aad, (int)aead->aad_len) == 1);
    MUST(EVP_DecryptUpdate(ctx, out, &n, frame->bytes + 1, (int)len) == 1);
    MUST(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, sizeof tag, tag) == 1);
    int ok = EVP_DecryptFinal_ex(ctx, out + n, &rest) == 1 && (size_t)(n + rest) == len && memcmp(out, plaintext, len) == 0;
    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

static void use_encryption_key(const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys) {
    static const unsigned char IV[] = "twelve bytes", AAD[] = "additional data";
    unsigned char bytes[32], back[64];
    DATA frame;
    AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS aead;
    uintptr_t len = 0;
    aead.iv = IV;
    aead.iv_len = sizeof IV - 1;
    aead.aad = AAD;
    aead.aad_len = sizeof AAD - 1;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 7);

    /* Bytes that are known here, so that OpenSSL can say whether the result is right; then a random key. */
    OK(keys->import_key("encryption", bytes, sizeof bytes, AZIOT_KEYS_KEY_USAGE_ENCRYPT));
    for (int generated = 0; generated < 2; generated++) {
        OK(keys->encrypt("encryption", AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD, &aead, MESSAGE, MESSAGE_LEN, NULL, &len));
        MUST(len == MESSAGE_LEN + 17);
        frame.len = len;
        OK(keys->encrypt(
            "encryption", AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD, &aead, MESSAGE, MESSAGE_LEN, frame.bytes, &frame.len));
        MUST(opens(bytes, &aead, &frame, MESSAGE, MESSAGE_LEN) == !generated);
        OK(keys->decrypt("encryption", AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD, &aead, frame.bytes, frame.len, NULL, &len));
        MUST(len >= MESSAGE_LEN && len <= sizeof back);
        OK(keys->decrypt("encryption", AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD, &aead, frame.bytes, frame.len, back, &len));
        MUST(len == MESSAGE_LEN && memcmp(back, MESSAGE, len) == 0);
        frame.bytes[3] ^= 1;
        len = sizeof back;
        EXPECT(
            AZIOT_KEYS_RC_ERR_EXTERNAL,
            keys->decrypt("encryption", AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD, &aead, frame.bytes, frame.len, back, &len));
        /* In place. */
        memcpy(frame.bytes, MESSAGE, MESSAGE_LEN);
        frame.len = sizeof frame.bytes;
        OK(keys->encrypt(
            "encryption", AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD, &aead, frame.bytes, MESSAGE_LEN, frame.bytes, &frame.len));
        MUST(opens(bytes, &aead, &frame, MESSAGE, MESSAGE_LEN) == !generated);
        len = frame.len;
        OK(keys->decrypt(
            "encryption", AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD, &aead, frame.bytes, frame.len, frame.bytes, &len));
        MUST(len == MESSAGE_LEN && memcmp(frame.bytes, MESSAGE, len) == 0);
        OK(keys->delete_key("encryption"));
        INVALID(keys->load_key("encryption"));
        if (!generated)
            OK(keys->create_key_if_not_exists("encryption", AZIOT_KEYS_KEY_USAGE_ENCRYPT));
    }
}

static void use_signing_key(const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys, const AZIOT_KEYS_FUNCTION_LIST_2_0_0_0 *old) {
    static const unsigned char SECRET[] = "0123456789abcdef0123456789abcdef";
    unsigned char expected[32], derived[32], out[32];
    unsigned int expected_len = 32;
    uintptr_t len = sizeof out;
    int ok = 0;
    OK(keys->import_key("signing", SECRET, 32, AZIOT_KEYS_KEY_USAGE_SIGN));
    HMAC(EVP_sha256(), SECRET, 32, MESSAGE, MESSAGE_LEN, expected, &expected_len);
    OK(keys->sign("signing", AZIOT_KEYS_SIGN_MECHANISM_HMAC_SHA256, NULL, MESSAGE, MESSAGE_LEN, out, &len));
    MUST(len == 32 && memcmp(out, expected, 32) == 0);
    OK(old->sign("signing", AZIOT_KEYS_SIGN_MECHANISM_HMAC_SHA256, NULL, MESSAGE, MESSAGE_LEN, out, &len));
    MUST(len == 32 && memcmp(out, expected, 32) == 0);
    OK(keys->verify("signing", AZIOT_KEYS_SIGN_MECHANISM_HMAC_SHA256, NULL, MESSAGE, MESSAGE_LEN, out, len, &ok));
    MUST(ok == 1);
    OK(old->verify("signing", AZIOT_KEYS_SIGN_MECHANISM_HMAC_SHA256, NULL, MESSAGE, MESSAGE_LEN - 1, out, len, &ok));
    MUST(ok == 0);

    HMAC(EVP_sha256(), SECRET, 32, MESSAGE, MESSAGE_LEN, derived, &expected_len);
    OK(keys->derive_key("signing", MESSAGE, MESSAGE_LEN, out, &len));
    MUST(len == 32 && memcmp(out, derived, 32) == 0);
    AZIOT_KEYS_SIGN_DERIVED_PARAMETERS parameters;
    parameters.derivation_data = MESSAGE;
    parameters.derivation_data_len = MESSAGE_LEN;
    parameters.mechanism = AZIOT_KEYS_SIGN_MECHANISM_HMAC_SHA256;
    parameters.parameters = NULL;
    HMAC(EVP_sha256(), derived, 32, MESSAGE, MESSAGE_LEN, expected, &expected_len);
    OK(keys->sign("signing", AZIOT_KEYS_SIGN_MECHANISM_DERIVED, &parameters, MESSAGE, MESSAGE_LEN, out, &len));
    MUST(len == 32 && memcmp(out, expected, 32) == 0);

    AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS aead;
    AZIOT_KEYS_ENCRYPT_DERIVED_PARAMETERS sealing;
    DATA frame;
    aead.iv = MESSAGE;
    aead.iv_len = MESSAGE_LEN;
    /* No additional data, and no pointer to it either. */
    aead.aad = NULL;
    aead.aad_len = 0;
    sealing.derivation_data = MESSAGE;
    sealing.derivation_data_len = MESSAGE_LEN;
    sealing.mechanism = AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD;
    sealing.parameters = &aead;
    frame.len = sizeof frame.bytes;
    OK(keys->encrypt(
        "signing", AZIOT_KEYS_ENCRYPT_MECHANISM_DERIVED, &sealing, MESSAGE, MESSAGE_LEN, frame.bytes, &frame.len));
    MUST(opens(derived, &aead, &frame, MESSAGE, MESSAGE_LEN));
    len = sizeof out;
    OK(old->decrypt("signing", AZIOT_KEYS_ENCRYPT_MECHANISM_DERIVED, &sealing, frame.bytes, frame.len, out, &len));
    MUST(len == MESSAGE_LEN && memcmp(out, MESSAGE, len) == 0);
    OK(keys->delete_key("signing"));
    INVALID(old->load_key("signing"));
}

int main(int argc, char **argv) {
    const AZIOT_KEYS_FUNCTION_LIST *list = NULL;
    if (argc != 2 && argc != 4) {
        fprintf(stderr, "usage: integrator HOME [MODULE TOKEN]\n");
        return 2;
    }
    OK(aziot_keys_get_function_list(AZIOT_KEYS_VERSION_2_1_0_0, &list));
    MUST(list->version == AZIOT_KEYS_VERSION_2_1_0_0);
    const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *keys = (const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 *)(const void *)list;
    OK(aziot_keys_get_function_list(AZIOT_KEYS_VERSION_2_0_0_0, &list));
    MUST(list->version == AZIOT_KEYS_VERSION_2_0_0_0);
    const AZIOT_KEYS_FUNCTION_LIST_2_0_0_0 *old = (const AZIOT_KEYS_FUNCTION_LIST_2_0_0_0 *)(const void *)list;
    INVALID(keys->set_parameter("unheard of", "x"));
    OK(keys->set_parameter("homedir_path", argv[1]));
    if (argc == 4) {
        OK(keys->set_parameter("pkcs11_base_slot", argv[3]));
        OK(keys->set_parameter("pkcs11_lib_path", argv[2]));
    }
    use_ec_pair(keys);
    use_rsa_pair(keys);
    use_encryption_key(keys);
    use_signing_key(keys, old);
    puts("ok");
    return 0;
}

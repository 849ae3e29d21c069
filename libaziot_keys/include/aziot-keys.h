/*
 * The interface between the Keys Service and the library that keeps its keys.
 *
 * A library with the file name libaziot_keys.so that exports aziot_keys_get_function_list replaces the default one.
 *
 * - Strings are NUL-terminated UTF-8. The library copies what it keeps.
 * - The caller serialises its calls, but makes them from different threads.
 * - Output buffers belong to the caller. Called with a NULL buffer, a function stores an upper bound of the length it
 *   needs and returns AZIOT_KEYS_RC_OK. Otherwise the length holds the capacity on entry and the number of bytes
 *   written on success. If the buffer is too small, the answer is AZIOT_KEYS_RC_ERR_INVALID_PARAMETER and the length
 *   holds the upper bound.
 */

#ifndef AZIOT_KEYS_H
#define AZIOT_KEYS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Result of every function. */
typedef unsigned int AZIOT_KEYS_RC;

/* Version of a function list. */
typedef unsigned int AZIOT_KEYS_VERSION;

/* What get_key_pair_parameter returns. */
typedef unsigned int AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE;

/* Value of AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_ALGORITHM: 4 bytes, native endian. */
typedef unsigned int AZIOT_KEYS_KEY_PAIR_PARAMETER_ALGORITHM;

/* What a symmetric key is for: a set of bits. */
typedef unsigned int AZIOT_KEYS_KEY_USAGE;

/* Algorithm of sign and verify. */
typedef unsigned int AZIOT_KEYS_SIGN_MECHANISM;

/* Algorithm of encrypt and decrypt. */
typedef unsigned int AZIOT_KEYS_ENCRYPT_MECHANISM;

#define AZIOT_KEYS_RC_OK 0
#define AZIOT_KEYS_RC_ERR_INVALID_PARAMETER 1 /* bad argument, unknown key, unsupported mechanism, buffer too small */
#define AZIOT_KEYS_RC_ERR_EXTERNAL 2 /* input/output, cryptography or token failure */

#define AZIOT_KEYS_VERSION_2_0_0_0 33554432
#define AZIOT_KEYS_VERSION_2_1_0_0 33619968

#define AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_ALGORITHM 1
#define AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID 2 /* DER object identifier with tag and length */
#define AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_POINT 3 /* SEC 1 point octets */
#define AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS 4 /* big endian, minimal length */
#define AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_RSA_EXPONENT 5 /* big endian, minimal length */

#define AZIOT_KEYS_KEY_PAIR_PARAMETER_ALGORITHM_EC 1
#define AZIOT_KEYS_KEY_PAIR_PARAMETER_ALGORITHM_RSA 2

#define AZIOT_KEYS_KEY_USAGE_DERIVE 1
#define AZIOT_KEYS_KEY_USAGE_ENCRYPT 16 /* not to be combined with the others */
#define AZIOT_KEYS_KEY_USAGE_SIGN AZIOT_KEYS_KEY_USAGE_DERIVE

#define AZIOT_KEYS_SIGN_MECHANISM_ECDSA 1
#define AZIOT_KEYS_SIGN_MECHANISM_HMAC_SHA256 2
#define AZIOT_KEYS_SIGN_MECHANISM_DERIVED 3 /* parameters: AZIOT_KEYS_SIGN_DERIVED_PARAMETERS */

#define AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD 1 /* parameters: AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS */
#define AZIOT_KEYS_ENCRYPT_MECHANISM_RSA_PKCS1 2
#define AZIOT_KEYS_ENCRYPT_MECHANISM_RSA_NO_PADDING 3
#define AZIOT_KEYS_ENCRYPT_MECHANISM_DERIVED 4 /* parameters: AZIOT_KEYS_ENCRYPT_DERIVED_PARAMETERS */

/* The head of every function list. */
typedef struct {
    AZIOT_KEYS_VERSION version;
} AZIOT_KEYS_FUNCTION_LIST;

/* Parameters of AZIOT_KEYS_SIGN_MECHANISM_DERIVED: derive a key, then use it with the given mechanism. */
typedef struct {
    const unsigned char *derivation_data;
    uintptr_t derivation_data_len;
    AZIOT_KEYS_SIGN_MECHANISM mechanism;
    const void *parameters;
} AZIOT_KEYS_SIGN_DERIVED_PARAMETERS;

/* Parameters of AZIOT_KEYS_ENCRYPT_MECHANISM_DERIVED: derive a key, then use it with the given mechanism. */
typedef struct {
    const unsigned char *derivation_data;
    uintptr_t derivation_data_len;
    AZIOT_KEYS_ENCRYPT_MECHANISM mechanism;
    const void *parameters;
} AZIOT_KEYS_ENCRYPT_DERIVED_PARAMETERS;

/* Parameters of AZIOT_KEYS_ENCRYPT_MECHANISM_AEAD. */
typedef struct {
    const unsigned char *iv;
    uintptr_t iv_len;
    const unsigned char *aad;
    uintptr_t aad_len;
} AZIOT_KEYS_ENCRYPT_AEAD_PARAMETERS;

/* Function list of version 2.0.0.0; the functions are described at 2.1.0.0. */
typedef struct {
    AZIOT_KEYS_FUNCTION_LIST base;

    AZIOT_KEYS_RC (*set_parameter)(const char *name, const char *value);
    AZIOT_KEYS_RC (*create_key_pair_if_not_exists)(const char *id, const char *preferred_algorithms);
    AZIOT_KEYS_RC (*load_key_pair)(const char *id);
    AZIOT_KEYS_RC (*get_key_pair_parameter)(
        const char *id, AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE type_,
        unsigned char *value, uintptr_t *value_len);
    AZIOT_KEYS_RC (*create_key_if_not_exists)(const char *id, AZIOT_KEYS_KEY_USAGE usage);
    AZIOT_KEYS_RC (*load_key)(const char *id);
    AZIOT_KEYS_RC (*import_key)(
        const char *id, const uint8_t *bytes, uintptr_t bytes_len, AZIOT_KEYS_KEY_USAGE usage);
    AZIOT_KEYS_RC (*derive_key)(
        const char *base_id, const uint8_t *derivation_data, uintptr_t derivation_data_len,
        unsigned char *derived_key, uintptr_t *derived_key_len);
    AZIOT_KEYS_RC (*sign)(
        const char *id, AZIOT_KEYS_SIGN_MECHANISM mechanism, const void *parameters,
        const unsigned char *digest, uintptr_t digest_len,
        unsigned char *signature, uintptr_t *signature_len);
    AZIOT_KEYS_RC (*verify)(
        const char *id, AZIOT_KEYS_SIGN_MECHANISM mechanism, const void *parameters,
        const unsigned char *digest, uintptr_t digest_len,
        const unsigned char *signature, uintptr_t signature_len, int *ok);
    AZIOT_KEYS_RC (*encrypt)(
        const char *id, AZIOT_KEYS_ENCRYPT_MECHANISM mechanism, const void *parameters,
        const unsigned char *plaintext, uintptr_t plaintext_len,
        unsigned char *ciphertext, uintptr_t *ciphertext_len);
    AZIOT_KEYS_RC (*decrypt)(
        const char *id, AZIOT_KEYS_ENCRYPT_MECHANISM mechanism, const void *parameters,
        const unsigned char *ciphertext, uintptr_t ciphertext_len,
        unsigned char *plaintext, uintptr_t *plaintext_len);
} AZIOT_KEYS_FUNCTION_LIST_2_0_0_0;

/* Function list of version 2.1.0.0. */
typedef struct {
    AZIOT_KEYS_FUNCTION_LIST base;

    /*
     * Configures the library. Names and values are the implementation's; an unknown name is an
     * invalid parameter. `preloaded_key:<id>` binds <id> to the location given as value.
     */
    AZIOT_KEYS_RC (*set_parameter)(const char *name, const char *value);

    /*
     * Makes a key pair unless a loadable one exists. preferred_algorithms may be NULL; it is a
     * ':'-separated list of "ec-p256", "rsa-2048", "rsa-4096" and "*".
     */
    AZIOT_KEYS_RC (*create_key_pair_if_not_exists)(const char *id, const char *preferred_algorithms);

    /* Renames a key pair, replacing any key pair that has the new id. */
    AZIOT_KEYS_RC (*move_key_pair)(const char *from, const char *to);

    /* Checks that the key pair exists and can be used. */
    AZIOT_KEYS_RC (*load_key_pair)(const char *id);

    /* Returns one public parameter of a key pair. */
    AZIOT_KEYS_RC (*get_key_pair_parameter)(
        const char *id, AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE type_,
        unsigned char *value, uintptr_t *value_len);

    /* Deletes a key pair; one that does not exist is a success. */
    AZIOT_KEYS_RC (*delete_key_pair)(const char *id);

    /* Makes a random symmetric key unless one exists. */
    AZIOT_KEYS_RC (*create_key_if_not_exists)(const char *id, AZIOT_KEYS_KEY_USAGE usage);

    /* Checks that the symmetric key exists and can be used. */
    AZIOT_KEYS_RC (*load_key)(const char *id);

    /* Stores the given bytes as a symmetric key, replacing an existing one. */
    AZIOT_KEYS_RC (*import_key)(
        const char *id, const uint8_t *bytes, uintptr_t bytes_len, AZIOT_KEYS_KEY_USAGE usage);

    /* Deletes a symmetric key; one that does not exist is a success. */
    AZIOT_KEYS_RC (*delete_key)(const char *id);

    /* Returns a key derived from the base key. It is not stored. */
    AZIOT_KEYS_RC (*derive_key)(
        const char *base_id, const uint8_t *derivation_data, uintptr_t derivation_data_len,
        unsigned char *derived_key, uintptr_t *derived_key_len);

    /* Signs the digest (ECDSA) or the message (HMAC-SHA256). */
    AZIOT_KEYS_RC (*sign)(
        const char *id, AZIOT_KEYS_SIGN_MECHANISM mechanism, const void *parameters,
        const unsigned char *digest, uintptr_t digest_len,
        unsigned char *signature, uintptr_t *signature_len);

    /* Checks a signature; writes *ok only if it returns AZIOT_KEYS_RC_OK. */
    AZIOT_KEYS_RC (*verify)(
        const char *id, AZIOT_KEYS_SIGN_MECHANISM mechanism, const void *parameters,
        const unsigned char *digest, uintptr_t digest_len,
        const unsigned char *signature, uintptr_t signature_len, int *ok);

    /* Encrypts with a symmetric key, or does the RSA private-key operation. */
    AZIOT_KEYS_RC (*encrypt)(
        const char *id, AZIOT_KEYS_ENCRYPT_MECHANISM mechanism, const void *parameters,
        const unsigned char *plaintext, uintptr_t plaintext_len,
        unsigned char *ciphertext, uintptr_t *ciphertext_len);

    /* Decrypts with a symmetric key. */
    AZIOT_KEYS_RC (*decrypt)(
        const char *id, AZIOT_KEYS_ENCRYPT_MECHANISM mechanism, const void *parameters,
        const unsigned char *ciphertext, uintptr_t ciphertext_len,
        unsigned char *plaintext, uintptr_t *plaintext_len);
} AZIOT_KEYS_FUNCTION_LIST_2_1_0_0;

/*
 * Stores a pointer to a static function list of exactly the version asked for. The caller neither changes nor frees it.
 */
AZIOT_KEYS_RC aziot_keys_get_function_list(
    AZIOT_KEYS_VERSION version, const AZIOT_KEYS_FUNCTION_LIST **pfunction_list);

#ifdef __cplusplus
}
#endif

#endif /* AZIOT_KEYS_H */

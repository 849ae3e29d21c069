/*
 * A key library by somebody else: it keeps symmetric keys in memory and writes down what it is asked. Tests put it in the
 * place of the default one. Variants, chosen when it is compiled:
 *
 *   ONLY_2_0            offers function list 2.0.0.0 only
 *   NO_LIST=n           the entry point answers n
 *   LIST_VERSION=n      claims version n in its list
 *   NULL_VERIFY         leaves out verify
 *   REFUSE="name"       refuses the parameter of that name
 *   SHORTER             answers the size query of sign with twice the length that it then writes
 *   LONGER              claims after the second call of sign to have written more than the buffer holds
 *   HANDLE_KEY_RC=n     every call for the key that signs handles answers n
 *   SLOW_MS=n           making a key takes that long, except the one that signs handles
 *
 * Keys whose id is rc-N make every operation but import answer N. Every call is a line in the file $THIRDPARTY_KEYS_LOG.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "aziot-keys.h"

#define API __attribute__((visibility("default")))
#define HANDLE_KEY "handle-validation-key"

enum { MAX_KEYS = 64, MAX_ID = 256, MAX_KEY = 256, MAC_SIZE = 32 };

struct key {
    char id[MAX_ID];
    unsigned char bytes[MAX_KEY];
    size_t length;
};

static struct key keys[MAX_KEYS];
static atomic_int running;

static void record(const char *format, ...) {
    const char *path = getenv("THIRDPARTY_KEYS_LOG");
    int file = path == NULL ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0) {
        return;
    }
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length > 0) {
        size_t used = (size_t)length < sizeof line - 1 ? (size_t)length : sizeof line - 2;
        line[used++] = '\n';
        if (write(file, line, used) < 0) {
            abort();
        }
    }
    close(file);
}

/* The ABI promises that calls never overlap; one that does is written down. */
static void enter(void) {
    if (atomic_fetch_add(&running, 1) != 0) {
        record("OVERLAP");
    }
}

static AZIOT_KEYS_RC leave(AZIOT_KEYS_RC rc) {
    atomic_fetch_sub(&running, 1);
    return rc;
}

static struct key *find(const char *id) {
    for (size_t i = 0; i < MAX_KEYS; i++) {
        if (keys[i].length != 0 && strcmp(keys[i].id, id) == 0) {
            return &keys[i];
        }
    }
    return NULL;
}

static AZIOT_KEYS_RC store(const char *id, const unsigned char *bytes, size_t length) {
    if (length == 0 || length > MAX_KEY || strlen(id) >= MAX_ID) {
        return AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
    }
    struct key *key = find(id);
    for (size_t i = 0; key == NULL && i < MAX_KEYS; i++) {
        if (keys[i].length == 0) {
            key = &keys[i];
        }
    }
    if (key == NULL) {
        return AZIOT_KEYS_RC_ERR_EXTERNAL;
    }
    strcpy(key->id, id);
    memcpy(key->bytes, bytes, length);
    key->length = length;
    return AZIOT_KEYS_RC_OK;
}

/* What a key's id prescribes, or 0. */
static AZIOT_KEYS_RC prescribed(const char *id) {
#ifdef HANDLE_KEY_RC
    if (strcmp(id, HANDLE_KEY) == 0) {
        return HANDLE_KEY_RC;
    }
#endif
    unsigned int rc;
    return sscanf(id, "rc-%u", &rc) == 1 ? rc : AZIOT_KEYS_RC_OK;
}

static AZIOT_KEYS_RC set_parameter(const char *name, const char *value) {
    enter();
    record("set_parameter %s=%s", name, value);
#ifdef REFUSE
    if (strcmp(name, REFUSE) == 0) {
        return leave(AZIOT_KEYS_RC_ERR_INVALID_PARAMETER);
    }
#endif
    return leave(AZIOT_KEYS_RC_OK);
}

static AZIOT_KEYS_RC create_key_pair_if_not_exists(const char *id, const char *preferred_algorithms) {
    enter();
    record("create_key_pair_if_not_exists %s %s", id, preferred_algorithms == NULL ? "NULL" : preferred_algorithms);
    AZIOT_KEYS_RC rc = prescribed(id);
    return leave(rc);
}

static AZIOT_KEYS_RC load_key_pair(const char *id) {
    enter();
    record("load_key_pair %s", id);
    return leave(prescribed(id));
}

/* Every pair is this one: P-256 with the private number 1, so that its public point is the generator. */
static EVP_PKEY *the_pair(void) {
    /* ECPrivateKey (RFC 5915): version 1, 32 bytes that count 1, the curve. */
    static const unsigned char der[51] = {
        [0] = 0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20,
        [38] = 1,
        [39] = 0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07
    };
    const unsigned char *at = der;
    return d2i_PrivateKey(EVP_PKEY_EC, NULL, &at, sizeof der);
}

/* A real signature of the digest, of at most 72 bytes. */
static AZIOT_KEYS_RC ecdsa(const unsigned char *digest, size_t digest_len, unsigned char *out, size_t *length) {
    EVP_PKEY *pair = the_pair();
    EVP_PKEY_CTX *context = pair == NULL ? NULL : EVP_PKEY_CTX_new(pair, NULL);
    *length = 72;
    int ok = context != NULL && EVP_PKEY_sign_init(context) == 1
        && EVP_PKEY_sign(context, out, length, digest, digest_len) == 1;
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(pair);
    return ok ? AZIOT_KEYS_RC_OK : AZIOT_KEYS_RC_ERR_EXTERNAL;
}

static AZIOT_KEYS_RC get_key_pair_parameter(
    const char *id, AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE type_, unsigned char *value, uintptr_t *value_len) {
    static const unsigned char oid[] = { 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7 };
    /* Not compressed, as a library may have it. */
    static const unsigned char point[] = {
        4,
        0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2,
        0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96,
        0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16,
        0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5
    };
    enter();
    record("get_key_pair_parameter %s %u %s", id, type_, value == NULL ? "NULL" : "buffer");
    unsigned int algorithm = AZIOT_KEYS_KEY_PAIR_PARAMETER_ALGORITHM_EC;
    const void *answer = NULL;
    uintptr_t length = 0;
    uintptr_t claimed = 0;
    AZIOT_KEYS_RC rc = prescribed(id);
    if (rc == AZIOT_KEYS_RC_OK) {
        switch (type_) {
        case AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_ALGORITHM:
            answer = &algorithm;
            claimed = length = sizeof algorithm;
            break;
        case AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_CURVE_OID:
            answer = oid;
            length = sizeof oid;
            claimed = length + 5; /* an upper bound, as the ABI allows */
            break;
        case AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_EC_POINT:
            answer = point;
            claimed = length = sizeof point;
            break;
        default:
            rc = AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
        }
    }
    if (rc == AZIOT_KEYS_RC_OK && value != NULL && *value_len < length) {
        rc = AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
    }
    if (rc == AZIOT_KEYS_RC_OK) {
        if (value != NULL) {
            memcpy(value, answer, length);
        }
        *value_len = value == NULL ? claimed : length;
    }
    return leave(rc);
}

static AZIOT_KEYS_RC create_key_if_not_exists(const char *id, AZIOT_KEYS_KEY_USAGE usage) {
    enter();
    record("create_key_if_not_exists %s %u", id, usage);
#ifdef SLOW_MS
    if (strcmp(id, HANDLE_KEY) != 0) {
        struct timespec pause = { SLOW_MS / 1000, (SLOW_MS % 1000) * 1000000L };
        nanosleep(&pause, NULL);
    }
#endif
    AZIOT_KEYS_RC rc = prescribed(id);
    if (rc == AZIOT_KEYS_RC_OK && find(id) == NULL) {
        unsigned char bytes[32];
        rc = RAND_bytes(bytes, sizeof bytes) == 1 ? store(id, bytes, sizeof bytes) : AZIOT_KEYS_RC_ERR_EXTERNAL;
    }
    return leave(rc);
}

static AZIOT_KEYS_RC load_key(const char *id) {
    enter();
    record("load_key %s", id);
    AZIOT_KEYS_RC rc = prescribed(id);
    if (rc == AZIOT_KEYS_RC_OK && find(id) == NULL) {
        rc = AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
    }
    return leave(rc);
}

static AZIOT_KEYS_RC import_key(const char *id, const uint8_t *bytes, uintptr_t bytes_len, AZIOT_KEYS_KEY_USAGE usage) {
    enter();
    record("import_key %s %zu %u", id, (size_t)bytes_len, usage);
    return leave(store(id, bytes, bytes_len));
}

static int mac(const struct key *key, const unsigned char *message, size_t length, unsigned char *out) {
    unsigned int size = MAC_SIZE;
    return HMAC(EVP_sha256(), key->bytes, (int)key->length, message, length, out, &size) != NULL;
}

static AZIOT_KEYS_RC derive_key(
    const char *base_id, const uint8_t *derivation_data, uintptr_t derivation_data_len,
    unsigned char *derived_key, uintptr_t *derived_key_len) {
    enter();
    record("derive_key %s %s", base_id, derived_key == NULL ? "NULL" : "buffer");
    AZIOT_KEYS_RC rc = prescribed(base_id);
    const struct key *key = find(base_id);
    if (rc == AZIOT_KEYS_RC_OK && (key == NULL || (derived_key != NULL && *derived_key_len < MAC_SIZE))) {
        rc = AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
    }
    if (rc == AZIOT_KEYS_RC_OK) {
        if (derived_key != NULL && !mac(key, derivation_data, derivation_data_len, derived_key)) {
            rc = AZIOT_KEYS_RC_ERR_EXTERNAL;
        }
        *derived_key_len = MAC_SIZE;
    }
    return leave(rc);
}

/* HMAC with the key, or with the one derived from it. */
static AZIOT_KEYS_RC authenticate(
    const char *id, AZIOT_KEYS_SIGN_MECHANISM mechanism, const void *parameters,
    const unsigned char *message, size_t length, unsigned char *out) {
    AZIOT_KEYS_RC rc = prescribed(id);
    if (rc != AZIOT_KEYS_RC_OK) {
        return rc;
    }
    const struct key *key = find(id);
    struct key derived;
    if (key == NULL) {
        return AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
    }
    if (mechanism == AZIOT_KEYS_SIGN_MECHANISM_DERIVED) {
        const AZIOT_KEYS_SIGN_DERIVED_PARAMETERS *inner = parameters;
        if (inner == NULL || inner->mechanism != AZIOT_KEYS_SIGN_MECHANISM_HMAC_SHA256) {
            return AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
        }
        if (!mac(key, inner->derivation_data, inner->derivation_data_len, derived.bytes)) {
            return AZIOT_KEYS_RC_ERR_EXTERNAL;
        }
        derived.length = MAC_SIZE;
        key = &derived;
    } else if (mechanism != AZIOT_KEYS_SIGN_MECHANISM_HMAC_SHA256) {
        return AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
    }
    return mac(key, message, length, out) ? AZIOT_KEYS_RC_OK : AZIOT_KEYS_RC_ERR_EXTERNAL;
}

static AZIOT_KEYS_RC sign(
    const char *id, AZIOT_KEYS_SIGN_MECHANISM mechanism, const void *parameters,
    const unsigned char *digest, uintptr_t digest_len, unsigned char *signature, uintptr_t *signature_len) {
    enter();
    record("sign %s %u %s %s %zu", id, mechanism, parameters == NULL ? "no parameters" : "parameters",
           signature == NULL ? "NULL" : "buffer", (size_t)*signature_len);
    if (mechanism == AZIOT_KEYS_SIGN_MECHANISM_ECDSA) {
        AZIOT_KEYS_RC rc = prescribed(id);
        unsigned char made[72];
        size_t length = sizeof made;
        if (rc == AZIOT_KEYS_RC_OK && signature != NULL) {
            rc = ecdsa(digest, digest_len, made, &length);
        }
        if (rc == AZIOT_KEYS_RC_OK && signature != NULL && *signature_len < length) {
            rc = AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
        }
        if (rc == AZIOT_KEYS_RC_OK) {
            if (signature != NULL) {
                memcpy(signature, made, length);
            }
            *signature_len = length;
        }
        return leave(rc);
    }
    unsigned char out[MAC_SIZE];
    AZIOT_KEYS_RC rc = authenticate(id, mechanism, parameters, digest, digest_len, out);
    if (rc != AZIOT_KEYS_RC_OK) {
        return leave(rc);
    }
    int for_handle = strcmp(id, HANDLE_KEY) == 0;
    uintptr_t bound = MAC_SIZE;
#ifdef SHORTER
    bound = 2 * MAC_SIZE;
#endif
    if (signature == NULL) {
        *signature_len = bound;
        return leave(AZIOT_KEYS_RC_OK);
    }
    if (*signature_len < MAC_SIZE) {
        *signature_len = bound;
        return leave(AZIOT_KEYS_RC_ERR_INVALID_PARAMETER);
    }
    memcpy(signature, out, MAC_SIZE);
    *signature_len = MAC_SIZE;
#ifdef LONGER
    if (!for_handle) {
        *signature_len = MAC_SIZE + 1;
    }
#endif
    (void)for_handle;
    return leave(AZIOT_KEYS_RC_OK);
}

#ifndef NULL_VERIFY
static AZIOT_KEYS_RC verify(
    const char *id, AZIOT_KEYS_SIGN_MECHANISM mechanism, const void *parameters,
    const unsigned char *digest, uintptr_t digest_len, const unsigned char *signature, uintptr_t signature_len, int *ok) {
    enter();
    record("verify %s %u", id, mechanism);
    unsigned char out[MAC_SIZE];
    AZIOT_KEYS_RC rc = authenticate(id, mechanism, parameters, digest, digest_len, out);
    if (rc == AZIOT_KEYS_RC_OK) {
        *ok = signature_len == MAC_SIZE && memcmp(signature, out, MAC_SIZE) == 0;
    }
    return leave(rc);
}
#endif

/* Turns every bit; what matters here is how keyd calls. */
static AZIOT_KEYS_RC turn_bits(
    const char *name, const char *id, AZIOT_KEYS_ENCRYPT_MECHANISM mechanism,
    const unsigned char *input, uintptr_t input_len, unsigned char *output, uintptr_t *output_len) {
    enter();
    record("%s %s %u %s", name, id, mechanism, output == NULL ? "NULL" : "buffer");
    AZIOT_KEYS_RC rc = prescribed(id);
    if (rc == AZIOT_KEYS_RC_OK && output != NULL && *output_len < input_len) {
        rc = AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
    }
    if (rc == AZIOT_KEYS_RC_OK) {
        for (uintptr_t i = 0; output != NULL && i < input_len; i++) {
            output[i] = (unsigned char)~input[i];
        }
        *output_len = input_len;
    }
    return leave(rc);
}

static AZIOT_KEYS_RC encrypt(
    const char *id, AZIOT_KEYS_ENCRYPT_MECHANISM mechanism, const void *parameters,
    const unsigned char *plaintext, uintptr_t plaintext_len, unsigned char *ciphertext, uintptr_t *ciphertext_len) {
    (void)parameters;
    return turn_bits("encrypt", id, mechanism, plaintext, plaintext_len, ciphertext, ciphertext_len);
}

static AZIOT_KEYS_RC decrypt(
    const char *id, AZIOT_KEYS_ENCRYPT_MECHANISM mechanism, const void *parameters,
    const unsigned char *ciphertext, uintptr_t ciphertext_len, unsigned char *plaintext, uintptr_t *plaintext_len) {
    (void)parameters;
    return turn_bits("decrypt", id, mechanism, ciphertext, ciphertext_len, plaintext, plaintext_len);
}

#ifdef LIST_VERSION
#define VERSION_OF(version) LIST_VERSION
#else
#define VERSION_OF(version) version
#endif

#ifdef NULL_VERIFY
#define VERIFY NULL
#else
#define VERIFY verify
#endif

static const AZIOT_KEYS_FUNCTION_LIST_2_0_0_0 list_2_0_0_0 = {
    .base = { VERSION_OF(AZIOT_KEYS_VERSION_2_0_0_0) },
    .set_parameter = set_parameter,
    .create_key_pair_if_not_exists = create_key_pair_if_not_exists,
    .load_key_pair = load_key_pair,
    .get_key_pair_parameter = get_key_pair_parameter,
    .create_key_if_not_exists = create_key_if_not_exists,
    .load_key = load_key,
    .import_key = import_key,
    .derive_key = derive_key,
    .sign = sign,
    .verify = VERIFY,
    .encrypt = encrypt,
    .decrypt = decrypt,
};

#ifndef ONLY_2_0
static AZIOT_KEYS_RC move_key_pair(const char *from, const char *to) {
    enter();
    record("move_key_pair %s %s", from, to);
    AZIOT_KEYS_RC rc = prescribed(from);
    return leave(rc);
}

static AZIOT_KEYS_RC delete_key_pair(const char *id) {
    enter();
    record("delete_key_pair %s", id);
    return leave(prescribed(id));
}

static AZIOT_KEYS_RC delete_key(const char *id) {
    enter();
    record("delete_key %s", id);
    AZIOT_KEYS_RC rc = prescribed(id);
    struct key *key = find(id);
    if (rc == AZIOT_KEYS_RC_OK && key != NULL) {
        memset(key, 0, sizeof *key);
    }
    return leave(rc);
}

static const AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 list_2_1_0_0 = {
    .base = { VERSION_OF(AZIOT_KEYS_VERSION_2_1_0_0) },
    .set_parameter = set_parameter,
    .create_key_pair_if_not_exists = create_key_pair_if_not_exists,
    .move_key_pair = move_key_pair,
    .load_key_pair = load_key_pair,
    .get_key_pair_parameter = get_key_pair_parameter,
    .delete_key_pair = delete_key_pair,
    .create_key_if_not_exists = create_key_if_not_exists,
    .load_key = load_key,
    .import_key = import_key,
    .delete_key = delete_key,
    .derive_key = derive_key,
    .sign = sign,
    .verify = VERIFY,
    .encrypt = encrypt,
    .decrypt = decrypt,
};
#endif

API AZIOT_KEYS_RC aziot_keys_get_function_list(
    AZIOT_KEYS_VERSION version, const AZIOT_KEYS_FUNCTION_LIST **pfunction_list) {
    record("get_function_list 0x%08x", version);
#ifdef NO_LIST
    if (NO_LIST != AZIOT_KEYS_RC_OK) {
        return NO_LIST;
    }
#endif
#ifndef ONLY_2_0
    if (version == AZIOT_KEYS_VERSION_2_1_0_0) {
        *pfunction_list = &list_2_1_0_0.base;
        return AZIOT_KEYS_RC_OK;
    }
#endif
    if (version == AZIOT_KEYS_VERSION_2_0_0_0) {
        *pfunction_list = &list_2_0_0_0.base;
        return AZIOT_KEYS_RC_OK;
    }
    return AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
}

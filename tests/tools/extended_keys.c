/*
 * A key library with the private function list of ours, whose calls wait where a test wants them to. It shows which thread
 * of the Keys Service makes which call. Keys are what their ids say:
 *
 *   token…    lies in a token: calls wait while the file $EXTENDED_KEYS/token exists, and nothing is answered from memory
 *   file…     lies in a file and is never answered from memory
 *   new…      as file…, and is missing until it has been created
 *   all others lie in files and are answered from memory
 *
 * Creating a key pair whose first algorithm is RSA, if it is missing, waits while the file $EXTENDED_KEYS/generate exists;
 * a report, while $EXTENDED_KEYS/report does. A report has a failing token while $EXTENDED_KEYS/failing exists. Every call
 * that may wait is a line in $EXTENDED_KEYS/calls when it begins: its name, the id, the name of the thread, the thread's
 * nice value. MACs and ciphertexts are no secrets here.
 *
 * Variants, chosen when it is compiled:
 *
 *   PUBLIC                offers function list 2.1.0.0 instead, as a library by somebody else would
 *   HANDLE_KEY_IN_TOKEN   the key that signs handles lies in the token, too
 *   MISSING=n             the n-th function that only the private list has is a null pointer
 *   THREAD                loading the library starts a thread that sleeps for ever
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "aziot-keys.h"

#define API __attribute__((visibility("default")))
#define HANDLE_KEY "handle-validation-key"
#define WOULD_BLOCK 3u
#define MANY 700

#ifdef PUBLIC
#define VERSION 0x02010000u
#else
#define VERSION 0x02ff0003u
#endif

enum { MAX_CREATED = 64, MAX_ID = 256 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char created[MAX_CREATED][MAX_ID];
static size_t created_count;

static const char *directory(void) {
    const char *path = getenv("EXTENDED_KEYS");
    return path == NULL ? "." : path;
}

static void record(const char *call, const char *id) {
    char path[512], thread[32] = "", line[512];
    prctl(PR_GET_NAME, thread);
    snprintf(path, sizeof path, "%s/calls", directory());
    int length = snprintf(line, sizeof line, "%s %.200s %s %d\n", call, id, thread, getpriority(PRIO_PROCESS, 0));
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0 || write(file, line, (size_t)length) != length) {
        abort();
    }
    close(file);
}

static void wait_for_gate(const char *name) {
    char path[512];
    struct stat gate;
    struct timespec pause = {.tv_nsec = 2000000};
    snprintf(path, sizeof path, "%s/%s", directory(), name);
    while (stat(path, &gate) == 0) {
        nanosleep(&pause, NULL);
    }
}

static int begins(const char *id, const char *prefix) {
    return strncmp(id, prefix, strlen(prefix)) == 0;
}

static int in_token(const char *id) {
#ifdef HANDLE_KEY_IN_TOKEN
    if (strcmp(id, HANDLE_KEY) == 0) {
        return 1;
    }
#endif
    return begins(id, "token");
}

static int in_memory(const char *id) {
    return !in_token(id) && !begins(id, "file") && !begins(id, "new");
}

static int exists(const char *id) {
    if (!begins(id, "new")) {
        return 1;
    }
    int found = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < created_count; i++) {
        found |= strcmp(created[i], id) == 0;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static void create(const char *id) {
    if (exists(id)) {
        return;
    }
    pthread_mutex_lock(&lock);
    if (created_count < MAX_CREATED) {
        snprintf(created[created_count++], MAX_ID, "%s", id);
    }
    pthread_mutex_unlock(&lock);
}

/* What every call that may wait does first. */
static AZIOT_KEYS_RC wait_for(const char *call, const char *id) {
    record(call, id);
    if (in_token(id)) {
        wait_for_gate("token");
    }
    return exists(id) ? AZIOT_KEYS_RC_OK : AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
}

static AZIOT_KEYS_RC answer(const unsigned char *bytes, size_t length, unsigned char *out, size_t *out_length) {
    if (out != NULL && *out_length < length) {
        *out_length = length;
        return AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
    }
    if (out != NULL) {
        memcpy(out, bytes, length);
    }
    *out_length = length;
    return AZIOT_KEYS_RC_OK;
}

static void mac(const unsigned char *message, size_t length, unsigned char out[32]) {
    for (size_t i = 0; i < 32; i++) {
        out[i] = (unsigned char)i;
    }
    for (size_t i = 0; i < length; i++) {
        out[i % 32] = (unsigned char)(out[i % 32] * 31 + message[i]);
    }
}

static AZIOT_KEYS_RC set_parameter(const char *name, const char *value) {
    (void)name;
    (void)value;
    return AZIOT_KEYS_RC_OK;
}

static AZIOT_KEYS_RC create_key_pair_if_not_exists(const char *id, const char *preferred_algorithms) {
    AZIOT_KEYS_RC found = wait_for("create_key_pair_if_not_exists", id);
    if (found != AZIOT_KEYS_RC_OK && preferred_algorithms != NULL && begins(preferred_algorithms, "rsa")) {
        wait_for_gate("generate");
    }
    create(id);
    return AZIOT_KEYS_RC_OK;
}

static AZIOT_KEYS_RC move_key_pair(const char *from, const char *to) {
    AZIOT_KEYS_RC rc = wait_for("move_key_pair", from);
    if (rc == AZIOT_KEYS_RC_OK && in_token(to)) {
        wait_for_gate("token");
    }
    return rc;
}

static AZIOT_KEYS_RC load_key_pair(const char *id) {
    return wait_for("load_key_pair", id);
}

static AZIOT_KEYS_RC parameter_of(unsigned int type, unsigned char *value, size_t *length) {
    unsigned int algorithm = AZIOT_KEYS_KEY_PAIR_PARAMETER_ALGORITHM_RSA;
    unsigned char modulus[2048];
    switch (type) {
    case AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_ALGORITHM:
        return answer((unsigned char *)&algorithm, sizeof algorithm, value, length);
    case AZIOT_KEYS_KEY_PAIR_PARAMETER_TYPE_RSA_MODULUS:
        memset(modulus, 0xab, sizeof modulus);
        return answer(modulus, sizeof modulus, value, length);
    default:
        return AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
    }
}

static AZIOT_KEYS_RC get_key_pair_parameter(const char *id, unsigned int type, unsigned char *value, size_t *length) {
    AZIOT_KEYS_RC rc = wait_for("get_key_pair_parameter", id);
    return rc == AZIOT_KEYS_RC_OK ? parameter_of(type, value, length) : rc;
}

static AZIOT_KEYS_RC try_get_key_pair_parameter(const char *id, unsigned int type, unsigned char *value, size_t *length) {
    return in_memory(id) ? parameter_of(type, value, length) : WOULD_BLOCK;
}

static AZIOT_KEYS_RC delete_key_pair(const char *id) {
    wait_for("delete_key_pair", id);
    return AZIOT_KEYS_RC_OK;
}

static AZIOT_KEYS_RC create_key_if_not_exists(const char *id, unsigned int usage) {
    (void)usage;
    wait_for("create_key_if_not_exists", id);
    create(id);
    return AZIOT_KEYS_RC_OK;
}

static AZIOT_KEYS_RC load_key(const char *id) {
    return wait_for("load_key", id);
}

static AZIOT_KEYS_RC import_key(const char *id, const uint8_t *bytes, size_t length, unsigned int usage) {
    (void)bytes;
    (void)length;
    (void)usage;
    wait_for("import_key", id);
    create(id);
    return AZIOT_KEYS_RC_OK;
}

static AZIOT_KEYS_RC delete_key(const char *id) {
    wait_for("delete_key", id);
    return AZIOT_KEYS_RC_OK;
}

static AZIOT_KEYS_RC derive_key(const char *id, const uint8_t *data, size_t length, unsigned char *out, size_t *out_length) {
    unsigned char bytes[32];
    AZIOT_KEYS_RC rc = wait_for("derive_key", id);
    mac(data, length, bytes);
    return rc == AZIOT_KEYS_RC_OK ? answer(bytes, sizeof bytes, out, out_length) : rc;
}

static AZIOT_KEYS_RC try_derive_key(const char *id, const uint8_t *data, size_t length, unsigned char *out, size_t *out_length) {
    unsigned char bytes[32];
    mac(data, length, bytes);
    return in_memory(id) ? answer(bytes, sizeof bytes, out, out_length) : WOULD_BLOCK;
}

static AZIOT_KEYS_RC sign(const char *id, unsigned int mechanism, const void *parameters, const unsigned char *digest,
                          size_t digest_length, unsigned char *signature, size_t *signature_length) {
    (void)mechanism;
    (void)parameters;
    unsigned char bytes[32];
    AZIOT_KEYS_RC rc = wait_for("sign", id);
    mac(digest, digest_length, bytes);
    return rc == AZIOT_KEYS_RC_OK ? answer(bytes, sizeof bytes, signature, signature_length) : rc;
}

static AZIOT_KEYS_RC try_sign(const char *id, unsigned int mechanism, const void *parameters, const unsigned char *digest,
                              size_t digest_length, unsigned char *signature, size_t *signature_length) {
    (void)mechanism;
    (void)parameters;
    unsigned char bytes[32];
    mac(digest, digest_length, bytes);
    return in_memory(id) ? answer(bytes, sizeof bytes, signature, signature_length) : WOULD_BLOCK;
}

static AZIOT_KEYS_RC compare(const unsigned char *digest, size_t digest_length, const unsigned char *signature,
                             size_t signature_length, int *ok) {
    unsigned char bytes[32];
    mac(digest, digest_length, bytes);
    *ok = signature_length == sizeof bytes && memcmp(signature, bytes, sizeof bytes) == 0;
    return AZIOT_KEYS_RC_OK;
}

static AZIOT_KEYS_RC verify(const char *id, unsigned int mechanism, const void *parameters, const unsigned char *digest,
                            size_t digest_length, const unsigned char *signature, size_t signature_length, int *ok) {
    (void)mechanism;
    (void)parameters;
    AZIOT_KEYS_RC rc = wait_for("verify", id);
    return rc == AZIOT_KEYS_RC_OK ? compare(digest, digest_length, signature, signature_length, ok) : rc;
}

static AZIOT_KEYS_RC try_verify(const char *id, unsigned int mechanism, const void *parameters, const unsigned char *digest,
                                size_t digest_length, const unsigned char *signature, size_t signature_length, int *ok) {
    (void)mechanism;
    (void)parameters;
    return in_memory(id) ? compare(digest, digest_length, signature, signature_length, ok) : WOULD_BLOCK;
}

/* The version byte, the input, sixteen zeros. */
static AZIOT_KEYS_RC encrypted(const unsigned char *input, size_t input_length, unsigned char *output, size_t *output_length) {
    size_t length = input_length + 17;
    if (output == NULL || *output_length < length) {
        AZIOT_KEYS_RC rc = output == NULL ? AZIOT_KEYS_RC_OK : AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
        *output_length = length;
        return rc;
    }
    memset(output, 0, length);
    output[0] = 2;
    memcpy(output + 1, input, input_length);
    *output_length = length;
    return AZIOT_KEYS_RC_OK;
}

static AZIOT_KEYS_RC decrypted(const unsigned char *input, size_t input_length, unsigned char *output, size_t *output_length) {
    if (input_length < 17) {
        return AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
    }
    return answer(input + 1, input_length - 17, output, output_length);
}

static AZIOT_KEYS_RC encrypt(const char *id, unsigned int mechanism, const void *parameters, const unsigned char *input,
                             size_t input_length, unsigned char *output, size_t *output_length) {
    (void)mechanism;
    (void)parameters;
    AZIOT_KEYS_RC rc = wait_for("encrypt", id);
    return rc == AZIOT_KEYS_RC_OK ? encrypted(input, input_length, output, output_length) : rc;
}

static AZIOT_KEYS_RC decrypt(const char *id, unsigned int mechanism, const void *parameters, const unsigned char *input,
                             size_t input_length, unsigned char *output, size_t *output_length) {
    (void)mechanism;
    (void)parameters;
    AZIOT_KEYS_RC rc = wait_for("decrypt", id);
    return rc == AZIOT_KEYS_RC_OK ? decrypted(input, input_length, output, output_length) : rc;
}

static AZIOT_KEYS_RC try_encrypt(const char *id, unsigned int mechanism, const void *parameters, const unsigned char *input,
                                 size_t input_length, unsigned char *output, size_t *output_length) {
    (void)parameters;
    int quick = in_memory(id) && mechanism != AZIOT_KEYS_ENCRYPT_MECHANISM_RSA_PKCS1;
    return quick ? encrypted(input, input_length, output, output_length) : WOULD_BLOCK;
}

static AZIOT_KEYS_RC try_decrypt(const char *id, unsigned int mechanism, const void *parameters, const unsigned char *input,
                                 size_t input_length, unsigned char *output, size_t *output_length) {
    (void)mechanism;
    (void)parameters;
    return in_memory(id) ? decrypted(input, input_length, output, output_length) : WOULD_BLOCK;
}

static AZIOT_KEYS_RC try_load(const char *id) {
    return in_memory(id) ? AZIOT_KEYS_RC_OK : WOULD_BLOCK;
}

static AZIOT_KEYS_RC key_location(const char *id, unsigned int *location) {
    *location = in_token(id) ? 2 : 1;
    return AZIOT_KEYS_RC_OK;
}

static AZIOT_KEYS_RC sweep(void) {
    return AZIOT_KEYS_RC_OK;
}

struct key_report {
    const char *id;
    unsigned int kind, location;
    const char *place;
    unsigned int preloaded;
    const char *remark;
};

struct token_report {
    const char *uri;
    unsigned int state;
    uint64_t since;
    const char *failure;
    uint64_t next_attempt;
    unsigned int sessions;
};

typedef void (*visit_key)(void *context, const struct key_report *key);
typedef void (*visit_token)(void *context, const struct token_report *token);

static AZIOT_KEYS_RC report(visit_key key, visit_token token, void *context) {
    struct key_report pair = {.id = "tls", .kind = 2, .location = 2, .place = "pkcs11:token=t;object=tls", .preloaded = 1};
    struct key_report nameless = {.kind = 0, .location = 1, .place = "/keys/x-0.key", .remark = "not used yet"};
    struct key_report handle_key = {.id = HANDLE_KEY, .kind = 1, .location = 1, .place = "/keys/handle.key"};
    key(context, &pair);
    key(context, &nameless);
    key(context, &handle_key);
    wait_for_gate("report");
    char id[16];
    for (int i = 0; i < MANY; i++) {
        snprintf(id, sizeof id, "many%d", i);
        struct key_report one = {.id = id, .kind = 1, .location = 1, .place = "/keys/many"};
        key(context, &one);
    }
    struct token_report working = {.uri = "pkcs11:token=t", .state = 1, .since = 1790000000, .sessions = 2};
    struct token_report failing = {.uri = "pkcs11:token=u", .state = 2, .since = 1790000001,
                                   .failure = "C_Login: CKR_PIN_INCORRECT", .next_attempt = 1790000031};
    token(context, &working);
    char path[512];
    struct stat gate;
    snprintf(path, sizeof path, "%s/failing", directory());
    if (stat(path, &gate) == 0) {
        token(context, &failing);
    }
    return AZIOT_KEYS_RC_OK;
}

/* All keys are in memory. */
static void begin_moment(void) {
}

struct extended_list {
    AZIOT_KEYS_FUNCTION_LIST_2_1_0_0 public;
    void *own[12];
};

static struct extended_list list = {
    .public =
        {
            .base = {.version = VERSION},
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
            .verify = verify,
            .encrypt = encrypt,
            .decrypt = decrypt,
        },
    .own = {try_sign, try_verify, try_derive_key, try_load, try_load, try_get_key_pair_parameter, try_encrypt, try_decrypt,
            key_location, sweep, report, begin_moment},
};

API AZIOT_KEYS_RC aziot_keys_get_function_list(AZIOT_KEYS_VERSION version, const AZIOT_KEYS_FUNCTION_LIST **out) {
    if (version != VERSION) {
        return AZIOT_KEYS_RC_ERR_INVALID_PARAMETER;
    }
#ifdef MISSING
    list.own[MISSING] = NULL;
#endif
    *out = &list.public.base;
    return AZIOT_KEYS_RC_OK;
}

#ifdef THREAD
static void *sleep_for_ever(void *nothing) {
    for (;;) {
        pause();
    }
    return nothing;
}

__attribute__((constructor)) static void start_thread(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, sleep_for_ever, NULL) != 0) {
        abort();
    }
}
#endif

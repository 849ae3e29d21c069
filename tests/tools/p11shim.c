/*
 * A PKCS#11 module (Cryptoki 2.40) in front of another one: writes down every call, and answers some itself.
 *
 *   P11SHIM_MODULE=/usr/lib/softhsm/libsofthsm2.so   the module that does the work
 *   P11SHIM_LOG=record                               one line a call is appended here
 *   P11SHIM_CONTROL=script                           what to answer instead; read again at every call
 *   P11SHIM_ONLY=C_Login,C_Initialize                only these are recorded, for runs of many calls; unset: all
 *
 * Needs the headers of p11-kit: cc -shared -fPIC $(pkg-config --cflags p11-kit-1) p11shim.c -ldl
 *
 * A line of the record names the function, its mechanism, its template and its result:
 *
 *   C_GenerateKey mechanism=0x350 template=CKA_PRIVATE=1,CKA_LABEL="key",CKA_VALUE_LEN=32 -> 0x0
 *
 * Templates stand in the order of the call. CKA_VALUE and PINs are shown as their length, and no results of
 * C_GetAttributeValue are shown at all: a record holds no secrets.
 *
 * A line of the script is one of
 *
 *   C_Sign 0x30 3            the next three C_Sign answer CKR_DEVICE_ERROR and are not passed on
 *   C_Sign 0x30 *            so do all of them
 *   C_CreateObject 0x30 1 after    the call is passed on first, its result replaced if it was CKR_OK
 *   C_Sign sleep:200 1       the next C_Sign waits for 200 milliseconds before it is passed on
 *   C_Sign hold 8            the next eight wait as long as there is a file beside the script with `.hold` behind its name
 *
 * The first line that fits counts. The shim writes the counts that are left back into the script, and removes lines that
 * are used up, so that a script survives the module being unloaded and a test can see what was not needed.
 */
#define _GNU_SOURCE
#define CRYPTOKI_GNU 1
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <p11-kit/pkcs11.h>

#define EXPORT __attribute__((visibility("default")))

enum { LINE = 4096, SCRIPT = 16384 };

static struct ck_function_list *real;
static void *module;
static pthread_mutex_t control_lock = PTHREAD_MUTEX_INITIALIZER;

/* Text that grows up to a bound; what does not fit is cut. */
struct text {
    char bytes[LINE];
    size_t used;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text->bytes + text->used, sizeof text->bytes - text->used, format, arguments);
    va_end(arguments);
    if (length > 0) {
        text->used += (size_t)length;
    }
    if (text->used > sizeof text->bytes - 2) {
        text->used = sizeof text->bytes - 2;
    }
}

/* Whether a line's function is in the comma-separated list. */
static int wanted(const struct text *line) {
    const char *list = getenv("P11SHIM_ONLY");
    if (list == NULL) {
        return 1;
    }
    size_t length = 0;
    while (length < line->used && line->bytes[length] != ' ') {
        length++;
    }
    for (const char *at = list; (at = strstr(at, "C_")) != NULL; at += 2) {
        if (strncmp(at, line->bytes, length) == 0 && (at[length] == ',' || at[length] == '\0')) {
            return 1;
        }
    }
    return 0;
}

static void record(struct text *line, ck_rv_t result) {
    const char *path = getenv("P11SHIM_LOG");
    if (path == NULL || !wanted(line)) {
        return;
    }
    put(line, " -> 0x%lx", result);
    line->bytes[line->used++] = '\n';
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0 || write(file, line->bytes, line->used) != (ssize_t)line->used) {
        fprintf(stderr, "p11shim: cannot write %s\n", path);
    }
    if (file >= 0) {
        close(file);
    }
}

/* What the script says about one call. */
struct order {
    int replace; /* 0: pass on, 1: answer without passing on, 2: pass on, then replace CKR_OK */
    ck_rv_t result;
    long sleep_ms;
    int hold;
};

/* Finds the first line for `function`, and writes the script back without the use of it. */
static struct order order_for(const char *function) {
    struct order order = { 0, CKR_OK, 0, 0 };
    const char *path = getenv("P11SHIM_CONTROL");
    if (path == NULL) {
        return order;
    }
    pthread_mutex_lock(&control_lock);
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file >= 0) {
        flock(file, LOCK_EX);
        char script[SCRIPT];
        ssize_t length = read(file, script, sizeof script - 1);
        script[length < 0 ? 0 : length] = '\0';
        char kept[SCRIPT + 64];
        size_t used = 0;
        int found = 0, changed = 0;
        char *rest = script, *line;
        while ((line = strsep(&rest, "\n")) != NULL) {
            char name[64], what[64], count[32], when[16] = "";
            int words = sscanf(line, "%63s %63s %31s %15s", name, what, count, when);
            if (line[0] == '\0') {
                continue;
            }
            if (words >= 3 && !found && strcmp(name, function) == 0) {
                found = 1;
                if (strncmp(what, "sleep:", 6) == 0) {
                    order.sleep_ms = strtol(what + 6, NULL, 10);
                } else if (strcmp(what, "hold") == 0) {
                    order.hold = 1;
                } else {
                    order.replace = strcmp(when, "after") == 0 ? 2 : 1;
                    order.result = strtoul(what, NULL, 0);
                }
                if (strcmp(count, "*") != 0) {
                    long left = strtol(count, NULL, 10) - 1;
                    changed = 1;
                    if (left > 0) {
                        used += (size_t)snprintf(kept + used, sizeof kept - used, "%s %s %ld %s\n", name, what, left, when);
                    }
                    continue;
                }
            }
            used += (size_t)snprintf(kept + used, sizeof kept - used, "%s\n", line);
        }
        if (changed && (ftruncate(file, 0) != 0 || pwrite(file, kept, used, 0) != (ssize_t)used)) {
            fprintf(stderr, "p11shim: cannot write %s\n", path);
        }
        close(file);
    }
    pthread_mutex_unlock(&control_lock);
    if (order.sleep_ms > 0) {
        struct timespec pause = { order.sleep_ms / 1000, order.sleep_ms % 1000 * 1000000 };
        nanosleep(&pause, NULL);
    }
    if (order.hold) {
        char gate[4096];
        struct timespec pause = { 0, 5000000 };
        snprintf(gate, sizeof gate, "%s.hold", path);
        while (access(gate, F_OK) == 0) {
            nanosleep(&pause, NULL);
        }
    }
    return order;
}

static const char *attribute_name(ck_attribute_type_t type) {
    switch (type) {
#define NAME(name) case name: return #name;
        NAME(CKA_CLASS) NAME(CKA_TOKEN) NAME(CKA_PRIVATE) NAME(CKA_LABEL) NAME(CKA_VALUE) NAME(CKA_KEY_TYPE) NAME(CKA_ID)
        NAME(CKA_SENSITIVE) NAME(CKA_ENCRYPT) NAME(CKA_DECRYPT) NAME(CKA_WRAP) NAME(CKA_UNWRAP) NAME(CKA_SIGN)
        NAME(CKA_VERIFY) NAME(CKA_DERIVE) NAME(CKA_MODULUS) NAME(CKA_MODULUS_BITS) NAME(CKA_PUBLIC_EXPONENT)
        NAME(CKA_VALUE_LEN) NAME(CKA_EXTRACTABLE) NAME(CKA_EC_PARAMS) NAME(CKA_EC_POINT) NAME(CKA_ALWAYS_AUTHENTICATE)
#undef NAME
        default: return NULL;
    }
}

static void put_bytes(struct text *line, const unsigned char *bytes, size_t length) {
    int printable = 1;
    for (size_t i = 0; i < length; i++) {
        printable &= bytes[i] >= ' ' && bytes[i] < 0x7f && bytes[i] != '"';
    }
    put(line, printable ? "\"" : "");
    for (size_t i = 0; i < length && i < 256; i++) {
        put(line, printable ? "%c" : "%02x", bytes[i]);
    }
    put(line, printable ? "\"" : "");
}

static void put_template(struct text *line, const char *name, const struct ck_attribute *template, unsigned long count, int values) {
    put(line, " %s=", name);
    for (unsigned long i = 0; template != NULL && i < count; i++) {
        const struct ck_attribute *attribute = &template[i];
        const char *known = attribute_name(attribute->type);
        put(line, i == 0 ? "" : ",");
        if (known != NULL) {
            put(line, "%s", known);
        } else {
            put(line, "0x%lx", attribute->type);
        }
        if (!values) {
            continue;
        }
        put(line, "=");
        unsigned long number;
        if (attribute->type == CKA_VALUE) {
            put(line, "<%lu bytes>", attribute->value_len);
        } else if (attribute->value == NULL) {
            put(line, "<null>");
        } else if (attribute->type != CKA_LABEL && attribute->type != CKA_ID && attribute->type != CKA_PUBLIC_EXPONENT
            && attribute->type != CKA_EC_PARAMS && attribute->value_len == 1) {
            put(line, "%d", *(unsigned char *)attribute->value);
        } else if ((attribute->type == CKA_CLASS || attribute->type == CKA_KEY_TYPE || attribute->type == CKA_VALUE_LEN
                       || attribute->type == CKA_MODULUS_BITS)
            && attribute->value_len == sizeof number) {
            memcpy(&number, attribute->value, sizeof number);
            put(line, "%lu", number);
        } else {
            put_bytes(line, attribute->value, attribute->value_len);
        }
    }
}

static void put_mechanism(struct text *line, const struct ck_mechanism *mechanism) {
    if (mechanism == NULL) {
        put(line, " mechanism=<null>");
        return;
    }
    put(line, " mechanism=0x%lx", mechanism->mechanism);
    if (mechanism->mechanism == CKM_AES_GCM && mechanism->parameter_len == 6 * sizeof(unsigned long)) {
        /* CK_GCM_PARAMS with ulIvBits, which the headers of 2.40 have and its text lacks. */
        const unsigned long *words = mechanism->parameter;
        put(line, " iv_len=%lu iv_bits=%lu aad_len=%lu tag_bits=%lu", words[1], words[2], words[4], words[5]);
    } else if (mechanism->parameter_len != 0) {
        put(line, " parameter_len=%lu", mechanism->parameter_len);
    }
}

/* One call: what to note about it, and how to pass it on. */
#define CALL(function, note, call) \
    do { \
        struct text line = { .used = 0 }; \
        put(&line, #function); \
        note; \
        struct order order = order_for(#function); \
        ck_rv_t result = order.replace == 1 ? order.result : real->call; \
        if (order.replace == 2 && result == CKR_OK) { \
            result = order.result; \
        } \
        record(&line, result); \
        return result; \
    } while (0)

static const char *output_kind(const void *output) {
    return output == NULL ? "length" : "result";
}

static ck_rv_t shim_initialize(void *arguments) {
    struct ck_c_initialize_args *given = arguments;
    CALL(C_Initialize, put(&line, " flags=0x%lx", given == NULL ? 0 : given->flags), C_Initialize(arguments));
}
static ck_rv_t shim_finalize(void *reserved) {
    CALL(C_Finalize, (void)0, C_Finalize(reserved));
}
static ck_rv_t shim_get_info(struct ck_info *info) {
    CALL(C_GetInfo, (void)0, C_GetInfo(info));
}
EXPORT ck_rv_t C_GetFunctionList(struct ck_function_list **list);
static ck_rv_t shim_get_slot_list(unsigned char present, ck_slot_id_t *slots, unsigned long *count) {
    CALL(C_GetSlotList, put(&line, " %s", output_kind(slots)), C_GetSlotList(present, slots, count));
}
static ck_rv_t shim_get_slot_info(ck_slot_id_t slot, struct ck_slot_info *info) {
    CALL(C_GetSlotInfo, put(&line, " slot=%lu", slot), C_GetSlotInfo(slot, info));
}
static ck_rv_t shim_get_token_info(ck_slot_id_t slot, struct ck_token_info *info) {
    CALL(C_GetTokenInfo, put(&line, " slot=%lu", slot), C_GetTokenInfo(slot, info));
}
static ck_rv_t shim_get_mechanism_list(ck_slot_id_t slot, ck_mechanism_type_t *list, unsigned long *count) {
    CALL(C_GetMechanismList, put(&line, " slot=%lu", slot), C_GetMechanismList(slot, list, count));
}
static ck_rv_t shim_get_mechanism_info(ck_slot_id_t slot, ck_mechanism_type_t type, struct ck_mechanism_info *info) {
    CALL(C_GetMechanismInfo, put(&line, " slot=%lu mechanism=0x%lx", slot, type), C_GetMechanismInfo(slot, type, info));
}
static ck_rv_t shim_init_token(ck_slot_id_t slot, unsigned char *pin, unsigned long pin_len, unsigned char *label) {
    CALL(C_InitToken, put(&line, " slot=%lu", slot), C_InitToken(slot, pin, pin_len, label));
}
static ck_rv_t shim_init_pin(ck_session_handle_t session, unsigned char *pin, unsigned long pin_len) {
    CALL(C_InitPIN, put(&line, " session=%lu", session), C_InitPIN(session, pin, pin_len));
}
static ck_rv_t shim_set_pin(ck_session_handle_t session, unsigned char *old_pin, unsigned long old_len, unsigned char *new_pin, unsigned long new_len) {
    CALL(C_SetPIN, put(&line, " session=%lu", session), C_SetPIN(session, old_pin, old_len, new_pin, new_len));
}
static ck_rv_t shim_open_session(ck_slot_id_t slot, ck_flags_t flags, void *application, ck_notify_t notify, ck_session_handle_t *session) {
    CALL(C_OpenSession, put(&line, " slot=%lu flags=0x%lx", slot, flags), C_OpenSession(slot, flags, application, notify, session));
}
static ck_rv_t shim_close_session(ck_session_handle_t session) {
    CALL(C_CloseSession, put(&line, " session=%lu", session), C_CloseSession(session));
}
static ck_rv_t shim_close_all_sessions(ck_slot_id_t slot) {
    CALL(C_CloseAllSessions, put(&line, " slot=%lu", slot), C_CloseAllSessions(slot));
}
static ck_rv_t shim_get_session_info(ck_session_handle_t session, struct ck_session_info *info) {
    CALL(C_GetSessionInfo, put(&line, " session=%lu", session), C_GetSessionInfo(session, info));
}
static ck_rv_t shim_get_operation_state(ck_session_handle_t session, unsigned char *state, unsigned long *length) {
    CALL(C_GetOperationState, put(&line, " session=%lu", session), C_GetOperationState(session, state, length));
}
static ck_rv_t shim_set_operation_state(ck_session_handle_t session, unsigned char *state, unsigned long length, ck_object_handle_t encryption, ck_object_handle_t authentication) {
    CALL(C_SetOperationState, put(&line, " session=%lu", session), C_SetOperationState(session, state, length, encryption, authentication));
}
static ck_rv_t shim_login(ck_session_handle_t session, ck_user_type_t user, unsigned char *pin, unsigned long pin_len) {
    CALL(C_Login, put(&line, " session=%lu user=%lu pin=%s", session, user, pin == NULL ? "null" : "given"), C_Login(session, user, pin, pin_len));
}
static ck_rv_t shim_logout(ck_session_handle_t session) {
    CALL(C_Logout, put(&line, " session=%lu", session), C_Logout(session));
}
static ck_rv_t shim_create_object(ck_session_handle_t session, struct ck_attribute *template, unsigned long count, ck_object_handle_t *object) {
    CALL(C_CreateObject, put_template(&line, "template", template, count, 1), C_CreateObject(session, template, count, object));
}
static ck_rv_t shim_copy_object(ck_session_handle_t session, ck_object_handle_t object, struct ck_attribute *template, unsigned long count, ck_object_handle_t *copy) {
    CALL(C_CopyObject, put_template(&line, "template", template, count, 1), C_CopyObject(session, object, template, count, copy));
}
static ck_rv_t shim_destroy_object(ck_session_handle_t session, ck_object_handle_t object) {
    CALL(C_DestroyObject, put(&line, " object=%lu", object), C_DestroyObject(session, object));
}
static ck_rv_t shim_get_object_size(ck_session_handle_t session, ck_object_handle_t object, unsigned long *size) {
    CALL(C_GetObjectSize, put(&line, " object=%lu", object), C_GetObjectSize(session, object, size));
}
static ck_rv_t shim_get_attribute_value(ck_session_handle_t session, ck_object_handle_t object, struct ck_attribute *template, unsigned long count) {
    CALL(C_GetAttributeValue, put(&line, " object=%lu", object); put_template(&line, "template", template, count, 0), C_GetAttributeValue(session, object, template, count));
}
static ck_rv_t shim_set_attribute_value(ck_session_handle_t session, ck_object_handle_t object, struct ck_attribute *template, unsigned long count) {
    CALL(C_SetAttributeValue, put(&line, " object=%lu", object); put_template(&line, "template", template, count, 1), C_SetAttributeValue(session, object, template, count));
}
static ck_rv_t shim_find_objects_init(ck_session_handle_t session, struct ck_attribute *template, unsigned long count) {
    CALL(C_FindObjectsInit, put_template(&line, "template", template, count, 1), C_FindObjectsInit(session, template, count));
}
static ck_rv_t shim_find_objects(ck_session_handle_t session, ck_object_handle_t *objects, unsigned long room, unsigned long *count) {
    CALL(C_FindObjects, put(&line, " room=%lu", room), C_FindObjects(session, objects, room, count));
}
static ck_rv_t shim_find_objects_final(ck_session_handle_t session) {
    CALL(C_FindObjectsFinal, (void)0, C_FindObjectsFinal(session));
}

/* The four kinds of operations, each with the same arguments. */
#define INIT(function, name) \
    static ck_rv_t name(ck_session_handle_t session, struct ck_mechanism *mechanism, ck_object_handle_t key) { \
        CALL(function, put_mechanism(&line, mechanism); put(&line, " key=%lu", key), function(session, mechanism, key)); \
    }
#define ONE_PART(function, name) \
    static ck_rv_t name(ck_session_handle_t session, unsigned char *input, unsigned long input_len, unsigned char *output, unsigned long *output_len) { \
        CALL(function, put(&line, " input_len=%lu %s", input_len, output_kind(output)), function(session, input, input_len, output, output_len)); \
    }
#define TAKE(function, name) \
    static ck_rv_t name(ck_session_handle_t session, unsigned char *input, unsigned long input_len) { \
        CALL(function, put(&line, " input_len=%lu", input_len), function(session, input, input_len)); \
    }
#define GIVE(function, name) \
    static ck_rv_t name(ck_session_handle_t session, unsigned char *output, unsigned long *output_len) { \
        CALL(function, put(&line, " %s", output_kind(output)), function(session, output, output_len)); \
    }
#define COMPARE(function, name) \
    static ck_rv_t name(ck_session_handle_t session, unsigned char *input, unsigned long input_len, unsigned char *signature, unsigned long signature_len) { \
        CALL(function, put(&line, " input_len=%lu signature_len=%lu", input_len, signature_len), function(session, input, input_len, signature, signature_len)); \
    }

INIT(C_EncryptInit, shim_encrypt_init)
ONE_PART(C_Encrypt, shim_encrypt)
ONE_PART(C_EncryptUpdate, shim_encrypt_update)
GIVE(C_EncryptFinal, shim_encrypt_final)
INIT(C_DecryptInit, shim_decrypt_init)
ONE_PART(C_Decrypt, shim_decrypt)
ONE_PART(C_DecryptUpdate, shim_decrypt_update)
GIVE(C_DecryptFinal, shim_decrypt_final)
static ck_rv_t shim_digest_init(ck_session_handle_t session, struct ck_mechanism *mechanism) {
    CALL(C_DigestInit, put_mechanism(&line, mechanism), C_DigestInit(session, mechanism));
}
ONE_PART(C_Digest, shim_digest)
TAKE(C_DigestUpdate, shim_digest_update)
static ck_rv_t shim_digest_key(ck_session_handle_t session, ck_object_handle_t key) {
    CALL(C_DigestKey, put(&line, " key=%lu", key), C_DigestKey(session, key));
}
GIVE(C_DigestFinal, shim_digest_final)
INIT(C_SignInit, shim_sign_init)
ONE_PART(C_Sign, shim_sign)
TAKE(C_SignUpdate, shim_sign_update)
GIVE(C_SignFinal, shim_sign_final)
INIT(C_SignRecoverInit, shim_sign_recover_init)
ONE_PART(C_SignRecover, shim_sign_recover)
INIT(C_VerifyInit, shim_verify_init)
COMPARE(C_Verify, shim_verify)
TAKE(C_VerifyUpdate, shim_verify_update)
TAKE(C_VerifyFinal, shim_verify_final)
INIT(C_VerifyRecoverInit, shim_verify_recover_init)
ONE_PART(C_VerifyRecover, shim_verify_recover)
ONE_PART(C_DigestEncryptUpdate, shim_digest_encrypt_update)
ONE_PART(C_DecryptDigestUpdate, shim_decrypt_digest_update)
ONE_PART(C_SignEncryptUpdate, shim_sign_encrypt_update)
ONE_PART(C_DecryptVerifyUpdate, shim_decrypt_verify_update)
static ck_rv_t shim_generate_key(ck_session_handle_t session, struct ck_mechanism *mechanism, struct ck_attribute *template, unsigned long count, ck_object_handle_t *key) {
    CALL(C_GenerateKey, put_mechanism(&line, mechanism); put_template(&line, "template", template, count, 1), C_GenerateKey(session, mechanism, template, count, key));
}
static ck_rv_t shim_generate_key_pair(ck_session_handle_t session, struct ck_mechanism *mechanism, struct ck_attribute *public_template, unsigned long public_count, struct ck_attribute *private_template, unsigned long private_count, ck_object_handle_t *public_key, ck_object_handle_t *private_key) {
    CALL(C_GenerateKeyPair, put_mechanism(&line, mechanism); put_template(&line, "public", public_template, public_count, 1); put_template(&line, "private", private_template, private_count, 1),
        C_GenerateKeyPair(session, mechanism, public_template, public_count, private_template, private_count, public_key, private_key));
}
static ck_rv_t shim_wrap_key(ck_session_handle_t session, struct ck_mechanism *mechanism, ck_object_handle_t wrapping, ck_object_handle_t key, unsigned char *wrapped, unsigned long *length) {
    CALL(C_WrapKey, put_mechanism(&line, mechanism), C_WrapKey(session, mechanism, wrapping, key, wrapped, length));
}
static ck_rv_t shim_unwrap_key(ck_session_handle_t session, struct ck_mechanism *mechanism, ck_object_handle_t unwrapping, unsigned char *wrapped, unsigned long length, struct ck_attribute *template, unsigned long count, ck_object_handle_t *key) {
    CALL(C_UnwrapKey, put_mechanism(&line, mechanism); put_template(&line, "template", template, count, 1), C_UnwrapKey(session, mechanism, unwrapping, wrapped, length, template, count, key));
}
static ck_rv_t shim_derive_key(ck_session_handle_t session, struct ck_mechanism *mechanism, ck_object_handle_t base, struct ck_attribute *template, unsigned long count, ck_object_handle_t *key) {
    CALL(C_DeriveKey, put_mechanism(&line, mechanism); put_template(&line, "template", template, count, 1), C_DeriveKey(session, mechanism, base, template, count, key));
}
TAKE(C_SeedRandom, shim_seed_random)
static ck_rv_t shim_generate_random(ck_session_handle_t session, unsigned char *output, unsigned long length) {
    CALL(C_GenerateRandom, put(&line, " length=%lu", length), C_GenerateRandom(session, output, length));
}
static ck_rv_t shim_get_function_status(ck_session_handle_t session) {
    CALL(C_GetFunctionStatus, (void)0, C_GetFunctionStatus(session));
}
static ck_rv_t shim_cancel_function(ck_session_handle_t session) {
    CALL(C_CancelFunction, (void)0, C_CancelFunction(session));
}
static ck_rv_t shim_wait_for_slot_event(ck_flags_t flags, ck_slot_id_t *slot, void *reserved) {
    CALL(C_WaitForSlotEvent, (void)0, C_WaitForSlotEvent(flags, slot, reserved));
}

static struct ck_function_list shim = {
    { 2, 40 },
    shim_initialize, shim_finalize, shim_get_info, C_GetFunctionList, shim_get_slot_list, shim_get_slot_info,
    shim_get_token_info, shim_get_mechanism_list, shim_get_mechanism_info, shim_init_token, shim_init_pin, shim_set_pin,
    shim_open_session, shim_close_session, shim_close_all_sessions, shim_get_session_info, shim_get_operation_state,
    shim_set_operation_state, shim_login, shim_logout, shim_create_object, shim_copy_object, shim_destroy_object,
    shim_get_object_size, shim_get_attribute_value, shim_set_attribute_value, shim_find_objects_init, shim_find_objects,
    shim_find_objects_final, shim_encrypt_init, shim_encrypt, shim_encrypt_update, shim_encrypt_final, shim_decrypt_init,
    shim_decrypt, shim_decrypt_update, shim_decrypt_final, shim_digest_init, shim_digest, shim_digest_update, shim_digest_key,
    shim_digest_final, shim_sign_init, shim_sign, shim_sign_update, shim_sign_final, shim_sign_recover_init,
    shim_sign_recover, shim_verify_init, shim_verify, shim_verify_update, shim_verify_final, shim_verify_recover_init,
    shim_verify_recover, shim_digest_encrypt_update, shim_decrypt_digest_update, shim_sign_encrypt_update,
    shim_decrypt_verify_update, shim_generate_key, shim_generate_key_pair, shim_wrap_key, shim_unwrap_key, shim_derive_key,
    shim_seed_random, shim_generate_random, shim_get_function_status, shim_cancel_function, shim_wait_for_slot_event,
};

/* When the shim is unloaded, so is the module behind it. */
__attribute__((destructor)) static void unload(void) {
    if (module != NULL) {
        dlclose(module);
    }
}

ck_rv_t C_GetFunctionList(struct ck_function_list **list) {
    if (list == NULL) {
        return CKR_ARGUMENTS_BAD;
    }
    if (real == NULL) {
        const char *path = getenv("P11SHIM_MODULE");
        module = path == NULL ? NULL : dlopen(path, RTLD_NOW | RTLD_LOCAL);
        ck_rv_t (*get)(struct ck_function_list **) = module == NULL ? NULL : (ck_rv_t (*)(struct ck_function_list **))dlsym(module, "C_GetFunctionList");
        if (get == NULL || get(&real) != CKR_OK) {
            fprintf(stderr, "p11shim: P11SHIM_MODULE does not name a PKCS#11 module: %s\n", path == NULL ? "(not set)" : path);
            real = NULL;
            return CKR_GENERAL_ERROR;
        }
        /* The answer about a version comes from the module's own C_GetInfo; this is only the layout of the list. */
        struct text line = { .used = 0 };
        put(&line, "C_GetFunctionList");
        record(&line, CKR_OK);
    }
    *list = &shim;
    return CKR_OK;
}

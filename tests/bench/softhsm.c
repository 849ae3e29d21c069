/*
 * The floor of the token measurements: a program that calls a PKCS#11 module directly.
 *
 *   softhsm MODULE TOKEN OPERATION LABEL SECONDS       (the PIN is in the variable PIN)
 *
 * Finds the key with the given label on the token with the given label, and repeats one operation
 * with it in one thread and one session for as long as told: `ecdsa` signs 32 bytes, `hmac` makes
 * HMAC-SHA256 of 5 bytes, `aes-gcm` encrypts 1024 bytes. Prints the rate and the latencies' median
 * and 99th percentile in the form of the load generator.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <p11-kit/pkcs11.h>

static CK_FUNCTION_LIST_PTR f;

static void die(const char *what, unsigned long code) {
    fprintf(stderr, "softhsm: %s: 0x%lx\n", what, code);
    exit(1);
}

static void check(const char *what, CK_RV rv) {
    if (rv != CKR_OK) die(what, rv);
}

static void load(const char *path) {
    void *module = dlopen(path, RTLD_NOW);
    if (module == NULL) {
        fprintf(stderr, "softhsm: %s\n", dlerror());
        exit(1);
    }
    CK_C_GetFunctionList get = (CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList");
    if (get == NULL) die("C_GetFunctionList is missing", 0);
    check("C_GetFunctionList", get(&f));
    check("C_Initialize", f->C_Initialize(NULL));
}

/* The slot of the token with this label. */
static CK_SLOT_ID slot_of(const char *label) {
    CK_SLOT_ID slots[64];
    CK_ULONG count = sizeof slots / sizeof slots[0];
    check("C_GetSlotList", f->C_GetSlotList(CK_TRUE, slots, &count));
    char padded[sizeof(((CK_TOKEN_INFO *)0)->label)];
    memset(padded, ' ', sizeof padded);
    memcpy(padded, label, strlen(label) < sizeof padded ? strlen(label) : sizeof padded);
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        check("C_GetTokenInfo", f->C_GetTokenInfo(slots[i], &info));
        if (memcmp(info.label, padded, sizeof padded) == 0) return slots[i];
    }
    die("no token with that label", count);
    return 0;
}

static CK_OBJECT_HANDLE key_of(CK_SESSION_HANDLE session, CK_OBJECT_CLASS class, const char *label) {
    CK_ATTRIBUTE template[] = {
        {CKA_CLASS, &class, sizeof class},
        {CKA_LABEL, (void *)label, strlen(label)},
    };
    check("C_FindObjectsInit", f->C_FindObjectsInit(session, template, 2));
    CK_OBJECT_HANDLE key;
    CK_ULONG count = 0;
    check("C_FindObjects", f->C_FindObjects(session, &key, 1, &count));
    check("C_FindObjectsFinal", f->C_FindObjectsFinal(session));
    if (count == 0) die("no key with that label", class);
    return key;
}

static unsigned long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (unsigned long)time.tv_sec * 1000000000ul + (unsigned long)time.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    const char *pin = getenv("PIN");
    if (argc != 6 || pin == NULL) {
        fprintf(stderr, "usage: PIN=... softhsm MODULE TOKEN ecdsa|hmac|aes-gcm LABEL SECONDS\n");
        return 2;
    }
    load(argv[1]);
    CK_SESSION_HANDLE session;
    check("C_OpenSession",
          f->C_OpenSession(slot_of(argv[2]), CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session));
    check("C_Login", f->C_Login(session, CKU_USER, (unsigned char *)pin, strlen(pin)));

    unsigned char input[1024], output[2048], iv[12] = "123456789012";
    memset(input, 7, sizeof input);
    struct {
        CK_BYTE_PTR iv;
        CK_ULONG iv_length, iv_bits;
        CK_BYTE_PTR aad;
        CK_ULONG aad_length, tag_bits;
    } gcm = {iv, sizeof iv, 8 * sizeof iv, NULL, 0, 128};
    CK_MECHANISM mechanism = {0, NULL, 0};
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_ULONG input_length;
    int encrypts = 0;
    if (strcmp(argv[3], "ecdsa") == 0) {
        mechanism.mechanism = CKM_ECDSA;
        class = CKO_PRIVATE_KEY;
        input_length = 32;
    } else if (strcmp(argv[3], "hmac") == 0) {
        mechanism.mechanism = CKM_SHA256_HMAC;
        input_length = 5;
    } else if (strcmp(argv[3], "aes-gcm") == 0) {
        mechanism = (CK_MECHANISM){CKM_AES_GCM, &gcm, sizeof gcm};
        input_length = sizeof input;
        encrypts = 1;
    } else {
        die(argv[3], 0);
        return 2;
    }
    CK_OBJECT_HANDLE key = key_of(session, class, argv[4]);

    enum { MOST = 4000000 };
    unsigned *times = malloc(MOST * sizeof *times);
    if (times == NULL) die("malloc", 0);
    size_t count = 0;
    unsigned long start = now(), end = start + (unsigned long)(strtod(argv[5], NULL) * 1e9), last = start;
    while (last < end && count < MOST) {
        CK_ULONG length = sizeof output;
        if (encrypts) {
            check("C_EncryptInit", f->C_EncryptInit(session, &mechanism, key));
            check("C_Encrypt", f->C_Encrypt(session, input, input_length, output, &length));
        } else {
            check("C_SignInit", f->C_SignInit(session, &mechanism, key));
            check("C_Sign", f->C_Sign(session, input, input_length, output, &length));
        }
        unsigned long done = now();
        times[count++] = (unsigned)(done - last);
        last = done;
    }
    if (count == 0) die("no time to do anything", 0);
    double seconds = (double)(last - start) / 1e9;
    qsort(times, count, sizeof *times, ascending);
    printf("requests=%zu errors=0 seconds=%.6f rate=%.1f p50_us=%.1f p95_us=%.1f p99_us=%.1f max_us=%.1f\n", count,
           seconds, (double)count / seconds, times[count / 2] / 1e3, times[count * 95 / 100] / 1e3,
           times[count * 99 / 100] / 1e3, times[count - 1] / 1e3);
    f->C_Finalize(NULL);
    return 0;
}

/*
 * Checks allocspy.so on itself: run with it preloaded and ALLOCSPY_FILE set, the program makes
 * known numbers of allocations of each kind and compares the counts.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const volatile uint64_t *counts;
static int failures;

/* Keeps the compiler from removing allocations that nobody reads. */
static void *volatile sink;

static void check(const char *what, uint64_t all, uint64_t ours, uint64_t all_least, uint64_t all_most, uint64_t ours_exactly) {
    int ok = all >= all_least && all <= all_most && ours == ours_exactly;
    printf("%-46s all %llu, not OpenSSL's %llu: %s\n", what, (unsigned long long)all, (unsigned long long)ours, ok ? "ok" : "WRONG");
    failures += !ok;
}

#define MEASURE(what, all_least, all_most, ours_exactly, ...)                                   \
    do {                                                                                        \
        uint64_t all = counts[0], ours = counts[1];                                             \
        __VA_ARGS__;                                                                            \
        all = counts[0] - all;                                                                  \
        ours = counts[1] - ours;                                                                \
        check(what, all, ours, all_least, all_most, ours_exactly);                              \
    } while (0)

static void every_function(void) {
    void *memory = NULL;
    sink = malloc(1);
    free(sink);
    sink = calloc(2, 3);
    sink = realloc(sink, 4000);
    sink = reallocarray(sink, 3, 4000);
    free(sink);
    sink = aligned_alloc(64, 128);
    free(sink);
    sink = memalign(64, 128);
    free(sink);
    if (posix_memalign(&memory, 64, 128) != 0 || (uintptr_t)memory % 64 != 0) failures++;
    free(memory);
}

static void digests(int times) {
    unsigned char out[EVP_MAX_MD_SIZE];
    unsigned int length;
    for (int i = 0; i < times; i++) {
        if (EVP_Digest("hello", 5, out, &length, EVP_sha256(), NULL) != 1) failures++;
    }
}

int main(void) {
    const char *path = getenv("ALLOCSPY_FILE");
    int fd = path == NULL ? -1 : open(path, O_RDONLY);
    if (fd < 0) {
        fprintf(stderr, "allocspy-check: run with allocspy.so preloaded and ALLOCSPY_FILE set\n");
        return 2;
    }
    counts = mmap(NULL, 3 * sizeof(uint64_t), PROT_READ, MAP_SHARED, fd, 0);
    if (counts == MAP_FAILED) return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    digests(1); /* whatever libcrypto sets up once */

    MEASURE("nothing", 0, 0, 0, (void)0);
    MEASURE("seven calls, one of each function", 7, 7, 7, every_function());
    MEASURE("the C library on our behalf (strdup)", 1, 1, 1, sink = strdup("text"); free(sink));
    MEASURE("a hundred digests in libcrypto", 100, 10000, 0, digests(100));
    MEASURE("a digest between two of ours", 3, 200, 2, sink = malloc(1); free(sink); digests(1); sink = malloc(1); free(sink));
    return failures == 0 ? 0 : 1;
}

/*
 * Counts heap allocations of a running program from outside, and tells those made by libcrypto
 * and libssl from all others.
 *
 *   ALLOCSPY_FILE=counts LD_PRELOAD=.../allocspy.so program
 *
 * The file holds three unsigned 64-bit numbers in the machine's byte order, updated while the
 * program runs: all allocations, those that are not OpenSSL's, and a switch: when a reader makes
 * it non-zero, every further allocation of the second kind is reported on standard error with its
 * call stack. malloc, calloc, realloc, reallocarray, posix_memalign, aligned_alloc, memalign and
 * valloc each count as one allocation; a realloc counts whether it moves or not.
 *
 * An allocation belongs to the shared object that called the allocator, or, when that is the C
 * library itself (fopen, strdup, getaddrinfo), to the first caller outside of it. Processes that
 * inherit the environment count into the same file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The allocator underneath, by the names that glibc exports beside the public ones. */
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void *__libc_valloc(size_t);

enum { MAX_FRAMES = 24 };

struct counts {
    uint64_t all;
    uint64_t not_openssl;
    uint64_t trace;
};

static struct counts *counts;

/* Set while this library itself runs, so that its own allocations are not counted. */
static __thread int inside __attribute__((tls_model("initial-exec")));

enum owner { OWNER_OTHER, OWNER_LIBC, OWNER_OPENSSL };

struct lookup {
    uintptr_t address;
    uintptr_t base;
    const char *name; /* NULL: in no loaded object */
};

static int match(struct dl_phdr_info *info, size_t size, void *data) {
    (void)size;
    struct lookup *lookup = data;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + segment->p_vaddr;
        if (segment->p_type == PT_LOAD && lookup->address - start < segment->p_memsz) {
            lookup->base = info->dlpi_addr;
            lookup->name = info->dlpi_name;
            return 1;
        }
    }
    return 0;
}

static struct lookup object_of(const void *address) {
    struct lookup lookup = {.address = (uintptr_t)address};
    dl_iterate_phdr(match, &lookup);
    return lookup;
}

static enum owner owner_of(const void *address) {
    const char *name = object_of(address).name;
    if (name == NULL) return OWNER_OTHER;
    const char *file = strrchr(name, '/');
    file = file == NULL ? name : file + 1;
    if (strncmp(file, "libcrypto.", 10) == 0 || strncmp(file, "libssl.", 7) == 0) return OWNER_OPENSSL;
    if (strncmp(file, "libc.so", 7) == 0 || strncmp(file, "libc-", 5) == 0) return OWNER_LIBC;
    return OWNER_OTHER;
}

/* The owner of the first frame that is neither this library nor the C library. */
static enum owner owner_above_libc(void) {
    void *frames[MAX_FRAMES];
    int depth = backtrace(frames, MAX_FRAMES);
    int below_libc = 1;
    for (int i = 0; i < depth; i++) {
        enum owner owner = owner_of(frames[i]);
        if (owner == OWNER_LIBC) {
            below_libc = 0;
        } else if (!below_libc) {
            return owner;
        }
    }
    return OWNER_OTHER;
}

static void report(const char *function, size_t size) {
    char line[512];
    int length = snprintf(line, sizeof line, "allocspy: %s of %zu bytes in process %d from\n", function, size, getpid());
    if (length > 0 && write(STDERR_FILENO, line, (size_t)length) < 0) return;
    void *frames[MAX_FRAMES];
    int depth = backtrace(frames, MAX_FRAMES);
    for (int i = 0; i < depth; i++) {
        struct lookup object = object_of(frames[i]);
        const char *name = object.name == NULL ? "?" : object.name[0] == '\0' ? "program" : object.name;
        length = snprintf(line, sizeof line, "allocspy:   %s+0x%lx\n", name,
                          (unsigned long)((uintptr_t)frames[i] - object.base));
        if (length > 0 && write(STDERR_FILENO, line, (size_t)length) < 0) return;
    }
}

static void count(const char *function, size_t size, const void *caller) {
    if (counts == NULL || inside) return;
    inside = 1;
    int saved = errno;
    enum owner owner = owner_of(caller);
    if (owner == OWNER_LIBC) owner = owner_above_libc();
    __atomic_fetch_add(&counts->all, 1, __ATOMIC_RELAXED);
    if (owner != OWNER_OPENSSL) {
        __atomic_fetch_add(&counts->not_openssl, 1, __ATOMIC_RELAXED);
        if (__atomic_load_n(&counts->trace, __ATOMIC_RELAXED) != 0) report(function, size);
    }
    errno = saved;
    inside = 0;
}

#define COUNT(function, size) count(function, size, __builtin_return_address(0))

void *malloc(size_t size) {
    COUNT("malloc", size);
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
    COUNT("calloc", number * size);
    return __libc_calloc(number, size);
}

void *realloc(void *old, size_t size) {
    COUNT("realloc", size);
    return __libc_realloc(old, size);
}

void *reallocarray(void *old, size_t number, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(number, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    COUNT("reallocarray", bytes);
    return __libc_realloc(old, bytes);
}

void *memalign(size_t alignment, size_t size) {
    COUNT("memalign", size);
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    COUNT("aligned_alloc", size);
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    if (alignment % sizeof(void *) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0) return EINVAL;
    COUNT("posix_memalign", size);
    int saved = errno;
    void *memory = __libc_memalign(alignment, size);
    errno = saved;
    if (memory == NULL) return ENOMEM;
    *out = memory;
    return 0;
}

void *valloc(size_t size) {
    COUNT("valloc", size);
    return __libc_valloc(size);
}

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("ALLOCSPY_FILE");
    if (path == NULL || path[0] == '\0') return;
    inside = 1;
    /* The first call loads the unwinder, which allocates. */
    void *frame;
    backtrace(&frame, 1);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(struct counts)) < 0) {
        dprintf(STDERR_FILENO, "allocspy: %s: %s\n", path, strerror(errno));
        _exit(1);
    }
    void *mapped = mmap(NULL, sizeof(struct counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED) {
        dprintf(STDERR_FILENO, "allocspy: cannot map %s: %s\n", path, strerror(errno));
        _exit(1);
    }
    counts = mapped;
    inside = 0;
}

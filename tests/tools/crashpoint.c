/*
 * Stops a process, or makes a call fail, at a chosen point of its work on files. For LD_PRELOAD.
 *
 * Counts the calls below that concern paths under a directory, by name or by descriptor:
 *
 *     open, openat, creat, write, pwrite, fsync, fdatasync, ftruncate, truncate, chmod, fchmod, chown, fchown, rename,
 *     renameat, renameat2, link, unlink, unlinkat, mkdir, and their 64-bit names
 *
 * CRASHPOINT_DIR    the directory, an absolute path without symbolic links; unset: nothing is counted
 * CRASHPOINT_AT     number of the call (from 1) at which something happens; unset or 0: never
 * CRASHPOINT_MODE   kill (default): SIGKILL before the call is made
 *                   torn: as kill, but a write first writes half of its bytes
 *                   errno:N: the call is not made and fails with error number N
 * CRASHPOINT_TRACE  a file to which a line is appended for every counted call: its number, its name, its path
 *
 * Build: cc -shared -fPIC -O1 -o crashpoint.so crashpoint.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static unsigned long count;

/* The path that a name or a descriptor stands for, as far as it can be told without opening anything. */
static void full_path(char *out, size_t size, int dir, const char *path) {
    out[0] = 0;
    if (path && path[0] == '/') {
        snprintf(out, size, "%s", path);
        return;
    }
    char link[64];
    if (dir == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t n = readlink(link, out, size - 1);
    if (n < 0)
        n = 0;
    out[n] = 0;
    if (path && path[0])
        snprintf(out + n, size - (size_t)n, "/%s", path);
}

static int concerns(const char *path) {
    const char *dir = getenv("CRASHPOINT_DIR");
    size_t n = dir ? strlen(dir) : 0;
    return n && strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == 0);
}

static void trace(unsigned long number, const char *call, const char *path) {
    const char *file = getenv("CRASHPOINT_TRACE");
    if (!file)
        return;
    char line[2 * PATH_MAX];
    int n = snprintf(line, sizeof line, "%lu %s %s\n", number, call, path);
    /* Straight to the kernel: these calls are not to be counted. */
    long fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0) {
        if (n > 0)
            syscall(SYS_write, (int)fd, line, (size_t)n);
        syscall(SYS_close, (int)fd);
    }
}

/* Counts a call. Returns 0 to go on, or the error number to fail with; does not return if the process is to die here.
 * For a write, torn_fd and the data say what to write half of first. */
static int reached(const char *call, int dir, const char *path, int torn_fd, const void *data, size_t len) {
    int saved = errno;
    char full[PATH_MAX];
    full_path(full, sizeof full, dir, path);
    if (!concerns(full)) {
        errno = saved;
        return 0;
    }
    unsigned long number = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    trace(number, call, full);
    const char *at = getenv("CRASHPOINT_AT");
    errno = saved;
    if (!at || strtoul(at, NULL, 10) != number)
        return 0;
    const char *mode = getenv("CRASHPOINT_MODE");
    if (mode && strncmp(mode, "errno:", 6) == 0)
        return atoi(mode + 6);
    if (mode && strcmp(mode, "torn") == 0 && data)
        syscall(SYS_write, torn_fd, data, len / 2);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

#define NEXT(name) \
    static __typeof__(name) *next; \
    if (!next) \
        next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define STOP_AT(dir, path) \
    do { \
        int error_ = reached(__func__, dir, path, -1, NULL, 0); \
        if (error_) { \
            errno = error_; \
            return -1; \
        } \
    } while (0)

#define MODE_ARGUMENT(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list list; \
        va_start(list, flags); \
        mode = va_arg(list, mode_t); \
        va_end(list); \
    }

int open(const char *path, int flags, ...) {
    MODE_ARGUMENT(flags)
    NEXT(open);
    STOP_AT(AT_FDCWD, path);
    return next(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE_ARGUMENT(flags)
    NEXT(open64);
    STOP_AT(AT_FDCWD, path);
    return next(path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...) {
    MODE_ARGUMENT(flags)
    NEXT(openat);
    STOP_AT(dir, path);
    return next(dir, path, flags, mode);
}

int openat64(int dir, const char *path, int flags, ...) {
    MODE_ARGUMENT(flags)
    NEXT(openat64);
    STOP_AT(dir, path);
    return next(dir, path, flags, mode);
}

int creat(const char *path, mode_t mode) {
    NEXT(creat);
    STOP_AT(AT_FDCWD, path);
    return next(path, mode);
}

int creat64(const char *path, mode_t mode) {
    NEXT(creat64);
    STOP_AT(AT_FDCWD, path);
    return next(path, mode);
}

ssize_t write(int fd, const void *data, size_t len) {
    NEXT(write);
    int error = reached(__func__, fd, NULL, fd, data, len);
    if (error) {
        errno = error;
        return -1;
    }
    return next(fd, data, len);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at) {
    NEXT(pwrite);
    STOP_AT(fd, NULL);
    return next(fd, data, len, at);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at) {
    NEXT(pwrite64);
    STOP_AT(fd, NULL);
    return next(fd, data, len, at);
}

int fsync(int fd) {
    NEXT(fsync);
    STOP_AT(fd, NULL);
    return next(fd);
}

int fdatasync(int fd) {
    NEXT(fdatasync);
    STOP_AT(fd, NULL);
    return next(fd);
}

int ftruncate(int fd, off_t len) {
    NEXT(ftruncate);
    STOP_AT(fd, NULL);
    return next(fd, len);
}

int ftruncate64(int fd, off64_t len) {
    NEXT(ftruncate64);
    STOP_AT(fd, NULL);
    return next(fd, len);
}

int truncate(const char *path, off_t len) {
    NEXT(truncate);
    STOP_AT(AT_FDCWD, path);
    return next(path, len);
}

int truncate64(const char *path, off64_t len) {
    NEXT(truncate64);
    STOP_AT(AT_FDCWD, path);
    return next(path, len);
}

int chmod(const char *path, mode_t mode) {
    NEXT(chmod);
    STOP_AT(AT_FDCWD, path);
    return next(path, mode);
}

int fchmod(int fd, mode_t mode) {
    NEXT(fchmod);
    STOP_AT(fd, NULL);
    return next(fd, mode);
}

int chown(const char *path, uid_t uid, gid_t gid) {
    NEXT(chown);
    STOP_AT(AT_FDCWD, path);
    return next(path, uid, gid);
}

int fchown(int fd, uid_t uid, gid_t gid) {
    NEXT(fchown);
    STOP_AT(fd, NULL);
    return next(fd, uid, gid);
}

int rename(const char *from, const char *to) {
    NEXT(rename);
    STOP_AT(AT_FDCWD, to);
    return next(from, to);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    NEXT(renameat);
    STOP_AT(to_dir, to);
    return next(from_dir, from, to_dir, to);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned int flags) {
    NEXT(renameat2);
    STOP_AT(to_dir, to);
    return next(from_dir, from, to_dir, to, flags);
}

int link(const char *from, const char *to) {
    NEXT(link);
    STOP_AT(AT_FDCWD, to);
    return next(from, to);
}

int unlink(const char *path) {
    NEXT(unlink);
    STOP_AT(AT_FDCWD, path);
    return next(path);
}

int unlinkat(int dir, const char *path, int flags) {
    NEXT(unlinkat);
    STOP_AT(dir, path);
    return next(dir, path, flags);
}

int mkdir(const char *path, mode_t mode) {
    NEXT(mkdir);
    STOP_AT(AT_FDCWD, path);
    return next(path, mode);
}

/*
 * Records what a program writes to sockets, one line a system call, so that tests see what leaves together.
 *
 *   WRITESPY_FILE=record LD_PRELOAD=.../writespy.so program
 *
 * A line is the number of bytes, a space, and the first 600 of them in hexadecimal.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

enum { SHOWN = 600 };

static int record = -1;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("WRITESPY_FILE");
    if (path != NULL) {
        record = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    }
}

static void note(int fd, const struct iovec *parts, size_t count, ssize_t written) {
    int type;
    socklen_t length = sizeof type;
    if (record < 0 || written <= 0 || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_STREAM) {
        return;
    }
    char line[2 * SHOWN + 32];
    int used = snprintf(line, sizeof line, "%zd ", written);
    size_t left = (size_t)written < SHOWN ? (size_t)written : SHOWN;
    for (size_t i = 0; i < count && left > 0; i++) {
        const unsigned char *bytes = parts[i].iov_base;
        for (size_t j = 0; j < parts[i].iov_len && left > 0; j++, left--) {
            used += snprintf(line + used, sizeof line - (size_t)used, "%02x", bytes[j]);
        }
    }
    line[used++] = '\n';
    syscall(SYS_write, record, line, (size_t)used);
}

API ssize_t write(int fd, const void *bytes, size_t size) {
    ssize_t written = syscall(SYS_write, fd, bytes, size);
    struct iovec part = { (void *)bytes, size };
    note(fd, &part, 1, written);
    return written;
}

API ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t written = syscall(SYS_writev, fd, parts, count);
    note(fd, parts, count < 0 ? 0 : (size_t)count, written);
    return written;
}

API ssize_t sendto(int fd, const void *bytes, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
    ssize_t written = syscall(SYS_sendto, fd, bytes, size, flags, to, length);
    struct iovec part = { (void *)bytes, size };
    note(fd, &part, 1, written);
    return written;
}

API ssize_t send(int fd, const void *bytes, size_t size, int flags) {
    return sendto(fd, bytes, size, flags, NULL, 0);
}

API ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    ssize_t written = syscall(SYS_sendmsg, fd, message, flags);
    note(fd, message->msg_iov, message->msg_iovlen, written);
    return written;
}

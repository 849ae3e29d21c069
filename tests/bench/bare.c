/*
 * The floor of the benchmarks: a single-threaded epoll responder on a Unix socket.
 *
 *   bare SOCKET
 *
 * It does what no server on this socket can leave out (wait, read, find the end of the request,
 * write) and nothing else: every request gets the same answer, of the size of a `POST /sign`
 * answer. Requests end at an empty line plus `content-length` bytes; connections are kept alive
 * until the client closes them or asks for it, and requests may be pipelined.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 1024, BUFFER_SIZE = 8192, MAX_EVENTS = 64 };

struct connection {
    int fd;
    size_t length;
    char buffer[BUFFER_SIZE];
};

static const char ANSWER[] =
    "HTTP/1.1 200 OK\r\n"
    "content-type: application/json\r\n"
    "content-length: 60\r\n"
    "date: Sat, 21 Nov 2026 19:40:00 GMT\r\n"
    "\r\n"
    "{\"signature\":\"IxvEhMU2UUQJfw9HJMGHaERWDj339gW7XXxoJcyTLis=\"}";

static void die(const char *what) {
    fprintf(stderr, "bare: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* The value of a header within [head, end), or NULL. */
static const char *header(const char *head, const char *end, const char *name) {
    size_t length = strlen(name);
    const char *line = head;
    while ((line = memchr(line, '\n', (size_t)(end - line))) != NULL) {
        line++;
        if ((size_t)(end - line) > length && strncasecmp(line, name, length) == 0 && line[length] == ':') {
            line += length + 1;
            while (line < end && *line == ' ') line++;
            return line;
        }
    }
    return NULL;
}

/* The length of the first request in the buffer; 0 if it is incomplete. `*last` is set when the
 * client wants the connection closed after it. */
static size_t request_length(const char *buffer, size_t length, int *last) {
    const char *end = memmem(buffer, length, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    end += 4;
    size_t body = 0;
    const char *value = header(buffer, end, "content-length");
    if (value != NULL) body = strtoul(value, NULL, 10);
    value = header(buffer, end, "connection");
    *last = value != NULL && strncasecmp(value, "close", 5) == 0;
    size_t whole = (size_t)(end - buffer) + body;
    return whole <= length ? whole : 0;
}

/* Reads once and answers what is complete. Returns 0 when the connection is to be closed. */
static int serve(struct connection *c) {
    ssize_t got = read(c->fd, c->buffer + c->length, BUFFER_SIZE - c->length);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return 0;
    c->length += (size_t)got;
    for (;;) {
        int last = 0;
        size_t used = request_length(c->buffer, c->length, &last);
        if (used == 0) return c->length < BUFFER_SIZE;
        if (write(c->fd, ANSWER, sizeof ANSWER - 1) != (ssize_t)(sizeof ANSWER - 1)) return 0;
        if (last) return 0;
        c->length -= used;
        if (c->length == 0) return 1;
        memmove(c->buffer, c->buffer + used, c->length);
    }
}

static int listen_on(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        fprintf(stderr, "bare: socket path too long: %s\n", path);
        exit(1);
    }
    strcpy(address.sun_path, path);
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die(path);
    if (listen(fd, 1024) < 0) die("listen");
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: bare SOCKET\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_on(argv[1]);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) die("epoll_create1");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0) die("epoll_ctl");

    static struct connection pool[MAX_CONNECTIONS];
    static struct connection *idle[MAX_CONNECTIONS];
    size_t idle_count = MAX_CONNECTIONS;
    for (size_t i = 0; i < MAX_CONNECTIONS; i++) idle[i] = &pool[i];

    struct epoll_event events[MAX_EVENTS];
    for (;;) {
        int count = epoll_wait(epoll, events, MAX_EVENTS, -1);
        if (count < 0) {
            if (errno == EINTR) continue;
            die("epoll_wait");
        }
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == NULL) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (fd < 0) continue;
                if (idle_count == 0) {
                    close(fd);
                    continue;
                }
                c = idle[--idle_count];
                c->fd = fd;
                c->length = 0;
                event.data.ptr = c;
                if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
            } else if (!serve(c)) {
                close(c->fd);
                idle[idle_count++] = c;
            }
        }
    }
}

/*
 * The floor for start-up: the least that a socket-activated program needs to answer one request
 * with libcrypto.
 *
 *   LISTEN_PID=<own pid> LISTEN_FDS=1 minimal      (listening Unix socket on descriptor 3)
 *
 * It draws one random number, makes one HMAC-SHA256, answers the first request of every
 * connection with it, and stays, so that its memory can be looked at.
 */
#define _GNU_SOURCE
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LISTEN_FD = 3 };

static int activated(void) {
    const char *pid = getenv("LISTEN_PID");
    const char *fds = getenv("LISTEN_FDS");
    return pid != NULL && fds != NULL && strtol(pid, NULL, 10) == getpid() && strcmp(fds, "1") == 0;
}

/* Reads until the empty line; the benchmark's requests arrive in one piece, body included. */
static int read_request(int fd) {
    char buffer[8192];
    size_t length = 0;
    while (length < sizeof buffer) {
        ssize_t got = read(fd, buffer + length, sizeof buffer - length);
        if (got <= 0) return 0;
        length += (size_t)got;
        if (memmem(buffer, length, "\r\n\r\n", 4) != NULL) return 1;
    }
    return 0;
}

static int answer(int fd) {
    unsigned char key[32], mac[EVP_MAX_MD_SIZE], text[4 * ((EVP_MAX_MD_SIZE + 2) / 3) + 1];
    unsigned int mac_length = 0;
    if (RAND_bytes(key, sizeof key) != 1) return 0;
    if (HMAC(EVP_sha256(), key, sizeof key, (const unsigned char *)"hello", 5, mac, &mac_length) == NULL) return 0;
    EVP_EncodeBlock(text, mac, (int)mac_length);
    char response[512];
    int length = snprintf(response, sizeof response,
                          "HTTP/1.1 200 OK\r\n"
                          "content-type: application/json\r\n"
                          "content-length: %zu\r\n"
                          "\r\n"
                          "{\"signature\":\"%s\"}",
                          strlen((char *)text) + strlen("{\"signature\":\"\"}"), text);
    return length > 0 && write(fd, response, (size_t)length) == length;
}

int main(void) {
    if (!activated()) {
        fprintf(stderr, "minimal: needs a listening socket on descriptor 3 (LISTEN_PID, LISTEN_FDS=1)\n");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        int fd = accept4(LISTEN_FD, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            perror("minimal: accept4");
            return 1;
        }
        if (read_request(fd) && !answer(fd)) {
            fprintf(stderr, "minimal: libcrypto or write failed\n");
            return 1;
        }
        close(fd);
    }
}

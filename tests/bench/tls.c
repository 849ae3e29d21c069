/*
 * A TLS server whose private key is in a file or in the Keys Service, and the load for it.
 *
 *     tls serve SOCKET CERTIFICATE KEY [PROCESSES [THREADS]]
 *     tls load SOCKET CERTIFICATE SECONDS CONNECTIONS [HANDSHAKES [VERSION [resume]]]
 *
 * The server loads its key once, in the first process, and has PROCESSES processes (0: only the first) of THREADS threads
 * each, which accept connections on a Unix socket, shake hands, send one byte and hang up. KEY is the name of a PEM file, a URI
 * of the provider `aziot_keys`, or the name of an engine and a key id: `engine:aziot_keys:ID`. Whatever its kind, what follows
 * is the same. A handshake that fails is told on standard error; the server goes on.
 *
 * The load has CONNECTIONS threads that shake hands one after the other, for SECONDS or until there were HANDSHAKES (0: no
 * limit), with TLS VERSION (1.2 or 1.3) only. Each handshake is one in full with a certificate that has to be CERTIFICATE,
 * unless `resume` is given: then all but the first of a thread resume the session of the one before, and one that does not is
 * an error. A thread ends with its first failure. It prints one line of pairs and exits with 0 if no handshake failed.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <errno.h>
#include <fcntl.h>
#include <openssl/engine.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
#include <openssl/provider.h>
#include <openssl/store.h>
#endif
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 64, BACKLOG = 512 };

/* The first one is what is agreed on. TLS 1.2 asks that the curve of a certificate be named too. */
#define GROUPS "X25519:P-256:P-384"

static void fail(const char *what)
{
	fprintf(stderr, "tls: %s: %s\n", what, errno ? strerror(errno) : "OpenSSL says");
	ERR_print_errors_fp(stderr);
	exit(1);
}

static long number(const char *text, long min, long max)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (*text == '\0' || *end != '\0' || value < min || value > max) {
		fprintf(stderr, "tls: \"%s\" is not a number from %ld to %ld\n", text, min, max);
		exit(2);
	}
	return value;
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof address.sun_path) {
		fprintf(stderr, "tls: the socket's path is too long: %s\n", path);
		exit(2);
	}
	strcpy(address.sun_path, path);
	return address;
}

/* ---- keys ---- */

static EVP_PKEY *key_in_file(const char *path)
{
	EVP_PKEY *key = NULL;
	FILE *file = fopen(path, "re");

	if (file != NULL) {
		key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
		fclose(file);
	}
	return key;
}

#if OPENSSL_VERSION_NUMBER >= 0x30000000L
static EVP_PKEY *key_of_provider(const char *uri)
{
	EVP_PKEY *key = NULL;
	OSSL_STORE_CTX *store;

	if (OSSL_PROVIDER_load(NULL, "aziot_keys") == NULL || OSSL_PROVIDER_load(NULL, "default") == NULL)
		return NULL;
	store = OSSL_STORE_open(uri, NULL, NULL, NULL, NULL);
	if (store == NULL)
		return NULL;
	while (key == NULL && !OSSL_STORE_eof(store)) {
		OSSL_STORE_INFO *info = OSSL_STORE_load(store);
		if (info == NULL)
			break;
		key = OSSL_STORE_INFO_get1_PKEY(info);
		OSSL_STORE_INFO_free(info);
	}
	OSSL_STORE_close(store);
	return key;
}
#else
static EVP_PKEY *key_of_provider(const char *uri)
{
	fprintf(stderr, "tls: %s: this OpenSSL has no providers\n", uri);
	exit(2);
}
#endif

/* The text behind the first colon is the id of the engine up to the next one, and then that of the key. */
static EVP_PKEY *key_of_engine(const char *text)
{
	const char *id = strchr(text, ':');
	char name[64];
	ENGINE *engine;

	if (id == NULL || (size_t)(id - text) >= sizeof name)
		return NULL;
	memcpy(name, text, (size_t)(id - text));
	name[id - text] = '\0';
	ENGINE_load_builtin_engines();
	engine = ENGINE_by_id(name);
	if (engine == NULL || ENGINE_init(engine) != 1)
		return NULL;
	return ENGINE_load_private_key(engine, id + 1, NULL, NULL);
}

static EVP_PKEY *load_key(const char *name)
{
	if (strncmp(name, "engine:", 7) == 0)
		return key_of_engine(name + 7);
	if (strncmp(name, "aziot-keys:", 11) == 0)
		return key_of_provider(name);
	return key_in_file(name);
}

/* ---- the server ---- */

static SSL_CTX *server;
static int listener;

static void *serve(void *unused)
{
	(void)unused;
	for (;;) {
		SSL *ssl;
		int fd = accept(listener, NULL, NULL);

		if (fd < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			fail("accept");
		}
		ssl = SSL_new(server);
		if (ssl == NULL || SSL_set_fd(ssl, fd) != 1)
			fail("SSL_new");
		ERR_clear_error();
		/* One who connects and says nothing only wants to know whether somebody listens. */
		if (SSL_accept(ssl) == 1 && SSL_write(ssl, "!", 1) == 1)
			SSL_shutdown(ssl);
		else
			ERR_print_errors_fp(stderr);
		SSL_free(ssl);
		close(fd);
	}
	return NULL;
}

static void serve_with_threads(long threads)
{
	pthread_t ignored;

	for (long i = 1; i < threads; i++)
		if (pthread_create(&ignored, NULL, serve, NULL) != 0)
			fail("pthread_create");
	serve(NULL);
}

static int serve_all(const char *path, const char *certificate, const char *key_name, long processes, long threads)
{
	struct sockaddr_un where = address(path);
	EVP_PKEY *key;

	signal(SIGPIPE, SIG_IGN);
	server = SSL_CTX_new(TLS_server_method());
	if (server == NULL || SSL_CTX_use_certificate_file(server, certificate, SSL_FILETYPE_PEM) != 1)
		fail(certificate);
	errno = 0;
	key = load_key(key_name);
	if (key == NULL)
		fail("the key");
	if (SSL_CTX_use_PrivateKey(server, key) != 1 || SSL_CTX_check_private_key(server) != 1)
		fail("the key does not fit");
	/* A ticket for whoever wants to resume. */
	if (SSL_CTX_set1_groups_list(server, GROUPS) != 1 || SSL_CTX_set_num_tickets(server, 1) != 1)
		fail("the settings");
	SSL_CTX_set_session_id_context(server, (const unsigned char *)"tls", 3);
	EVP_PKEY_free(key);

	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&where, sizeof where) != 0 || listen(listener, BACKLOG) != 0)
		fail(path);
	if (processes == 0)
		serve_with_threads(threads);
	for (long i = 0; i < processes; i++) {
		pid_t parent = getpid(), child = fork();
		if (child < 0)
			fail("fork");
		if (child == 0) {
			/* None is left behind when the first process is ended. */
			if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
				_exit(1);
			serve_with_threads(threads);
		}
	}
	while (wait(NULL) >= 0 || errno == EINTR) {
	}
	return 1;
}

/* ---- the load ---- */

static SSL_CTX *client;
static struct sockaddr_un target;
static double deadline;
static long limit;
static int resuming;
static atomic_long begun, failed;

struct times {
	double *seconds;
	size_t count, room;
};

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* One handshake, and the byte that shows that the server is content too. */
static int shake_hands(SSL_SESSION **session)
{
	SSL *ssl = SSL_new(client);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), done = 0;
	char byte;

	if (ssl == NULL || fd < 0)
		fail("a connection");
	if (connect(fd, (struct sockaddr *)&target, sizeof target) == 0 && SSL_set_fd(ssl, fd) == 1
	    && (*session == NULL || SSL_set_session(ssl, *session) == 1)
	    && SSL_connect(ssl) == 1 && SSL_read(ssl, &byte, 1) == 1) {
		done = SSL_session_reused(ssl) == (*session != NULL);
		if (resuming) {
			SSL_SESSION_free(*session);
			*session = SSL_get1_session(ssl);
		}
		/* A connection that ends in order leaves its session good. */
		SSL_shutdown(ssl);
	}
	SSL_free(ssl);
	close(fd);
	return done;
}

static void *load(void *arg)
{
	struct times *times = arg;
	SSL_SESSION *session = NULL;
	double start, end = now();

	while (end < deadline && (limit == 0 || atomic_fetch_add(&begun, 1) < limit)) {
		start = end;
		if (!shake_hands(&session)) {
			ERR_print_errors_fp(stderr);
			atomic_fetch_add(&failed, 1);
			break;
		}
		end = now();
		if (times->count == times->room) {
			times->room = times->room ? 2 * times->room : 1024;
			times->seconds = realloc(times->seconds, times->room * sizeof *times->seconds);
			if (times->seconds == NULL)
				fail("memory");
		}
		times->seconds[times->count++] = end - start;
	}
	SSL_SESSION_free(session);
	return NULL;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double quantile(const struct times *times, double share)
{
	return times->count == 0 ? 0 : times->seconds[(size_t)((double)(times->count - 1) * share)] * 1e6;
}

static int load_all(const char *certificate, double seconds, long connections, int version)
{
	pthread_t threads[MAX_THREADS];
	struct times each[MAX_THREADS] = { 0 }, all = { 0 };
	double start, spent;

	signal(SIGPIPE, SIG_IGN);
	client = SSL_CTX_new(TLS_client_method());
	if (client == NULL || SSL_CTX_load_verify_locations(client, certificate, NULL) != 1)
		fail(certificate);
	if (SSL_CTX_set_min_proto_version(client, version) != 1 || SSL_CTX_set_max_proto_version(client, version) != 1
	    || SSL_CTX_set1_groups_list(client, GROUPS) != 1)
		fail("the settings");
	SSL_CTX_set_verify(client, SSL_VERIFY_PEER, NULL);
	start = now();
	deadline = start + seconds;
	for (long i = 0; i < connections; i++)
		if (pthread_create(&threads[i], NULL, load, &each[i]) != 0)
			fail("pthread_create");
	for (long i = 0; i < connections; i++) {
		pthread_join(threads[i], NULL);
		all.room += each[i].count;
	}
	spent = now() - start;
	all.seconds = malloc(all.room * sizeof *all.seconds + 1);
	if (all.seconds == NULL)
		fail("memory");
	for (long i = 0; i < connections; i++) {
		if (each[i].count > 0)
			memcpy(all.seconds + all.count, each[i].seconds, each[i].count * sizeof *all.seconds);
		all.count += each[i].count;
		free(each[i].seconds);
	}
	qsort(all.seconds, all.count, sizeof *all.seconds, ascending);
	printf("requests=%zu errors=%ld seconds=%.3f rate=%.1f p50_us=%.1f p95_us=%.1f p99_us=%.1f max_us=%.1f\n", all.count,
	       atomic_load(&failed), spent, (double)all.count / spent, quantile(&all, 0.5), quantile(&all, 0.95),
	       quantile(&all, 0.99), quantile(&all, 1));
	free(all.seconds);
	SSL_CTX_free(client);
	return atomic_load(&failed) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	if (argc >= 5 && argc <= 7 && strcmp(argv[1], "serve") == 0)
		return serve_all(argv[2], argv[3], argv[4], argc > 5 ? number(argv[5], 0, MAX_THREADS) : 0,
				 argc > 6 ? number(argv[6], 1, MAX_THREADS) : 1);
	if (argc >= 6 && argc <= 9 && strcmp(argv[1], "load") == 0) {
		double seconds = strtod(argv[4], NULL);
		long connections = number(argv[5], 1, MAX_THREADS);
		int version = argc > 7 && strcmp(argv[7], "1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;

		limit = argc > 6 ? number(argv[6], 0, 1000000000) : 0;
		resuming = argc > 8 && strcmp(argv[8], "resume") == 0;
		target = address(argv[2]);
		return load_all(argv[3], seconds, connections, version);
	}
	fprintf(stderr, "usage: %s serve SOCKET CERTIFICATE KEY [PROCESSES [THREADS]]\n"
		"       %s load SOCKET CERTIFICATE SECONDS CONNECTIONS [HANDSHAKES [VERSION [resume]]]\n", argv[0], argv[0]);
	return 2;
}

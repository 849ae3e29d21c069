/*
 * Keys of the provider in every order that a program can copy, use and free them in; to be run under a memory checker.
 *
 *     provider-keys EC-URI RSA-URI
 *
 * The provider is looked for where OPENSSL_MODULES says. Exits with 0 if everything was as it should be. Otherwise it says what
 * was not, and what OpenSSL has to say about it.
 */
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <openssl/store.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                        \
	do {                                                                    \
		if (!(condition)) {                                             \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			ERR_print_errors_fp(stderr);                            \
			exit(1);                                                \
		}                                                               \
	} while (0)

enum { COPIES = 4, THREADS = 8 };

static const unsigned char message[] = "message";

/* A library context with both providers. */
struct home {
	OSSL_LIB_CTX *ctx;
	OSSL_PROVIDER *keys, *others;
};

static struct home arrive(OSSL_LIB_CTX *ctx)
{
	struct home home = { ctx, OSSL_PROVIDER_load(ctx, "aziot_keys"), OSSL_PROVIDER_load(ctx, "default") };

	CHECK(home.keys && home.others);
	return home;
}

/* What the URI stands for, if it is there. */
static EVP_PKEY *load(OSSL_LIB_CTX *ctx, const char *uri)
{
	EVP_PKEY *key = NULL;
	OSSL_STORE_CTX *store = OSSL_STORE_open_ex(uri, ctx, NULL, NULL, NULL, NULL, NULL, NULL);

	if (store == NULL)
		return NULL;
	while (key == NULL && !OSSL_STORE_eof(store)) {
		OSSL_STORE_INFO *info = OSSL_STORE_load(store);
		if (info == NULL)
			break;
		if (OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PUBKEY)
			key = OSSL_STORE_INFO_get1_PUBKEY(info);
		else
			key = OSSL_STORE_INFO_get1_PKEY(info);
		OSSL_STORE_INFO_free(info);
	}
	CHECK(OSSL_STORE_close(store) == 1);
	return key;
}

static EVP_PKEY *loaded(const char *uri)
{
	EVP_PKEY *key = load(NULL, uri);

	CHECK(key);
	return key;
}

static void check_verifies(EVP_PKEY *key, const unsigned char *signature, size_t len)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();

	CHECK(context);
	CHECK(EVP_DigestVerifyInit_ex(context, NULL, "SHA256", NULL, NULL, key, NULL) == 1);
	CHECK(EVP_DigestVerify(context, signature, len, message, sizeof message) == 1);
	EVP_MD_CTX_free(context);
}

static void check_signs(EVP_PKEY *key)
{
	unsigned char signature[512];
	size_t len = sizeof signature;
	EVP_MD_CTX *context = EVP_MD_CTX_new();

	CHECK(context);
	CHECK(EVP_DigestSignInit_ex(context, NULL, "SHA256", NULL, NULL, key, NULL) == 1);
	CHECK(EVP_DigestSign(context, signature, &len, message, sizeof message) == 1);
	EVP_MD_CTX_free(context);
	check_verifies(key, signature, len);
}

static void check_refusals(const char *uri)
{
	static const char *const wrong[] = {
		"aziot-keys:", "aziot-keys:what", "aziot-keys:id=", "aziot-keys:id=%", "aziot-keys:id=\xff",
		"aziot-keys:id=no such pair", "aziot-keys:handle=no handle", "aziot-keys:id=a;id=b",
	};
	OSSL_STORE_CTX *store;

	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		CHECK(load(NULL, wrong[i]) == NULL && ERR_peek_error() != 0);
		ERR_clear_error();
	}
	/* Opened, and nobody comes. */
	store = OSSL_STORE_open(uri, NULL, NULL, NULL, NULL);
	CHECK(store && OSSL_STORE_close(store) == 1);
	/* Asked for what is no key. */
	store = OSSL_STORE_open(uri, NULL, NULL, NULL, NULL);
	CHECK(store && OSSL_STORE_expect(store, OSSL_STORE_INFO_CERT) == 1);
	CHECK(OSSL_STORE_load(store) == NULL);
	CHECK(OSSL_STORE_close(store) == 1);
	ERR_clear_error();
}

/* Frees copies in the order with this number, and uses what is left after each. */
static void free_in_order(EVP_PKEY **keys, int order)
{
	int left = COPIES;

	while (left > 0) {
		int which = order % left;
		order /= left;
		EVP_PKEY_free(keys[which]);
		keys[which] = keys[--left];
		if (left > 0)
			check_signs(keys[order % left]);
	}
}

static void check_orders(const char *uri)
{
	for (int order = 0; order < 24; order++) {
		EVP_PKEY *keys[COPIES];

		/* A copy of the key, a copy of the copy, and a reference to the first. */
		keys[0] = loaded(uri);
		keys[1] = EVP_PKEY_dup(keys[0]);
		CHECK(keys[1]);
		keys[2] = EVP_PKEY_dup(keys[1]);
		CHECK(keys[2]);
		keys[3] = keys[0];
		CHECK(EVP_PKEY_up_ref(keys[3]) == 1);
		CHECK(EVP_PKEY_eq(keys[0], keys[2]) == 1);
		free_in_order(keys, order);
	}
	CHECK(ERR_peek_error() == 0);
}

/* An operation that is copied in its middle, without the key it began with; either copy ends first, or never. */
static void check_operations(const char *uri)
{
	for (int order = 0; order < 4; order++) {
		unsigned char signature[512];
		size_t len = sizeof signature;
		EVP_PKEY *key = loaded(uri), *same = EVP_PKEY_dup(key);
		EVP_MD_CTX *first = EVP_MD_CTX_new(), *second = EVP_MD_CTX_new();

		CHECK(same && first && second);
		CHECK(EVP_DigestSignInit_ex(first, NULL, "SHA256", NULL, NULL, key, NULL) == 1);
		EVP_PKEY_free(key);
		CHECK(EVP_DigestSignUpdate(first, message, 3) == 1);
		CHECK(EVP_MD_CTX_copy_ex(second, first) == 1);
		if (order & 1) {
			EVP_MD_CTX *swap = first;
			first = second;
			second = swap;
		}
		CHECK(EVP_DigestSignUpdate(first, message + 3, sizeof message - 3) == 1);
		CHECK(EVP_DigestSignFinal(first, signature, &len) == 1);
		check_verifies(same, signature, len);
		EVP_MD_CTX_free(first);
		if (order & 2) {
			len = sizeof signature;
			CHECK(EVP_DigestSignUpdate(second, message + 3, sizeof message - 3) == 1);
			CHECK(EVP_DigestSignFinal(second, signature, &len) == 1);
			check_verifies(same, signature, len);
		}
		EVP_MD_CTX_free(second);
		EVP_PKEY_free(same);
	}
	CHECK(ERR_peek_error() == 0);
}

/* The same with operations on digests, and one that is begun again with other settings. */
static void check_contexts(const char *uri, int rsa)
{
	unsigned char digest[32] = { 1 }, signature[512];
	size_t len = sizeof signature;
	EVP_PKEY *key = loaded(uri);
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL), *copy;

	CHECK(context && EVP_PKEY_sign_init(context) == 1);
	if (rsa)
		CHECK(EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PSS_PADDING) == 1);
	CHECK(EVP_PKEY_CTX_set_signature_md(context, EVP_sha256()) == 1);
	copy = EVP_PKEY_CTX_dup(context);
	CHECK(copy);
	EVP_PKEY_free(key);
	CHECK(EVP_PKEY_sign(context, signature, &len, digest, sizeof digest) == 1);
	CHECK(EVP_PKEY_sign_init(context) == 1);
	EVP_PKEY_CTX_free(context);
	/* Too little room, and a digest of another size. */
	len = 1;
	CHECK(EVP_PKEY_sign(copy, signature, &len, digest, sizeof digest) != 1);
	len = sizeof signature;
	CHECK(EVP_PKEY_sign(copy, signature, &len, digest, sizeof digest - 1) != 1);
	ERR_clear_error();
	len = sizeof signature;
	CHECK(EVP_PKEY_sign(copy, signature, &len, digest, sizeof digest) == 1);
	EVP_PKEY_CTX_free(copy);
	CHECK(ERR_peek_error() == 0);
}

static void check_decrypts(const char *uri, int padding)
{
	unsigned char sealed[512], opened[512];
	size_t sealed_len = sizeof sealed, len = sizeof opened;
	EVP_PKEY *key = loaded(uri);
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL), *copy;

	CHECK(context && EVP_PKEY_encrypt_init(context) == 1);
	CHECK(EVP_PKEY_CTX_set_rsa_padding(context, padding) == 1);
	CHECK(EVP_PKEY_encrypt(context, sealed, &sealed_len, message, sizeof message) == 1);
	CHECK(EVP_PKEY_decrypt_init(context) == 1);
	CHECK(EVP_PKEY_CTX_set_rsa_padding(context, padding) == 1);
	if (padding == RSA_PKCS1_OAEP_PADDING) {
		void *label = OPENSSL_memdup("label", 5);
		CHECK(EVP_PKEY_CTX_set0_rsa_oaep_label(context, label, 5) == 1);
	}
	copy = EVP_PKEY_CTX_dup(context);
	CHECK(copy);
	EVP_PKEY_free(key);
	EVP_PKEY_CTX_free(context);
	/* The label is another one. */
	CHECK((EVP_PKEY_decrypt(copy, opened, &len, sealed, sealed_len) == 1) == (padding != RSA_PKCS1_OAEP_PADDING));
	sealed[sealed_len - 1] ^= 1;
	len = sizeof opened;
	(void)EVP_PKEY_decrypt(copy, opened, &len, sealed, sealed_len);
	EVP_PKEY_CTX_free(copy);
	ERR_clear_error();
}

static void check_halves(const char *uri)
{
	char public_uri[2048];
	unsigned char *der = NULL;
	EVP_PKEY *key = loaded(uri), *public, *plain;
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	const unsigned char *at;
	unsigned char signature[512];
	size_t len = sizeof signature;
	int der_len;

	CHECK((size_t)snprintf(public_uri, sizeof public_uri, "%s;type=public", uri) < sizeof public_uri);
	public = loaded(public_uri);
	CHECK(context && EVP_PKEY_eq(key, public) == 1);
	CHECK(EVP_DigestSignInit_ex(context, NULL, "SHA256", NULL, NULL, public, NULL) != 1
	      || EVP_DigestSign(context, signature, &len, message, sizeof message) != 1);
	EVP_MD_CTX_free(context);
	/* The private half has no form outside of the service. */
	CHECK(i2d_PrivateKey(key, &der) <= 0 && der == NULL);
	ERR_clear_error();
	/* The public one has the usual ones. */
	der_len = i2d_PUBKEY(key, &der);
	CHECK(der_len > 0);
	at = der;
	plain = d2i_PUBKEY(NULL, &at, der_len);
	CHECK(plain && EVP_PKEY_eq(plain, key) == 1);
	OPENSSL_free(der);
	EVP_PKEY_free(plain);
	EVP_PKEY_free(public);
	check_signs(key);
	EVP_PKEY_free(key);
	ERR_clear_error();
}

/* The URI in a PEM file, beside something else. */
static void check_files(const char *uri)
{
	static const char *const halves[] = { "", ";type=private", ";type=public" };

	for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
		BIO *file = BIO_new(BIO_s_mem());
		char text[2048];
		EVP_PKEY *key, *public, *same = loaded(uri);
		int len = snprintf(text, sizeof text, "%s%s", uri, halves[i]);

		CHECK(file && len > 0 && (size_t)len < sizeof text);
		CHECK(PEM_write_bio(file, "SOMETHING ELSE", "", message, sizeof message) > 0);
		CHECK(PEM_write_bio(file, "AZIOT KEYS URI", "", (unsigned char *)text, len) > 0);
		CHECK(PEM_write_bio(file, "SOMETHING ELSE", "", message, sizeof message) > 0);
		CHECK(BIO_set_mem_eof_return(file, 0) == 1);
		key = PEM_read_bio_PrivateKey(file, NULL, NULL, NULL);
		CHECK((key == NULL) == (i == 2));
		if (key)
			check_signs(key);
		EVP_PKEY_free(key);
		ERR_clear_error();
		BIO_free(file);

		file = BIO_new(BIO_s_mem());
		CHECK(file && PEM_write_bio(file, "AZIOT KEYS URI", "", (unsigned char *)text, len) > 0);
		public = PEM_read_bio_PUBKEY(file, NULL, NULL, NULL);
		CHECK(public && EVP_PKEY_eq(public, same) == 1);
		EVP_PKEY_free(public);
		EVP_PKEY_free(same);
		BIO_free(file);
		ERR_clear_error();
	}
	/* What is in it is none. */
	for (size_t i = 0; i < 2; i++) {
		BIO *file = BIO_new(BIO_s_mem());
		CHECK(file && PEM_write_bio(file, "AZIOT KEYS URI", "", (const unsigned char *)"\xff\0x", i ? 3 : 1) > 0);
		CHECK(PEM_read_bio_PrivateKey(file, NULL, NULL, NULL) == NULL && ERR_peek_error() != 0);
		ERR_clear_error();
		BIO_free(file);
	}
}

static void *sign_some(void *key)
{
	for (int i = 0; i < 5; i++)
		check_signs(key);
	return NULL;
}

static void *copy_some(void *key)
{
	for (int i = 0; i < 5; i++) {
		EVP_PKEY *copy = EVP_PKEY_dup(key);
		CHECK(copy);
		check_signs(copy);
		EVP_PKEY_free(copy);
	}
	return NULL;
}

static void check_threads_and_processes(const char *uri)
{
	EVP_PKEY *key = loaded(uri);
	pthread_t threads[THREADS];
	pid_t children[2];

	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, i % 2 ? copy_some : sign_some, key) == 0);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	for (int i = 0; i < 2; i++) {
		children[i] = fork();
		CHECK(children[i] >= 0);
		if (children[i] == 0) {
			check_signs(key);
			EVP_PKEY_free(key);
			_exit(0);
		}
	}
	check_signs(key);
	for (int i = 0; i < 2; i++) {
		int status = 0;
		CHECK(waitpid(children[i], &status, 0) == children[i] && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	EVP_PKEY_free(key);
}

/* A key that outlives what the program had of its provider; and a context that goes with all that was in it. */
static void check_lifetimes(const char *uri)
{
	for (int order = 0; order < 2; order++) {
		OSSL_LIB_CTX *ctx = OSSL_LIB_CTX_new();
		struct home home = arrive(ctx);
		EVP_PKEY *key = load(ctx, uri);

		CHECK(ctx && key);
		if (order == 0)
			CHECK(OSSL_PROVIDER_unload(home.keys) == 1);
		check_signs(key);
		EVP_PKEY_free(key);
		if (order == 1)
			CHECK(OSSL_PROVIDER_unload(home.keys) == 1);
		CHECK(OSSL_PROVIDER_unload(home.others) == 1);
		OSSL_LIB_CTX_free(ctx);
	}
	CHECK(ERR_peek_error() == 0);
}

int main(int argc, char **argv)
{
	struct home home;

	if (argc != 3) {
		fprintf(stderr, "usage: %s EC-URI RSA-URI\n", argv[0]);
		return 2;
	}
	home = arrive(NULL);
	check_refusals(argv[1]);
	for (int rsa = 0; rsa < 2; rsa++) {
		const char *uri = argv[1 + rsa];
		check_orders(uri);
		check_operations(uri);
		check_contexts(uri, rsa);
		check_halves(uri);
		check_files(uri);
		check_threads_and_processes(uri);
		check_lifetimes(uri);
	}
	check_decrypts(argv[2], RSA_PKCS1_PADDING);
	check_decrypts(argv[2], RSA_PKCS1_OAEP_PADDING);
	CHECK(OSSL_PROVIDER_unload(home.others) == 1);
	CHECK(OSSL_PROVIDER_unload(home.keys) == 1);
	return 0;
}

/*
 * Keys of the engine in every order that a program can copy, use and free them in; to be run under a memory checker.
 *
 *     engine-keys NAME EC-KEY-ID RSA-KEY-ID
 *
 * The engine is looked for where OPENSSL_ENGINES says. Exits with 0 if everything was as it should be. Otherwise it says what
 * was not, and what OpenSSL has to say about it.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/ec.h>
#include <openssl/engine.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
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

enum { COPIES = 4 };

static void check_signs(EVP_PKEY *key)
{
	unsigned char signature[512];
	size_t len = sizeof signature;
	EVP_MD_CTX *context = EVP_MD_CTX_new();

	CHECK(context);
	CHECK(EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1);
	CHECK(EVP_DigestSign(context, signature, &len, (const unsigned char *)"message", 7) == 1);
	CHECK(EVP_MD_CTX_reset(context) == 1);
	CHECK(EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) == 1);
	CHECK(EVP_DigestVerify(context, signature, len, (const unsigned char *)"message", 7) == 1);
	EVP_MD_CTX_free(context);
}

static ENGINE *engine(const char *name)
{
	ENGINE *e = ENGINE_by_id(name);

	CHECK(e);
	CHECK(ERR_peek_error() == 0);
	return e;
}

static ENGINE *initialised(const char *name)
{
	ENGINE *e = engine(name);

	CHECK(ENGINE_init(e) == 1);
	return e;
}

/* Leaves nothing of the engine but what keys hold on to. */
static void release(ENGINE *e)
{
	CHECK(ENGINE_finish(e) == 1);
	CHECK(ENGINE_free(e) == 1);
}

static EVP_PKEY *private_key(const char *name, const char *id)
{
	ENGINE *e = initialised(name);
	EVP_PKEY *key = ENGINE_load_private_key(e, id, NULL, NULL);

	CHECK(key);
	release(e);
	return key;
}

static EVP_PKEY *wrapped(EC_KEY *ec)
{
	EVP_PKEY *key = EVP_PKEY_new();

	CHECK(ec && key);
	CHECK(EVP_PKEY_assign_EC_KEY(key, ec) == 1);
	return key;
}

static void check_identity(const char *name)
{
	ENGINE *e = engine(name);
	const int *nids = NULL;
	ENGINE_PKEY_METHS_PTR methods = ENGINE_get_pkey_meths(e);
	EVP_PKEY_METHOD *method = NULL;

	/* What comes later under this name is a copy, with this name for its id. */
	static int first = 1;
	CHECK(strcmp(ENGINE_get_id(e), first ? "aziot-key-openssl-engine" : name) == 0);
	first = 0;
	CHECK(strcmp(ENGINE_get_name(e), "An openssl engine that talks to the Azure IoT Keys Service") == 0);
	CHECK(ENGINE_get_flags(e) == ENGINE_FLAGS_BY_ID_COPY);
	CHECK(!ENGINE_get_ctrl_function(e) && !ENGINE_get_cmd_defns(e));
	CHECK(ENGINE_get_init_function(e) && ENGINE_get_destroy_function(e));
	CHECK(ENGINE_get_load_privkey_function(e) && ENGINE_get_load_pubkey_function(e));
	CHECK(!ENGINE_get_finish_function(e) && !ENGINE_get_ssl_client_cert_function(e));
	CHECK(!ENGINE_get_RSA(e) && !ENGINE_get_EC(e) && !ENGINE_get_DSA(e) && !ENGINE_get_DH(e));
	CHECK(!ENGINE_get_RAND(e) && !ENGINE_get_ciphers(e) && !ENGINE_get_digests(e));
	CHECK(!ENGINE_get_pkey_asn1_meths(e));
	CHECK(methods && methods(e, NULL, &nids, 0) == 2);
	CHECK(nids[0] == NID_X9_62_id_ecPublicKey && nids[1] == NID_rsaEncryption);
	CHECK(ENGINE_get_pkey_meth(e, EVP_PKEY_EC) == EVP_PKEY_meth_find(EVP_PKEY_EC));
	CHECK(ENGINE_get_pkey_meth(e, EVP_PKEY_RSA) == EVP_PKEY_meth_find(EVP_PKEY_RSA));
	CHECK(methods(e, &method, NULL, EVP_PKEY_DSA) == 0 && !method);
	CHECK(ERR_peek_error() != 0);
	ERR_clear_error();
	/* Each has a structure of its own, also by its other name. */
	{
		ENGINE *other = engine("aziot-key-openssl-engine");
		CHECK(other != e);
		CHECK(ENGINE_free(other) == 1);
	}
	CHECK(ENGINE_free(e) == 1);
	/* Never in use, so there was nothing to release and nothing to say. */
	CHECK(ERR_peek_error() == 0);
}

static void check_refusals(const char *name, const char *id)
{
	ENGINE *e = engine(name);

	CHECK(!ENGINE_load_private_key(e, id, NULL, NULL));
	CHECK(ENGINE_init(e) == 1);
	ERR_clear_error();
	CHECK(!ENGINE_load_private_key(e, NULL, NULL, NULL) && ERR_peek_error() != 0);
	CHECK(!ENGINE_load_public_key(e, NULL, NULL, NULL));
	CHECK(!ENGINE_load_private_key(e, "", NULL, NULL));
	CHECK(!ENGINE_load_private_key(e, "\xff", NULL, NULL));
	CHECK(!ENGINE_load_private_key(e, "aziot-keys:what", NULL, NULL));
	CHECK(!ENGINE_load_private_key(e, "aziot-keys:id=x;type=public", NULL, NULL));
	CHECK(!ENGINE_load_private_key(e, "no handle", NULL, NULL));
	ERR_clear_error();
	release(e);
}

static void check_reuse(const char *name, const char *id)
{
	ENGINE *e = engine(name);

	for (int i = 0; i < 3; i++) {
		EVP_PKEY *key;
		CHECK(ENGINE_init(e) == 1);
		key = ENGINE_load_private_key(e, id, NULL, NULL);
		CHECK(key);
		check_signs(key);
		EVP_PKEY_free(key);
		CHECK(ENGINE_finish(e) == 1);
	}
	CHECK(ENGINE_free(e) == 1);
	CHECK(ERR_peek_error() == 0);
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

static void check_orders(const char *name, const char *id)
{
	for (int order = 0; order < 24; order++) {
		EVP_PKEY *keys[COPIES];

		keys[0] = private_key(name, id);
		/* A copy of the key, a copy of the copy, and a reference to the first. */
		keys[1] = wrapped(EC_KEY_dup(EVP_PKEY_get0_EC_KEY(keys[0])));
		keys[2] = wrapped(EC_KEY_dup(EVP_PKEY_get0_EC_KEY(keys[1])));
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
		keys[3] = EVP_PKEY_dup(keys[0]);
		CHECK(keys[3]);
#else
		keys[3] = wrapped(EVP_PKEY_get1_EC_KEY(keys[0]));
#endif
		free_in_order(keys, order);
	}
	CHECK(ERR_peek_error() == 0);
}

static void check_copies_over(const char *name, const char *id)
{
	EVP_PKEY *first = private_key(name, id), *second = private_key(name, id);
	EC_KEY *plain = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
	EC_KEY *plain_too = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
	EC_KEY *ec = EVP_PKEY_get1_EC_KEY(second);

	/* What was there is released: twice one of ours, then none of ours, then one of ours. */
	CHECK(EC_KEY_generate_key(plain) == 1 && EC_KEY_generate_key(plain_too) == 1);
	CHECK(EC_KEY_copy(ec, EVP_PKEY_get0_EC_KEY(first)) == ec);
	check_signs(second);
	CHECK(EC_KEY_copy(ec, EVP_PKEY_get0_EC_KEY(first)) == ec);
	CHECK(EC_KEY_copy(ec, plain) == ec);
	CHECK(EC_KEY_copy(ec, EVP_PKEY_get0_EC_KEY(first)) == ec);
	EVP_PKEY_free(first);
	EC_KEY_free(ec);
	EVP_PKEY_free(second);
	/* Keys that are no concern of the engine's. */
	CHECK(EC_KEY_copy(plain_too, plain) == plain_too);
	EC_KEY_free(plain_too);
	plain_too = EC_KEY_dup(plain);
	CHECK(plain_too && EC_KEY_check_key(plain_too) == 1);
	EC_KEY_free(plain);
	EC_KEY_free(plain_too);
	CHECK(ERR_peek_error() == 0);
}

static void check_rsa(const char *name, const char *id)
{
	EVP_PKEY *key = private_key(name, id);
	RSA *rsa = EVP_PKEY_get1_RSA(key), *copy = RSAPublicKey_dup(rsa);
	EVP_PKEY *other = EVP_PKEY_new();
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(key, NULL), *duplicate;
	unsigned char out[512] = { 0 };
	size_t len = sizeof out;

	CHECK(rsa && copy && other && context);
	CHECK(EVP_PKEY_sign_init(context) == 1);
	duplicate = EVP_PKEY_CTX_dup(context);
	CHECK(duplicate);
	EVP_PKEY_CTX_free(context);
	CHECK(EVP_PKEY_set1_RSA(other, rsa) == 1);
	EVP_PKEY_free(key);
	CHECK(EVP_PKEY_sign(duplicate, out, &len, (const unsigned char *)"anything", 8) == 1);
	EVP_PKEY_CTX_free(duplicate);
	check_signs(other);
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
	/* OpenSSL does not copy RSA keys with methods of their own. */
	key = EVP_PKEY_dup(other);
	if (key)
		check_signs(key);
	EVP_PKEY_free(key);
	ERR_clear_error();
#endif
	EVP_PKEY_free(other);
	CHECK(RSA_private_encrypt(8, (const unsigned char *)"anything", out, rsa, RSA_PKCS1_PADDING) == RSA_size(rsa));
	RSA_free(rsa);
	RSA_free(copy);
	CHECK(ERR_peek_error() == 0);
}

static void check_public(const char *name, const char *id)
{
	ENGINE *e = initialised(name);
	EVP_PKEY *key = ENGINE_load_private_key(e, id, NULL, NULL);
	EVP_PKEY *public = ENGINE_load_public_key(e, id, NULL, NULL);
	EVP_PKEY_CTX *context;
	unsigned char out[512] = { 0 };
	size_t len = sizeof out;

	CHECK(key && public);
	CHECK(EVP_PKEY_cmp(key, public) == 1);
	release(e);
	/* It is an ordinary public key. */
	context = EVP_PKEY_CTX_new(public, NULL);
	CHECK(context);
	CHECK(EVP_PKEY_sign_init(context) != 1 || EVP_PKEY_sign(context, out, &len, out, 32) != 1);
	ERR_clear_error();
	EVP_PKEY_CTX_free(context);
	EVP_PKEY_free(public);
	check_signs(key);
	EVP_PKEY_free(key);
}

static void *sign_some(void *key)
{
	for (int i = 0; i < 5; i++)
		check_signs(key);
	return NULL;
}

static void check_threads_and_processes(const char *name, const char *id)
{
	EVP_PKEY *key = private_key(name, id);
	pthread_t threads[4];
	pid_t child;
	int status = 0;

	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, sign_some, key) == 0);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		check_signs(key);
		EVP_PKEY_free(key);
		_exit(0);
	}
	check_signs(key);
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	EVP_PKEY_free(key);
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: %s NAME EC-KEY-ID RSA-KEY-ID\n", argv[0]);
		return 2;
	}
	const char *name = argv[1], *ec = argv[2], *rsa = argv[3];

	ENGINE_load_builtin_engines();
	ERR_clear_error();
	check_identity(name);
	check_identity(name);
	check_refusals(name, ec);
	check_reuse(name, ec);
	check_orders(name, ec);
	check_copies_over(name, ec);
	check_rsa(name, rsa);
	check_public(name, ec);
	check_public(name, rsa);
	check_threads_and_processes(name, ec);
	return 0;
}

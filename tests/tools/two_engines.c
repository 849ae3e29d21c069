/*
 * Two engines in one process, each with keys of its own, used in turns.
 *
 *     two-engines FIRST EC RSA SECOND EC RSA
 *
 * FIRST and SECOND are the names of engines, in the order in which they are loaded; EC and RSA are key ids of the engine before
 * them. The engines are looked for where OPENSSL_ENGINES says. Everything is done as the engines come, then with the methods of
 * all engines registered, as `openssl` does, and then with each engine in turn as the default for everything. Exits with 0 if
 * everything was as it should be. Otherwise it says what was not, and what OpenSSL has to say about it.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/ec.h>
#include <openssl/engine.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                        \
	do {                                                                    \
		if (!(condition)) {                                             \
			fprintf(stderr, "%s:%d: %s, with %s\n", __FILE__, __LINE__, #condition, stage); \
			ERR_print_errors_fp(stderr);                            \
			exit(1);                                                \
		}                                                               \
	} while (0)

enum { ENGINES = 2, KINDS = 2 };

static const char *stage = "";
static const unsigned char message[] = "message";

static void check_signs(EVP_PKEY *key)
{
	unsigned char signature[512];
	size_t len = sizeof signature;
	EVP_MD_CTX *context = EVP_MD_CTX_new();

	CHECK(context);
	CHECK(EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1);
	CHECK(EVP_DigestSign(context, signature, &len, message, sizeof message) == 1);
	CHECK(EVP_MD_CTX_reset(context) == 1);
	CHECK(EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) == 1);
	CHECK(EVP_DigestVerify(context, signature, len, message, sizeof message) == 1);
	EVP_MD_CTX_free(context);
}

/* Keys that belong to no engine. */
static EVP_PKEY *ordinary(int rsa)
{
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_id(rsa ? EVP_PKEY_RSA : EVP_PKEY_EC, NULL);
	EVP_PKEY *key = NULL;

	CHECK(context && EVP_PKEY_keygen_init(context) == 1);
	if (rsa)
		CHECK(EVP_PKEY_CTX_set_rsa_keygen_bits(context, 2048) == 1);
	else
		CHECK(EVP_PKEY_CTX_set_ec_paramgen_curve_nid(context, NID_X9_62_prime256v1) == 1);
	CHECK(EVP_PKEY_keygen(context, &key) == 1);
	EVP_PKEY_CTX_free(context);
	return key;
}

/* Keys of both, in turns; `first` are those that go first. */
static void use(ENGINE *engines[ENGINES], char **ids[ENGINES], int first)
{
	EVP_PKEY *keys[ENGINES][KINDS], *others[KINDS];

	for (int kind = 0; kind < KINDS; kind++) {
		for (int i = 0; i < ENGINES; i++) {
			keys[i][kind] = ENGINE_load_private_key(engines[i], ids[i][kind], NULL, NULL);
			CHECK(keys[i][kind]);
		}
		others[kind] = ordinary(kind);
	}
	for (int turn = 0; turn < 2; turn++)
		for (int kind = 0; kind < KINDS; kind++) {
			for (int i = 0; i < ENGINES; i++)
				check_signs(keys[i][kind]);
			check_signs(others[kind]);
		}
	for (int kind = 0; kind < KINDS; kind++) {
		EVP_PKEY_free(keys[first][kind]);
		check_signs(keys[!first][kind]);
		EVP_PKEY_free(keys[!first][kind]);
		check_signs(others[kind]);
		EVP_PKEY_free(others[kind]);
	}
}

int main(int argc, char **argv)
{
	ENGINE *engines[ENGINES];
	char **ids[ENGINES] = { argv + 2, argv + 5 };

	if (argc != 7) {
		fprintf(stderr, "usage: %s FIRST EC RSA SECOND EC RSA\n", argv[0]);
		return 2;
	}
	stage = "engines as they come";
	ENGINE_load_builtin_engines();
	for (int i = 0; i < ENGINES; i++) {
		engines[i] = ENGINE_by_id(argv[1 + 3 * i]);
		CHECK(engines[i] && ENGINE_init(engines[i]) == 1);
	}
	use(engines, ids, 0);
	use(engines, ids, 1);
	stage = "all engines registered";
	CHECK(ENGINE_register_all_complete() == 1);
	use(engines, ids, 0);
	for (int i = 0; i < ENGINES; i++) {
		stage = argv[1 + 3 * i];
		CHECK(ENGINE_set_default(engines[i], ENGINE_METHOD_ALL) == 1);
		use(engines, ids, i);
	}
	stage = "the engines gone";
	for (int i = 0; i < ENGINES; i++) {
		CHECK(ENGINE_finish(engines[i]) == 1);
		CHECK(ENGINE_free(engines[i]) == 1);
	}
	return 0;
}

#include "cipher_library.h"

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <string.h>

/* What every state of a pycryptodome block cipher begins with. */
struct library_state {
    int (*encrypt)(const void *state, const uint8_t *in, uint8_t *out, size_t length);
    int (*decrypt)(const void *state, const uint8_t *in, uint8_t *out, size_t length);
    int (*destructor)(struct library_state *state);
    size_t block_length;
};

typedef int start_function(const uint8_t *key, size_t key_length, struct library_state **state);
typedef int salsa20_init_function(const uint8_t *key, size_t key_length, const uint8_t *nonce, size_t nonce_length,
                                  void **state);
typedef int salsa20_encrypt_function(void *state, const uint8_t *in, uint8_t *out, size_t length);
typedef int destroy_function(void *state);
typedef int ghash_expand_function(const uint8_t h[16], void **tables);
typedef int ghash_function(uint8_t out[16], const uint8_t *data, size_t length, const uint8_t in[16],
                           const void *tables);

static struct seal_library library;
static atomic_flag library_claimed = ATOMIC_FLAG_INIT;

void seal_use_library(const struct seal_library *functions)
{
    if (!atomic_flag_test_and_set(&library_claimed))
        library = *functions;
}

const struct seal_library *library_get(void)
{
    return &library;
}

int library_cipher_new(struct block_cipher *cipher, const struct seal_library_cipher *functions, const uint8_t *key,
                       size_t key_length, size_t size)
{
    struct library_state *state = NULL;

    if (!functions->start || !functions->stop)
        return -ENOSYS;
    int failure = ((start_function *)functions->start)(key, key_length, &state);
    if (failure)
        return failure == 2 ? -ENOMEM : -ELIBBAD; /* pycryptodome's ERR_MEMORY */
    /* Two fields that must hold what we know: nothing of a state laid out otherwise is called or written to. */
    if (!state || (void *)state->destructor != functions->stop || state->block_length != size || !state->encrypt)
        return -ELIBBAD;
    cipher->encrypt = state->encrypt;
    cipher->schedule = state;
    cipher->size = size;
    return 0;
}

/* A schedule of any of these ciphers is longer than this: a smaller state only points to it. */
#define SCHEDULE_MIN 128

/* The whole state of AES by instructions (AES-NI and ARMv8 alike), whose schedules are heap blocks of their own. */
struct library_aes {
    struct library_state state;
    uint8_t *encryption, *decryption; /* round keys, 16 bytes each */
    unsigned int rounds;
};

/* Wipes and frees as pycryptodome would, which frees without wiping. */
void library_cipher_free(struct block_cipher *cipher, const uint8_t *key, size_t key_length)
{
    struct library_state *state = (struct library_state *)(uintptr_t)cipher->schedule;
    size_t size = malloc_usable_size(state);
    struct library_aes *aes = (struct library_aes *)state;
    unsigned int rounds = (unsigned int)key_length / 4 + 6;

    if (size >= sizeof *state + SCHEDULE_MIN) {
        explicit_bzero(state + 1, size - sizeof *state);
    } else if (size >= sizeof *aes && aes->rounds == rounds) {
        /* The first round key is the key itself, the decryption schedule is the other back to front: whatever else
         * these blocks may be in a version to come, nothing but a schedule of this key is written to. */
        if (memcmp(aes->encryption, key, 16) == 0)
            explicit_bzero(aes->encryption, 16 * (rounds + 1));
        if (memcmp(aes->decryption + 16 * rounds, key, 16) == 0)
            explicit_bzero(aes->decryption, 16 * (rounds + 1));
    }
    state->destructor(state);
    memset(cipher, 0, sizeof *cipher);
}

/* Ends an object of the library that is one heap block. */
static void wipe_and_destroy(void *object, void *destroy)
{
    explicit_bzero(object, malloc_usable_size(object));
    ((destroy_function *)destroy)(object);
}

int library_salsa20(const uint8_t key[32], const uint8_t nonce[8], uint8_t *data, size_t length)
{
    void *state = NULL;
    if (!library.salsa20_init || !library.salsa20_encrypt || !library.salsa20_destroy)
        return -ENOSYS;
    int failure = ((salsa20_init_function *)library.salsa20_init)(key, 32, nonce, 8, &state);
    if (failure)
        return failure;
    failure = ((salsa20_encrypt_function *)library.salsa20_encrypt)(state, data, data, length);
    wipe_and_destroy(state, library.salsa20_destroy);
    return failure;
}

int library_ghash_new(void **tables, const uint8_t h[16])
{
    if (!library.ghash_expand || !library.ghash || !library.ghash_destroy)
        return -ENOSYS;
    return ((ghash_expand_function *)library.ghash_expand)(h, tables) ? -ENOMEM : 0;
}

void library_ghash_free(void *tables)
{
    wipe_and_destroy(tables, library.ghash_destroy);
}

int library_ghash_update(const void *tables, uint8_t y[16], const uint8_t *data, size_t length)
{
    return ((ghash_function *)library.ghash)(y, data, length, y, tables);
}

#include "nonce.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cipher_bytes.h"

#define REFILLS_PER_SEED 1024 /* a megabyte; then the system adds to the key */

/* Grows in each child after fork, whose generators must not give what its parent's will give. */
static atomic_uint fork_generation;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

void nonces_after_fork(void)
{
    atomic_fetch_add_explicit(&fork_generation, 1, memory_order_relaxed);
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, nonces_after_fork);
}

/* One word of four blocks, a lane each. */
typedef uint32_t lanes __attribute__((vector_size(16)));

#define ROTATE(x, bits) ((x) << (bits) | (x) >> (32 - (bits)))
#define QUARTER(a, b, c, d)     \
    do {                        \
        (a) += (b);             \
        (d) ^= (a);             \
        (d) = ROTATE((d), 16);  \
        (c) += (d);             \
        (b) ^= (c);             \
        (b) = ROTATE((b), 12);  \
        (a) += (b);             \
        (d) ^= (a);             \
        (d) = ROTATE((d), 8);   \
        (c) += (d);             \
        (b) ^= (c);             \
        (b) = ROTATE((b), 7);   \
    } while (0)

void nonces_chacha20(const uint8_t key[NONCE_KEY], uint32_t counter, uint8_t out[256])
{
    static const uint32_t constants[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}; /* "expand 32-byte k" */
    const lanes zero = {0, 0, 0, 0};
    lanes start[16], x[16];

    for (int i = 0; i < 4; i++)
        start[i] = zero + constants[i];
    for (int i = 0; i < 8; i++)
        start[4 + i] = zero + load_le32(key + 4 * i);
    start[12] = (lanes){counter, counter + 1, counter + 2, counter + 3};
    start[13] = start[14] = start[15] = zero;

    memcpy(x, start, sizeof x);
    for (int round = 0; round < 20; round += 2) {
        QUARTER(x[0], x[4], x[8], x[12]);
        QUARTER(x[1], x[5], x[9], x[13]);
        QUARTER(x[2], x[6], x[10], x[14]);
        QUARTER(x[3], x[7], x[11], x[15]);
        QUARTER(x[0], x[5], x[10], x[15]);
        QUARTER(x[1], x[6], x[11], x[12]);
        QUARTER(x[2], x[7], x[8], x[13]);
        QUARTER(x[3], x[4], x[9], x[14]);
    }
    for (int i = 0; i < 16; i++) {
        x[i] += start[i];
        for (int block = 0; block < 4; block++)
            store_le32(out + 64 * block + 4 * i, x[i][block]);
    }
    explicit_bzero(start, sizeof start);
    explicit_bzero(x, sizeof x);
}

/* Xors fresh bytes of the system's into the key: what was secret stays so even if they were not. 0 or a negative
 * errno. */
static int seed(struct nonces *nonces)
{
    uint8_t fresh[NONCE_KEY];
    ssize_t got;
    do /* so few bytes come all at once */
        got = getrandom(fresh, sizeof fresh, 0);
    while (got < 0 && errno == EINTR);
    if (got != NONCE_KEY)
        return got < 0 ? -errno : -EIO;
    xor_bytes(nonces->key, fresh, sizeof fresh);
    explicit_bzero(fresh, sizeof fresh);
    nonces->refills = 0;
    nonces->left = 0;
    return 0;
}

static void refill(struct nonces *nonces)
{
    uint8_t stream[NONCE_KEY + NONCE_POOL];
    for (uint32_t counter = 0; counter < sizeof stream / 64; counter += 4)
        nonces_chacha20(nonces->key, counter, stream + 64 * counter);
    memcpy(nonces->key, stream, NONCE_KEY);
    memcpy(nonces->pool, stream + NONCE_KEY, NONCE_POOL);
    explicit_bzero(stream, sizeof stream);
    nonces->left = NONCE_POOL;
    /* Should the system fail here, the generator goes on as good as it was: the next refill tries again. */
    if (++nonces->refills >= REFILLS_PER_SEED && seed(nonces) == 0)
        nonces->left = NONCE_POOL;
}

int nonces_begin(struct nonces *nonces)
{
    pthread_once(&fork_once, watch_forks);
    memset(nonces, 0, sizeof *nonces);
    nonces->generation = atomic_load_explicit(&fork_generation, memory_order_relaxed);
    return seed(nonces);
}

void nonces_take(struct nonces *nonces, uint8_t *out, size_t length)
{
    unsigned int generation = atomic_load_explicit(&fork_generation, memory_order_relaxed);
    if (nonces->generation != generation) {
        /* To go on without a new key would repeat the parent's nonces under the same cipher key, which gives the
         * traffic away: nothing a caller could do about it is better than to stop. */
        if (seed(nonces) != 0)
            abort();
        nonces->generation = generation;
    }
    if (nonces->left < length)
        refill(nonces);
    uint8_t *next = nonces->pool + NONCE_POOL - nonces->left;
    memcpy(out, next, length);
    memset(next, 0, length);
    nonces->left -= length;
}

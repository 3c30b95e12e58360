#include "seal.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "cipher_bytes.h"
#include "cipher_cfb.h"
#include "cipher_gcm.h"
#include "cipher_library.h"
#include "cipher_xor.h"
#include "crc32.h"
#include "nonce.h"

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define NONCE 16                 /* bytes, in front of the checksum */
#define CRYPTO_HEADER (NONCE + 4)
#define SALSA20_NONCE 8
#define TEA_CYCLES 8

enum mode { MODE_NULL, MODE_CLEAR, MODE_XOR, MODE_SALSA20, MODE_CFB, MODE_GCM };

struct kind {
    size_t key_length;  /* bytes */
    enum mode mode;
    size_t schedule;    /* bytes of the expanded key, where it is our own */
};

static const struct kind kinds[SEAL_KINDS] = {
    [SEAL_NULL] = {0, MODE_NULL, 0},
    [SEAL_NONE] = {0, MODE_CLEAR, 0},
    [SEAL_AES] = {32, MODE_CFB, 0},
    [SEAL_AES_128] = {16, MODE_CFB, 0},
    [SEAL_AES_192] = {24, MODE_CFB, 0},
    [SEAL_BLOWFISH] = {32, MODE_CFB, 0},
    [SEAL_TWOFISH] = {32, MODE_CFB, sizeof(struct twofish_key)},
    [SEAL_CAST5] = {16, MODE_CFB, 0},
    [SEAL_3DES] = {24, MODE_CFB, 0},
    [SEAL_TEA] = {16, MODE_CFB, sizeof(struct tea_key)},
    [SEAL_XTEA] = {16, MODE_CFB, sizeof(struct xtea_key)},
    [SEAL_SM4] = {16, MODE_CFB, sizeof(struct sm4_key)},
    [SEAL_SALSA20] = {32, MODE_SALSA20, 0},
    [SEAL_XOR] = {32, MODE_XOR, XOR_TABLE},
    [SEAL_AES_128_GCM] = {16, MODE_GCM, sizeof(struct ghash)},
};

struct seal {
    size_t size;                /* bytes of this whole struct, schedule included */
    int kind;                   /* enum seal_kind */
    enum mode mode;             /* of that kind */
    unsigned int cpu;           /* what it may use of the processor, SEAL_CPU_* */
    bool keyed;                 /* block is to be freed by library_cipher_free */
    size_t front, back;         /* bytes around the payload */
    struct block_cipher block;  /* CFB, GCM */
    uint8_t first[16];          /* CFB: the key stream that every datagram begins with */
    uint8_t key[32];            /* salsa20; and to know the library's copies by when they are wiped */
    size_t key_length;          /* bytes */
    struct nonces nonces;       /* where the nonces come from */
    max_align_t schedule[];     /* the cipher's own expanded key: kinds[kind].schedule bytes */
};

void seal_after_fork(void)
{
    nonces_after_fork();
}

unsigned int seal_cpu(void)
{
    unsigned int features = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("aes"))
        features |= SEAL_CPU_AES;
    if (__builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1"))
        features |= SEAL_CPU_MULTIPLY;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
        features |= SEAL_CPU_AVX2_BMI2;
    if (features & SEAL_CPU_MULTIPLY && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("vpclmulqdq"))
        features |= SEAL_CPU_MULTIPLY_WIDE;
#elif defined(__aarch64__)
    unsigned long hardware = getauxval(AT_HWCAP);
    if (hardware & HWCAP_AES)
        features |= SEAL_CPU_AES;
    if (hardware & HWCAP_PMULL)
        features |= SEAL_CPU_MULTIPLY;
#endif
    return features;
}

/* Key expansion leaves round keys on the stack, the library's too: overwrites what the callee frames were. */
static __attribute__((noinline)) void scrub_stack(void)
{
    uint8_t room[8192];
    explicit_bzero(room, sizeof room);
}

/* Keys the block cipher of `kind`; `schedule` has room for our own ciphers' expanded key. Sets *foreign where the
 * library's is used. */
static int key_block(struct block_cipher *block, bool *foreign, int kind, int cycles, const uint8_t *key,
                     size_t key_length, void *schedule)
{
    const struct seal_library *library = library_get();
    const struct seal_library_cipher *functions = NULL;
    size_t size = 8;

    *foreign = false;
    block->schedule = schedule;
    switch (kind) {
    case SEAL_TWOFISH:
        twofish_expand(schedule, key, key_length);
        block->encrypt = twofish_encrypt;
        block->size = 16;
        return 0;
    case SEAL_SM4:
        sm4_expand(schedule, key);
        block->encrypt = sm4_encrypt;
        block->size = 16;
        return 0;
    case SEAL_TEA:
        tea_expand(schedule, key, cycles);
        block->encrypt = tea_encrypt;
        block->size = 8;
        return 0;
    case SEAL_XTEA:
        xtea_expand(schedule, key);
        block->encrypt = xtea_encrypt;
        block->size = 8;
        return 0;
    case SEAL_BLOWFISH:
        functions = &library->blowfish;
        break;
    case SEAL_CAST5:
        functions = &library->cast5;
        break;
    case SEAL_3DES:
        functions = &library->des3;
        break;
    default:
        functions = &library->aes;
        size = 16;
    }
    int error = library_cipher_new(block, functions, key, key_length, size);
    *foreign = error == 0;
    return error;
}

/* What the mode needs beside the block cipher. 0 or a negative errno. */
static int prepare(struct seal *seal)
{
    static const uint8_t zero[16];
    uint8_t h[16];
    int error = 0;

    if (seal->mode == MODE_CFB || seal->mode == MODE_GCM)
        error = key_block(&seal->block, &seal->keyed, seal->kind, TEA_CYCLES, seal->key, seal->key_length,
                          seal->schedule);
    if (error)
        return error;
    switch (seal->mode) {
    case MODE_CFB:
        return cfb_first(&seal->block, seal->first) ? -ELIBBAD : 0;
    case MODE_GCM:
        if (seal->block.encrypt(seal->block.schedule, zero, h, sizeof h))
            return -ELIBBAD;
        error = ghash_new((struct ghash *)seal->schedule, h, seal->cpu);
        explicit_bzero(h, sizeof h);
        return error;
    case MODE_XOR:
        xor_expand((uint8_t *)seal->schedule, seal->key, seal->key_length);
        return 0;
    case MODE_SALSA20:
        error = library_salsa20(seal->key, zero, h, 0);
        return error > 0 ? -ELIBBAD : error;
    default:
        return 0;
    }
}

int seal_new_on(struct seal **out, int kind, const uint8_t *key, size_t key_length, unsigned int cpu)
{
    *out = NULL;
    if (kind < 0 || kind >= SEAL_KINDS || key_length != kinds[kind].key_length)
        return -EINVAL;

    size_t size = sizeof(struct seal) + kinds[kind].schedule;
    struct seal *seal = calloc(1, size);
    if (!seal)
        return -ENOMEM;
    seal->size = size;
    seal->kind = kind;
    seal->mode = kinds[kind].mode;
    seal->cpu = cpu;
    seal->front = seal->mode == MODE_NULL ? 0 : seal->mode == MODE_GCM ? GCM_NONCE : CRYPTO_HEADER;
    seal->back = seal->mode == MODE_GCM ? GCM_TAG : 0;
    seal->key_length = key_length;
    if (key_length)
        memcpy(seal->key, key, key_length);

    int error = prepare(seal);
    scrub_stack();
    if (!error && seal->mode != MODE_NULL)
        error = nonces_begin(&seal->nonces);
    if (error) {
        seal_free(seal);
        return error;
    }
    *out = seal;
    return 0;
}

int seal_new(struct seal **out, int kind, const uint8_t *key, size_t key_length)
{
    return seal_new_on(out, kind, key, key_length, seal_cpu());
}

void seal_free(struct seal *seal)
{
    if (!seal)
        return;
    if (seal->mode == MODE_GCM)
        ghash_clear((struct ghash *)seal->schedule);
    if (seal->keyed)
        library_cipher_free(&seal->block, seal->key, seal->key_length);
    explicit_bzero(seal, seal->size);
    free(seal);
    scrub_stack();
}

int seal_key_length(int kind)
{
    return kind < 0 || kind >= SEAL_KINDS ? -EINVAL : (int)kinds[kind].key_length;
}

int seal_overhead(int kind)
{
    if (kind < 0 || kind >= SEAL_KINDS)
        return -EINVAL;
    switch (kinds[kind].mode) {
    case MODE_NULL:
        return 0;
    case MODE_GCM:
        return GCM_NONCE + GCM_TAG;
    default:
        return CRYPTO_HEADER;
    }
}

size_t seal_front(const struct seal *seal)
{
    return seal->front;
}

size_t seal_back(const struct seal *seal)
{
    return seal->back;
}

static uint32_t checksum(const struct seal *seal, const uint8_t *packet, size_t length)
{
    const uint8_t *payload = packet + CRYPTO_HEADER;
    length -= CRYPTO_HEADER;
    return seal->cpu & SEAL_CPU_MULTIPLY ? crc32_ieee(payload, length) : crc32_ieee_portable(payload, length);
}

/* Encrypts datagrams whose headers are complete. */
static int encrypt(struct seal *seal, uint8_t *const *packets, size_t *lengths, size_t count)
{
    const struct ghash *ghash = (const struct ghash *)seal->schedule;

    if (seal->mode == MODE_CFB)
        return cfb_encrypt(&seal->block, seal->first, packets, lengths, count);
    for (size_t i = 0; i < count; i++) {
        uint8_t *packet = packets[i];
        int failure = 0;
        switch (seal->mode) {
        case MODE_XOR:
            xor_apply((const uint8_t *)seal->schedule, packet, lengths[i]);
            break;
        case MODE_SALSA20:
            failure = library_salsa20(seal->key, packet, packet + SALSA20_NONCE, lengths[i] - SALSA20_NONCE);
            break;
        case MODE_GCM:
            failure = gcm_encrypt(&seal->block, ghash, packet, lengths[i] - GCM_NONCE);
            lengths[i] += GCM_TAG;
            break;
        default:
            break;
        }
        if (failure)
            return failure;
    }
    return 0;
}

static int check_lengths(const struct seal *seal, const size_t *lengths, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (lengths[i] < seal->front)
            return -EINVAL;
    }
    return 0;
}

int seal_packets_as_is(struct seal *seal, uint8_t *const *packets, size_t *lengths, size_t count)
{
    if (check_lengths(seal, lengths, count))
        return -EINVAL;
    if (seal->front == CRYPTO_HEADER) {
        for (size_t i = 0; i < count; i++)
            store_le32(packets[i] + NONCE, checksum(seal, packets[i], lengths[i]));
    }
    if (encrypt(seal, packets, lengths, count) == 0)
        return 0;
    /* Some may still be in clear, or all under a key stream that is not one. */
    for (size_t i = 0; i < count; i++)
        memset(packets[i], 0, lengths[i]);
    return -EIO;
}

int seal_packets(struct seal *seal, uint8_t *const *packets, size_t *lengths, size_t count)
{
    size_t nonce = seal->mode == MODE_GCM ? GCM_NONCE : NONCE;
    if (check_lengths(seal, lengths, count))
        return -EINVAL;
    if (seal->mode != MODE_NULL) {
        for (size_t i = 0; i < count; i++)
            nonces_take(&seal->nonces, packets[i], nonce);
    }
    return seal_packets_as_is(seal, packets, lengths, count);
}

int seal_open(struct seal *seal, uint8_t *packet, size_t length, uint8_t **payload, size_t *payload_length)
{
    int failure = 0;

    if (length < seal->front + seal->back)
        return -EMSGSIZE;
    *payload = packet + seal->front;
    *payload_length = length - seal->front - seal->back;
    switch (seal->mode) {
    case MODE_CFB:
        failure = cfb_decrypt(&seal->block, seal->first, packet, length);
        break;
    case MODE_XOR:
        xor_apply((const uint8_t *)seal->schedule, packet, length);
        break;
    case MODE_SALSA20:
        failure = library_salsa20(seal->key, packet, packet + SALSA20_NONCE, length - SALSA20_NONCE);
        break;
    case MODE_GCM:
        failure = gcm_decrypt(&seal->block, (const struct ghash *)seal->schedule, packet, *payload_length);
        break;
    default:
        break;
    }
    if (failure)
        return failure == -EBADMSG ? -EBADMSG : -EIO;
    /* A difference of words takes the same time wherever it lies. */
    if (seal->front == CRYPTO_HEADER && (load_le32(packet + NONCE) ^ checksum(seal, packet, length)) != 0)
        return -EBADMSG;
    return 0;
}

int seal_test_ecb(int kind, int cycles, const uint8_t *key, size_t key_length, const uint8_t *in, uint8_t *out,
                  size_t length)
{
    struct block_cipher block;
    bool foreign;

    if (kind < 0 || kind >= SEAL_KINDS || kinds[kind].mode != MODE_CFB)
        return -EINVAL;
    bool other_length = kind == SEAL_TWOFISH && (key_length == 16 || key_length == 24);
    if (key_length != kinds[kind].key_length && !other_length)
        return -EINVAL;

    void *schedule = calloc(1, kinds[kind].schedule + 1);
    if (!schedule)
        return -ENOMEM;
    int error = key_block(&block, &foreign, kind, cycles, key, key_length, schedule);
    if (!error && length % block.size)
        error = -EINVAL;
    if (!error && block.encrypt(block.schedule, in, out, length))
        error = -EIO;
    if (foreign)
        library_cipher_free(&block, key, key_length);
    free(schedule);
    return error;
}

void seal_test_chacha20(const uint8_t *key, uint32_t counter, uint8_t *out)
{
    nonces_chacha20(key, counter, out);
}

uint32_t seal_test_crc32(const uint8_t *data, size_t length, int portable)
{
    return portable ? crc32_ieee_portable(data, length) : crc32_ieee(data, length);
}

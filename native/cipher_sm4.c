#include <pthread.h>

#include "cipher_block.h"
#include "cipher_bytes.h"

/* The S-box is S(x) = A(1 / A(x)), the inverse in GF(2^8) modulo x^8+x^7+x^6+x^5+x^4+x^2+1 and A the affine map of a
 * circulant bit matrix and the constant 0xD3: computing it leaves no table of 256 bytes to mistype. */
#define FIELD 0x1F5u
#define AFFINE_ROW 0xA7u
#define AFFINE_CONSTANT 0xD3u

static uint8_t box[256];
/* rounds[b]: the round function's linear part L over box[b] in the top byte; the other bytes are its rotations. */
static uint32_t rounds[256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static uint8_t multiply(uint8_t a, uint8_t b)
{
    unsigned product = 0, shifted = a;
    for (; b; b >>= 1) {
        if (b & 1)
            product ^= shifted;
        shifted <<= 1;
        if (shifted & 0x100)
            shifted ^= FIELD;
    }
    return (uint8_t)product;
}

/* a^254, which is the inverse of a, and 0 for 0. */
static uint8_t invert(uint8_t a)
{
    uint8_t result = 1, power = a;
    for (int exponent = 254; exponent; exponent >>= 1) {
        if (exponent & 1)
            result = multiply(result, power);
        power = multiply(power, power);
    }
    return result;
}

static uint8_t affine(uint8_t x)
{
    unsigned result = 0;
    for (unsigned bit = 0; bit < 8; bit++) {
        unsigned row = (AFFINE_ROW << bit | AFFINE_ROW >> (8 - bit)) & 0xff;
        result |= (unsigned)__builtin_parity(row & x) << bit;
    }
    return (uint8_t)(result ^ AFFINE_CONSTANT);
}

static void make_tables(void)
{
    for (unsigned x = 0; x < 256; x++) {
        box[x] = affine(invert(affine((uint8_t)x)));
        uint32_t b = (uint32_t)box[x] << 24;
        rounds[x] = b ^ rotate_left(b, 2) ^ rotate_left(b, 10) ^ rotate_left(b, 18) ^ rotate_left(b, 24);
    }
}

void sm4_expand(struct sm4_key *schedule, const uint8_t key[16])
{
    static const uint32_t family[4] = {0xA3B1BAC6, 0x56AA3350, 0x677D9197, 0xB27022DC}; /* FK of the standard */
    uint32_t k[4];

    pthread_once(&tables_once, make_tables);
    for (int i = 0; i < 4; i++)
        k[i] = load_be32(key + 4 * i) ^ family[i];
    for (unsigned i = 0; i < 32; i++) {
        uint32_t constant = 0; /* CK: byte j of word i is (4i + j) * 7 */
        for (unsigned j = 0; j < 4; j++)
            constant = constant << 8 | ((4 * i + j) * 7 & 0xff);
        uint32_t x = k[1] ^ k[2] ^ k[3] ^ constant;
        uint32_t b = (uint32_t)box[x >> 24] << 24 | (uint32_t)box[x >> 16 & 0xff] << 16 |
                     (uint32_t)box[x >> 8 & 0xff] << 8 | box[x & 0xff];
        uint32_t next = k[0] ^ b ^ rotate_left(b, 13) ^ rotate_left(b, 23);
        k[0] = k[1];
        k[1] = k[2];
        k[2] = k[3];
        k[3] = schedule->round[i] = next;
    }
    explicit_bzero(k, sizeof k);
}

static inline uint32_t transform(uint32_t x)
{
    return rounds[x >> 24] ^ rotate_left(rounds[x >> 16 & 0xff], 24) ^ rotate_left(rounds[x >> 8 & 0xff], 16) ^
           rotate_left(rounds[x & 0xff], 8);
}

/* `count` blocks, 1 to 4, side by side: their table look-ups overlap. */
static inline void encrypt_blocks(const struct sm4_key *key, const uint8_t *in, uint8_t *out, size_t count)
{
    uint32_t x[4][4];
    for (size_t n = 0; n < count; n++) {
        for (int i = 0; i < 4; i++)
            x[n][i] = load_be32(in + 16 * n + 4 * i);
    }
    for (int i = 0; i < 32; i += 4) {
        for (size_t n = 0; n < count; n++)
            x[n][0] ^= transform(x[n][1] ^ x[n][2] ^ x[n][3] ^ key->round[i]);
        for (size_t n = 0; n < count; n++)
            x[n][1] ^= transform(x[n][2] ^ x[n][3] ^ x[n][0] ^ key->round[i + 1]);
        for (size_t n = 0; n < count; n++)
            x[n][2] ^= transform(x[n][3] ^ x[n][0] ^ x[n][1] ^ key->round[i + 2]);
        for (size_t n = 0; n < count; n++)
            x[n][3] ^= transform(x[n][0] ^ x[n][1] ^ x[n][2] ^ key->round[i + 3]);
    }
    for (size_t n = 0; n < count; n++) {
        for (int i = 0; i < 4; i++)
            store_be32(out + 16 * n + 4 * i, x[n][3 - i]);
    }
}

int sm4_encrypt(const void *schedule, const uint8_t *in, uint8_t *out, size_t length)
{
    for (; length >= 64; in += 64, out += 64, length -= 64)
        encrypt_blocks(schedule, in, out, 4);
    for (; length >= 16; in += 16, out += 16, length -= 16)
        encrypt_blocks(schedule, in, out, 1);
    return 0;
}

#include <pthread.h>

#include "cipher_block.h"
#include "cipher_bytes.h"

#define MDS_FIELD 0x169u /* v(x) of the paper: x^8 + x^6 + x^5 + x^3 + 1 */
#define RS_FIELD 0x14Du  /* w(x): x^8 + x^6 + x^3 + x^2 + 1 */
#define RHO 0x01010101u

/* The permutations q0 and q1, made from the paper's four 4-bit tables each. */
static uint8_t q[2][256];
static pthread_once_t q_once = PTHREAD_ONCE_INIT;

static const uint8_t nibbles[2][4][16] = {
    {{0x8, 0x1, 0x7, 0xD, 0x6, 0xF, 0x3, 0x2, 0x0, 0xB, 0x5, 0x9, 0xE, 0xC, 0xA, 0x4},
     {0xE, 0xC, 0xB, 0x8, 0x1, 0x2, 0x3, 0x5, 0xF, 0x4, 0xA, 0x6, 0x7, 0x0, 0x9, 0xD},
     {0xB, 0xA, 0x5, 0xE, 0x6, 0xD, 0x9, 0x0, 0xC, 0x8, 0xF, 0x3, 0x2, 0x4, 0x7, 0x1},
     {0xD, 0x7, 0xF, 0x4, 0x1, 0x2, 0x6, 0xE, 0x9, 0xB, 0x3, 0x0, 0x8, 0x5, 0xC, 0xA}},
    {{0x2, 0x8, 0xB, 0xD, 0xF, 0x7, 0x6, 0xE, 0x3, 0x1, 0x9, 0x4, 0x0, 0xA, 0xC, 0x5},
     {0x1, 0xE, 0x2, 0xB, 0x4, 0xC, 0x3, 0x7, 0x6, 0xD, 0xA, 0x5, 0xF, 0x9, 0x0, 0x8},
     {0x4, 0xC, 0x7, 0x5, 0x1, 0x6, 0x9, 0xA, 0x0, 0xE, 0xD, 0x8, 0x2, 0xB, 0x3, 0xF},
     {0xB, 0x9, 0x5, 0x1, 0xC, 0x3, 0xD, 0xE, 0x6, 0x4, 0x7, 0xF, 0x2, 0x0, 0x8, 0xA}},
};

static const uint8_t mds[4][4] = {
    {0x01, 0xEF, 0x5B, 0x5B},
    {0x5B, 0xEF, 0xEF, 0x01},
    {0xEF, 0x5B, 0x01, 0xEF},
    {0xEF, 0x01, 0xEF, 0x5B},
};

static const uint8_t reed_solomon[4][8] = {
    {0x01, 0xA4, 0x55, 0x87, 0x5A, 0x58, 0xDB, 0x9E},
    {0xA4, 0x56, 0x82, 0xF3, 0x1E, 0xC6, 0x68, 0xE5},
    {0x02, 0xA1, 0xFC, 0xC1, 0x47, 0xAE, 0x3D, 0x19},
    {0xA4, 0x55, 0x87, 0x5A, 0x58, 0xDB, 0x9E, 0x03},
};

/* Which of q0 and q1 byte column i goes through, from the step nearest the MDS matrix (0) outwards to the one that only
 * a 256-bit key takes (4). */
static const uint8_t choice[5][4] = {
    {1, 0, 1, 0},
    {0, 0, 1, 1},
    {0, 1, 0, 1},
    {1, 1, 0, 0},
    {1, 0, 0, 1},
};

static void make_q(void)
{
    for (int which = 0; which < 2; which++) {
        for (unsigned x = 0; x < 256; x++) {
            unsigned a = x >> 4, b = x & 15;
            for (int pair = 0; pair < 4; pair += 2) {
                unsigned sum = a ^ b, other = (a ^ (b >> 1 | b << 3) ^ a << 3) & 15;
                a = nibbles[which][pair][sum];
                b = nibbles[which][pair + 1][other];
            }
            q[which][x] = (uint8_t)(b << 4 | a);
        }
    }
}

static uint8_t multiply(uint8_t a, uint8_t b, unsigned field)
{
    unsigned product = 0, shifted = a;
    for (; b; b >>= 1) {
        if (b & 1)
            product ^= shifted;
        shifted <<= 1;
        if (shifted & 0x100)
            shifted ^= field;
    }
    return (uint8_t)product;
}

/* Column i's part of h: byte `x` through the q's, mixed with byte i of each of the `k` words of `list`, then times
 * column i of the MDS matrix. */
static uint32_t h_column(int i, uint8_t x, const uint8_t list[4][4], int k)
{
    for (int step = k; step > 0; step--)
        x = q[choice[step][i]][x] ^ list[step - 1][i];
    x = q[choice[0][i]][x];

    uint32_t column = 0;
    for (int row = 0; row < 4; row++)
        column |= (uint32_t)multiply(mds[row][i], x, MDS_FIELD) << (8 * row);
    return column;
}

static uint32_t h(uint32_t x, const uint8_t list[4][4], int k)
{
    uint32_t result = 0;
    for (int i = 0; i < 4; i++)
        result ^= h_column(i, (uint8_t)(x >> (8 * i)), list, k);
    return result;
}

void twofish_expand(struct twofish_key *schedule, const uint8_t *key, size_t key_length)
{
    int k = (int)(key_length / 8);
    uint8_t even[4][4], odd[4][4], s[4][4]; /* Me, Mo and S of the paper */

    pthread_once(&q_once, make_q);
    for (int i = 0; i < k; i++) {
        memcpy(even[i], key + 8 * i, 4);
        memcpy(odd[i], key + 8 * i + 4, 4);
        for (int row = 0; row < 4; row++) {
            uint8_t sum = 0;
            for (int column = 0; column < 8; column++)
                sum ^= multiply(reed_solomon[row][column], key[8 * i + column], RS_FIELD);
            s[k - 1 - i][row] = sum; /* S lists its words in reverse order */
        }
    }
    for (uint32_t i = 0; i < 20; i++) {
        uint32_t a = h(2 * i * RHO, even, k), b = rotate_left(h((2 * i + 1) * RHO, odd, k), 8);
        schedule->sub[2 * i] = a + b;
        schedule->sub[2 * i + 1] = rotate_left(a + 2 * b, 9);
    }
    for (int i = 0; i < 4; i++) {
        for (unsigned x = 0; x < 256; x++)
            schedule->box[i][x] = h_column(i, (uint8_t)x, s, k);
    }
    explicit_bzero(even, sizeof even);
    explicit_bzero(odd, sizeof odd);
    explicit_bzero(s, sizeof s);
}

static inline uint32_t g0(const struct twofish_key *key, uint32_t x)
{
    return key->box[0][x & 0xff] ^ key->box[1][x >> 8 & 0xff] ^ key->box[2][x >> 16 & 0xff] ^ key->box[3][x >> 24];
}

/* g of x rotated left by 8 */
static inline uint32_t g1(const struct twofish_key *key, uint32_t x)
{
    return key->box[1][x & 0xff] ^ key->box[2][x >> 8 & 0xff] ^ key->box[3][x >> 16 & 0xff] ^ key->box[0][x >> 24];
}

/* One round: c and d take in what a and b make. */
static inline void one_round(const struct twofish_key *key, const uint32_t *sub, uint32_t a, uint32_t b, uint32_t *c,
                             uint32_t *d)
{
    uint32_t t0 = g0(key, a), t1 = g1(key, b);
    *c = rotate_left(*c ^ (t0 + t1 + sub[0]), 31);
    *d = rotate_left(*d, 1) ^ (t0 + 2 * t1 + sub[1]);
}

/* `count` blocks, 1 or 2, side by side: their table look-ups overlap. */
static inline void encrypt_blocks(const struct twofish_key *key, const uint8_t *in, uint8_t *out, size_t count)
{
    uint32_t x[2][4];
    for (size_t n = 0; n < count; n++) {
        for (int i = 0; i < 4; i++)
            x[n][i] = load_le32(in + 16 * n + 4 * i) ^ key->sub[i];
    }
    for (int round = 0; round < 16; round += 2) {
        const uint32_t *sub = key->sub + 8 + 2 * round;
        for (size_t n = 0; n < count; n++)
            one_round(key, sub, x[n][0], x[n][1], &x[n][2], &x[n][3]);
        for (size_t n = 0; n < count; n++)
            one_round(key, sub + 2, x[n][2], x[n][3], &x[n][0], &x[n][1]);
    }
    for (size_t n = 0; n < count; n++) {
        for (int i = 0; i < 4; i++)
            store_le32(out + 16 * n + 4 * i, x[n][(i + 2) & 3] ^ key->sub[4 + i]);
    }
}

int twofish_encrypt(const void *schedule, const uint8_t *in, uint8_t *out, size_t length)
{
    for (; length >= 32; in += 32, out += 32, length -= 32)
        encrypt_blocks(schedule, in, out, 2);
    if (length >= 16)
        encrypt_blocks(schedule, in, out, 1);
    return 0;
}

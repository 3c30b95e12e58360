#include "cipher_block.h"
#include "cipher_bytes.h"

#define DELTA 0x9E3779B9u /* 2^32 / golden ratio, both ciphers' round constant */

/* Blocks worked on side by side: one block's rounds wait on each other, several fill the processor's vector units. */
#define LANES 8
#define FEW 3 /* blocks up to which one after the other is faster */
typedef uint32_t lanes __attribute__((vector_size(4 * LANES)));

/* The left and right words of up to LANES blocks; lanes beyond `count` repeat the last block. */
static void gather(const uint8_t *in, size_t count, lanes *left, lanes *right)
{
    for (size_t i = 0; i < LANES; i++) {
        const uint8_t *block = in + 8 * (i < count ? i : count - 1);
        (*left)[i] = load_be32(block);
        (*right)[i] = load_be32(block + 4);
    }
}

static void scatter(uint8_t *out, size_t count, const lanes *left, const lanes *right)
{
    for (size_t i = 0; i < count; i++) {
        store_be32(out + 8 * i, (*left)[i]);
        store_be32(out + 8 * i + 4, (*right)[i]);
    }
}

/* One cycle of each cipher, on words or on lanes of them. */
#define TEA_CYCLE(left, right, sum, key)                                                              \
    do {                                                                                              \
        (left) += (((right) << 4) + (key)[0]) ^ ((right) + (sum)) ^ (((right) >> 5) + (key)[1]);      \
        (right) += (((left) << 4) + (key)[2]) ^ ((left) + (sum)) ^ (((left) >> 5) + (key)[3]);        \
    } while (0)
#define XTEA_CYCLE(left, right, first, second)                             \
    do {                                                                   \
        (left) += ((((right) << 4) ^ ((right) >> 5)) + (right)) ^ (first);   \
        (right) += ((((left) << 4) ^ ((left) >> 5)) + (left)) ^ (second);    \
    } while (0)

static size_t next_count(size_t length)
{
    return length / 8 < LANES ? length / 8 : LANES;
}

void tea_expand(struct tea_key *schedule, const uint8_t key[16], int cycles)
{
    for (int i = 0; i < 4; i++)
        schedule->word[i] = load_be32(key + 4 * i);
    schedule->cycles = cycles;
}

int tea_encrypt(const void *schedule, const uint8_t *in, uint8_t *out, size_t length)
{
    const struct tea_key *key = schedule;
    for (; length >= 8 && length <= 8 * FEW; in += 8, out += 8, length -= 8) {
        uint32_t left = load_be32(in), right = load_be32(in + 4), sum = 0;
        for (int cycle = 0; cycle < key->cycles; cycle++) {
            sum += DELTA;
            TEA_CYCLE(left, right, sum, key->word);
        }
        store_be32(out, left);
        store_be32(out + 4, right);
    }
    for (size_t count; length >= 8; in += 8 * count, out += 8 * count, length -= 8 * count) {
        lanes left, right;
        uint32_t sum = 0;
        count = next_count(length);
        gather(in, count, &left, &right);
        for (int cycle = 0; cycle < key->cycles; cycle++) {
            sum += DELTA;
            TEA_CYCLE(left, right, sum, key->word);
        }
        scatter(out, count, &left, &right);
    }
    return 0;
}

void xtea_expand(struct xtea_key *schedule, const uint8_t key[16])
{
    uint32_t word[4], sum = 0;
    for (int i = 0; i < 4; i++)
        word[i] = load_be32(key + 4 * i);
    for (int cycle = 0; cycle < 32; cycle++) {
        schedule->first[cycle] = sum + word[sum & 3];
        sum += DELTA;
        schedule->second[cycle] = sum + word[sum >> 11 & 3];
    }
    explicit_bzero(word, sizeof word);
}

int xtea_encrypt(const void *schedule, const uint8_t *in, uint8_t *out, size_t length)
{
    const struct xtea_key *key = schedule;
    for (; length >= 8 && length <= 8 * FEW; in += 8, out += 8, length -= 8) {
        uint32_t left = load_be32(in), right = load_be32(in + 4);
        for (int cycle = 0; cycle < 32; cycle++)
            XTEA_CYCLE(left, right, key->first[cycle], key->second[cycle]);
        store_be32(out, left);
        store_be32(out + 4, right);
    }
    for (size_t count; length >= 8; in += 8 * count, out += 8 * count, length -= 8 * count) {
        lanes left, right;
        count = next_count(length);
        gather(in, count, &left, &right);
        for (int cycle = 0; cycle < 32; cycle++) {
            XTEA_CYCLE(left, right, key->first[cycle], key->second[cycle]);
        }
        scatter(out, count, &left, &right);
    }
    return 0;
}

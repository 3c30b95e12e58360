#include "cipher_xor.h"

#include "cipher_bytes.h"

#define SHA1_DIGEST 20
#define SHA1_BLOCK 64
#define ROUNDS 32

static const char salt[] = "sH3CIVoF#rWLtJo6";

/* SHA-1 (FIPS 180-4): takes one block into the state. */
static void sha1_block(uint32_t state[5], const uint8_t block[SHA1_BLOCK])
{
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int t = 0; t < 16; t++)
        w[t] = load_be32(block + 4 * t);
    for (int t = 16; t < 80; t++)
        w[t] = rotate_left(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    for (int t = 0; t < 80; t++) {
        uint32_t f = t < 20   ? ((b & c) | (~b & d)) + 0x5A827999
                     : t < 40 ? (b ^ c ^ d) + 0x6ED9EBA1
                     : t < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDC
                              : (b ^ c ^ d) + 0xCA62C1D6;
        uint32_t next = rotate_left(a, 5) + f + e + w[t];
        e = d;
        d = c;
        c = rotate_left(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    explicit_bzero(w, sizeof w);
}

/* HMAC's state after the key's block, xored with `pad` (RFC 2104): the two states that every HMAC begins from. */
static void hmac_begin(uint32_t state[5], const uint8_t *key, size_t key_length, uint8_t pad)
{
    static const uint32_t initial[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t block[SHA1_BLOCK];
    memset(block, pad, sizeof block);
    for (size_t i = 0; i < key_length; i++)
        block[i] ^= key[i];
    memcpy(state, initial, sizeof initial);
    sha1_block(state, block);
    explicit_bzero(block, sizeof block);
}

/* The digest of the block behind `state` and then `length` bytes, fewer than 56. */
static void sha1_end(const uint32_t begin[5], const uint8_t *data, size_t length, uint8_t digest[SHA1_DIGEST])
{
    uint32_t state[5];
    uint8_t block[SHA1_BLOCK] = {0};
    memcpy(state, begin, sizeof state);
    memcpy(block, data, length);
    block[length] = 0x80;
    store_be32(block + 60, (uint32_t)(SHA1_BLOCK + length) * 8);
    sha1_block(state, block);
    for (int i = 0; i < 5; i++)
        store_be32(digest + 4 * i, state[i]);
    explicit_bzero(state, sizeof state);
    explicit_bzero(block, sizeof block);
}

void xor_expand(uint8_t table[XOR_TABLE], const uint8_t *key, size_t key_length)
{
    uint32_t inner[5], outer[5];
    uint8_t u[SHA1_DIGEST], sum[SHA1_DIGEST];

    hmac_begin(inner, key, key_length, 0x36);
    hmac_begin(outer, key, key_length, 0x5c);
    for (uint32_t index = 1, at = 0; at < XOR_TABLE; index++, at += SHA1_DIGEST) { /* 1500 = 75 digests */
        uint8_t seed[sizeof salt - 1 + 4];
        memcpy(seed, salt, sizeof salt - 1);
        store_be32(seed + sizeof salt - 1, index);
        sha1_end(inner, seed, sizeof seed, u);
        sha1_end(outer, u, sizeof u, u);
        memcpy(sum, u, sizeof u);
        for (int round = 1; round < ROUNDS; round++) {
            sha1_end(inner, u, sizeof u, u);
            sha1_end(outer, u, sizeof u, u);
            for (int i = 0; i < SHA1_DIGEST; i++)
                sum[i] ^= u[i];
        }
        memcpy(table + at, sum, SHA1_DIGEST);
    }
    explicit_bzero(inner, sizeof inner);
    explicit_bzero(outer, sizeof outer);
    explicit_bzero(u, sizeof u);
    explicit_bzero(sum, sizeof sum);
}

void xor_apply(const uint8_t table[XOR_TABLE], uint8_t *packet, size_t length)
{
    xor_bytes(packet, table, length < XOR_TABLE ? length : XOR_TABLE);
}

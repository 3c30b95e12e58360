/* Block ciphers that pycryptodome does not have: TEA, XTEA, SM4 and Twofish; and what every block cipher looks like to
 * the modes of operation. Only encryption is here, since CFB and CTR need no more. */
#ifndef KCPSOCKET_CIPHER_BLOCK_H
#define KCPSOCKET_CIPHER_BLOCK_H

#include <stddef.h>
#include <stdint.h>

/* A keyed block cipher. The function has pycryptodome's own signature, so that its ciphers are called directly. */
struct block_cipher {
    /* Encrypts `length` bytes, whole blocks, each for itself (ECB). `in` and `out` are the same or don't overlap.
     * Anything but 0 is a failure. */
    int (*encrypt)(const void *schedule, const uint8_t *in, uint8_t *out, size_t length);
    const void *schedule; /* the expanded key */
    size_t size;          /* bytes of a block: 8 or 16 */
};

/* TEA (Wheeler and Needham, 1994), words big-endian. Its 16-byte key needs no expansion. */
struct tea_key {
    uint32_t word[4]; /* of the key */
    int cycles;       /* of two rounds each; the published cipher has 32, kcp-go uses 8 */
};
void tea_expand(struct tea_key *schedule, const uint8_t key[16], int cycles);
int tea_encrypt(const void *schedule, const uint8_t *in, uint8_t *out, size_t length);

/* XTEA (Needham and Wheeler, 1997), 32 cycles, words big-endian. */
struct xtea_key {
    uint32_t first[32], second[32]; /* what the two rounds of each cycle add: sum + key word */
};
void xtea_expand(struct xtea_key *schedule, const uint8_t key[16]);
int xtea_encrypt(const void *schedule, const uint8_t *in, uint8_t *out, size_t length);

/* SM4 (GB/T 32907-2016). */
struct sm4_key {
    uint32_t round[32]; /* round keys */
};
void sm4_expand(struct sm4_key *schedule, const uint8_t key[16]);
int sm4_encrypt(const void *schedule, const uint8_t *in, uint8_t *out, size_t length);

/* Twofish (Schneier et al., 1998). `key_length` is 16, 24 or 32 bytes. */
struct twofish_key {
    uint32_t sub[40];     /* whitening and round subkeys */
    uint32_t box[4][256]; /* the key-dependent S-boxes with the MDS matrix multiplied in */
};
void twofish_expand(struct twofish_key *schedule, const uint8_t *key, size_t key_length);
int twofish_encrypt(const void *schedule, const uint8_t *in, uint8_t *out, size_t length);

#endif

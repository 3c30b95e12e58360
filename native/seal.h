/* Sealing and opening datagrams: the crypto header of kcp-go (nonce, checksum) and its ciphers.
 *
 * A datagram with a cipher is `front` bytes of header, the payload, and `back` bytes of trailer. The caller leaves room
 * for both; everything happens in place. Nothing here blocks or takes a lock.
 *
 *   null          nothing at all
 *   none          nonce(16) crc32(4) payload, in clear
 *   aes-128-gcm   nonce(12) ciphertext tag(16)
 *   all others    nonce(16) crc32(4) payload, all of it encrypted (salsa20 leaves the first 8 bytes in clear)
 *
 * Errors are negative errnos. */
#ifndef KCPSOCKET_SEAL_H
#define KCPSOCKET_SEAL_H

#include <stddef.h>
#include <stdint.h>

enum seal_kind {
    SEAL_NULL = 0,
    SEAL_NONE = 1,
    SEAL_AES = 2, /* 256 bits of key; this one and the next eight take CFB */
    SEAL_AES_128 = 3,
    SEAL_AES_192 = 4,
    SEAL_BLOWFISH = 5,
    SEAL_TWOFISH = 6,
    SEAL_CAST5 = 7,
    SEAL_3DES = 8,
    SEAL_TEA = 9,
    SEAL_XTEA = 10,
    SEAL_SM4 = 11,
    SEAL_SALSA20 = 12,
    SEAL_XOR = 13,
    SEAL_AES_128_GCM = 14,
    SEAL_KINDS = 15,
};

/* --- the library: pycryptodome's C functions --- */

/* A block cipher's functions; their addresses, or NULL where the library lacks it. */
struct seal_library_cipher {
    void *start; /* int (const uint8_t *key, size_t key_length, void **state) */
    void *stop;  /* int (void *state) */
};

struct seal_library {
    struct seal_library_cipher aes, blowfish, cast5, des3;
    void *salsa20_init;    /* int (const uint8_t *key, size_t, const uint8_t *nonce, size_t, void **state) */
    void *salsa20_encrypt; /* int (void *state, const uint8_t *in, uint8_t *out, size_t) */
    void *salsa20_destroy; /* int (void *state) */
    void *ghash_expand;    /* int (const uint8_t h[16], void **tables) */
    void *ghash;           /* int (uint8_t out[16], const uint8_t *data, size_t, const uint8_t in[16], const void *) */
    void *ghash_destroy;   /* int (void *tables) */
};

/* Hands the functions in, once in a process: later calls change nothing. Before the first seal_new that needs them. */
void seal_use_library(const struct seal_library *library);

/* What the processor has, as bits: which of the library's modules to take, and which of our own paths. */
enum {
    SEAL_CPU_AES = 1,           /* AES instructions */
    SEAL_CPU_MULTIPLY = 2,      /* carry-less multiplication */
    SEAL_CPU_AVX2_BMI2 = 4,     /* x86: AVX2, BMI1 and BMI2 */
    SEAL_CPU_MULTIPLY_WIDE = 8, /* x86: two carry-less multiplications in one instruction */
};
unsigned int seal_cpu(void);

/* --- a cipher with its key --- */

/* For one thread at a time: sealing draws nonces from it. */
struct seal;

/* A cipher of `kind` (enum seal_kind) with a copy of the key. -EINVAL: no such kind, or not seal_key_length bytes of
 * key; -ENOSYS: the library's functions for it were not handed in; -ELIBBAD: they are there, but not the ones that we
 * know; -ENOMEM; or getrandom's error. */
int seal_new(struct seal **out, int kind, const uint8_t *key, size_t key_length);

/* The same with our own code kept to what the processor features `cpu` allow, a part of seal_cpu(): 0 gives what a
 * processor gets that is not known here. For tests. */
int seal_new_on(struct seal **out, int kind, const uint8_t *key, size_t key_length, unsigned int cpu);

/* Wipes the key and all that was made from it, the library's part included. NULL does nothing. */
void seal_free(struct seal *seal);

/* Bytes of key that `kind` takes, exactly: 0 for null and none. -EINVAL: no such kind. */
int seal_key_length(int kind);

/* Bytes that `kind` adds to a datagram, in front and behind together. -EINVAL: no such kind. */
int seal_overhead(int kind);

/* Bytes in front of and behind the payload. */
size_t seal_front(const struct seal *seal);
size_t seal_back(const struct seal *seal);

/* Seals `count` datagrams in place. packets[i] points at the room for the header; lengths[i] counts that room and the
 * payload, and grows by seal_back, for which there is room too. Many at once go much faster than one by one: encryption
 * by CFB waits on itself within a datagram.
 * 0; -EINVAL: a length below seal_front, nothing was touched; -EIO: a function of the library failed, none of the
 * datagrams may be sent (their contents are gone). */
int seal_packets(struct seal *seal, uint8_t *const *packets, size_t *lengths, size_t count);

/* The same with the nonces that already stand at the beginning of each packet. For known-answer checks: a nonce must
 * never be used twice. */
int seal_packets_as_is(struct seal *seal, uint8_t *const *packets, size_t *lengths, size_t count);

/* Opens the datagram of `length` bytes at `packet` in place; its payload is at *payload then.
 * 0; -EMSGSIZE: shorter than header and trailer; -EBADMSG: checksum or tag is wrong (tampered with, another key, not
 * for us; compared in constant time), the packet's contents are garbage then; -EIO: a function of the library failed,
 * likewise. */
int seal_open(struct seal *seal, uint8_t *packet, size_t length, uint8_t **payload, size_t *payload_length);

/* In a child after fork: every seal draws its next nonce from the system anew. Called by itself where the C library's
 * fork is used; harmless to call again. */
void seal_after_fork(void);

/* For tests against published vectors: encrypts `length` bytes, whole blocks, in ECB by the block cipher of `kind`.
 * `cycles`: of TEA (published: 32; on the wire: 8), else 0. Twofish takes keys of 16 and 24 bytes here too.
 * -EINVAL: not a block cipher, or bad lengths; else as seal_new. */
int seal_test_ecb(int kind, int cycles, const uint8_t *key, size_t key_length, const uint8_t *in, uint8_t *out,
                  size_t length);

/* For tests: 256 bytes of the nonce generator's ChaCha20, from block `counter` on, nonce 0, for a key of 32 bytes. */
void seal_test_chacha20(const uint8_t *key, uint32_t counter, uint8_t *out);

/* For tests: CRC-32 of `length` bytes, on the fast path or by tables. */
uint32_t seal_test_crc32(const uint8_t *data, size_t length, int portable);

#endif

/* Random bytes for nonces: ChaCha20 (RFC 8439) under a key from the system's generator, which is replaced by fresh
 * output with every refill (Bernstein's "fast key erasure"), so what was given out can't be computed from the state any
 * more. */
#ifndef KCPSOCKET_NONCE_H
#define KCPSOCKET_NONCE_H

#include <stddef.h>
#include <stdint.h>

#define NONCE_KEY 32   /* bytes */
#define NONCE_POOL 992 /* bytes; with the next key a refill is 16 blocks of ChaCha20 */

struct nonces {
    uint8_t key[NONCE_KEY];   /* of the next refill */
    uint8_t pool[NONCE_POOL]; /* the last refill; bytes given out are overwritten with zeros */
    size_t left;              /* bytes at the pool's end not given out yet */
    unsigned int generation;  /* fork generation that the key was drawn in */
    unsigned int refills;     /* since the system last had a part in the key */
};

/* Begins a generator. 0, or getrandom's error as a negative errno. */
int nonces_begin(struct nonces *nonces);

/* The next `length` bytes, at most NONCE_POOL. After a fork, parent and child give different ones. */
void nonces_take(struct nonces *nonces, uint8_t *out, size_t length);

/* In a child after fork: every generator takes a new key at its next use. nonces_begin sees to it that the C library's
 * fork calls it. */
void nonces_after_fork(void);

/* 256 bytes of ChaCha20's key stream, blocks `counter` to `counter` + 3 of nonce 0. */
void nonces_chacha20(const uint8_t key[NONCE_KEY], uint32_t counter, uint8_t out[256]);

#endif

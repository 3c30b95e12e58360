/* GHASH, the universal hash of GCM (NIST SP 800-38D): on the processor's carry-less multiplication where it has one
 * that is known here (x86-64), else through pycryptodome's functions. */
#ifndef KCPSOCKET_CIPHER_GHASH_H
#define KCPSOCKET_CIPHER_GHASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Blocks that share one reduction, which is what the time goes into: each waits for the one before. Even. */
#define GHASH_POWERS 16

struct ghash {
    uint64_t powers[GHASH_POWERS][2]; /* H^16 ... H^1 in the form that the multiplication wants; own path only */
    bool wide;                        /* own path: two multiplications go in one instruction */
    void *tables;                     /* pycryptodome's expansion of H, or NULL on our own path */
};

/* Prepares for the key H. `cpu`: what of the processor may be used, SEAL_CPU_* bits.
 * 0; -ENOSYS: pycryptodome's functions are needed and not there; -ENOMEM. */
int ghash_new(struct ghash *ghash, const uint8_t h[16], unsigned int cpu);

/* Wipes it and frees what it holds. */
void ghash_clear(struct ghash *ghash);

/* Takes `length` bytes, whole blocks, into the state `y`. Anything but 0 is a failure. */
int ghash_update(const struct ghash *ghash, uint8_t y[16], const uint8_t *data, size_t length);

#endif

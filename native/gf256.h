/* Arithmetic in GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11D), where 2 generates the multiplicative
 * group.
 *
 * What makes Reed-Solomon fast is one operation, the product of a small matrix and a column of shards. It is written
 * once (gf256_kernel.h) over a handful of vector operations, compiled for each instruction set, and chosen at run
 * time. */
#ifndef KCPSOCKET_GF256_H
#define KCPSOCKET_GF256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* out[o] = sum over i of matrix[o * ins + i] * in[i], over `n` bytes of each. Nothing needs alignment; no out may
 * overlap an in or another out, and exactly `n` bytes of each are touched. */
typedef void gf256_product(const uint8_t *matrix, size_t ins, size_t outs, const uint8_t *const *in,
                           uint8_t *const *out, size_t n);

struct gf256_kernel {
    const char *name;
    bool (*usable)(void);   /* whether this processor can run it */
    gf256_product *product;
};

/* The tables that multiply by a constant c, each made for one way of doing it. */
struct gf256_tables {
    uint8_t log[256];        /* log[0] means nothing */
    uint8_t exp[765];        /* three times the period, so that the sum of three logs needs no reduction */
    uint8_t nibbles[256][32]; /* c times 0..15, then c times 0x00, 0x10..0xf0: for byte shuffles */
    uint64_t affine[256];    /* c as a matrix of bits: for GFNI's affine instruction, which takes any polynomial */
    uint8_t planes[256][8];  /* c times 2^i: for the portable kernel, which goes bit by bit */
};

/* The tables, made at the first call; any thread may call it. */
const struct gf256_tables *gf256_tables(void);

/* Kernels of the processor's family, fastest first and ended by a NULL name; whether one is usable is to be asked. */
extern const struct gf256_kernel gf256_x86_kernels[];
extern const struct gf256_kernel gf256_arm_kernels[];

/* The kernel that needs nothing but 64-bit integers. */
extern const struct gf256_kernel gf256_portable;

#endif

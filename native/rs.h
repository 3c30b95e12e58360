/* Reed-Solomon erasure code over GF(2^8), shard for shard what kcp-go's codec makes.
 *
 * Shard i is the value at i of the polynomial of degree below `data` whose values at 0..data-1 are the data shards (the
 * Vandermonde matrix r^c made systematic is the same thing). So the coefficients of encoding and of any reconstruction
 * are Lagrange's, in closed form: no matrix is ever inverted.
 *
 * The arithmetic is done by the fastest kernel that the processor has. On processors without a vector kernel it is done
 * by zfec's C functions, once Python has handed them over, and else by a portable kernel. */
#ifndef KCPSOCKET_RS_H
#define KCPSOCKET_RS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RS_SHARDS_MAX = 255, /* data and parity together */
    RS_EINVAL = -1,      /* not enough shards */
};

/* A code for `data` + `parity` shards, immutable. */
struct rs;

/* True when both counts are at least 1 and their sum at most RS_SHARDS_MAX. */
bool rs_valid(int data, int parity);

/* A code of the caller's own; NULL when the counts are not valid or memory is out. O(data * (data + parity)). It keeps
 * to the kernel that was in use when it was made. Any thread may call it. */
struct rs *rs_new(int data, int parity);
void rs_free(struct rs *rs);

/* The same, shared by all who ask for these counts, until the last one gives it back. Under the engine's lock. */
struct rs *rs_get(int data, int parity);
void rs_put(struct rs *rs);

int rs_data(const struct rs *rs);
int rs_parity(const struct rs *rs);

/* Computes the parity shards of the data shards, all of `n` bytes. Shards need no alignment; none may overlap. */
void rs_encode(const struct rs *rs, const uint8_t *const *data, uint8_t *const *parity, size_t n);

/* Computes the data shards that are missing. `shards` has all data + parity places: what is `present` is read, data
 * places that are not are written, parity places that are not may be anything. RS_EINVAL, and nothing written, when
 * fewer than `data` are present. */
int rs_reconstruct(const struct rs *rs, uint8_t *const *shards, const bool *present, size_t n);

/* The row of coefficients, one for each data shard, by which parity shard `index` is made. */
const uint8_t *rs_row(const struct rs *rs, int index);

/* Kernels by number, from 0, fastest first; NULL after the last. A kernel that this processor lacks (or zfec, when it
 * was not handed over) is listed and not usable. */
const char *rs_kernel_name(int kernel);
bool rs_kernel_usable(int kernel);

/* The kernel in use for codes made from now on. */
int rs_kernel(void);

/* True when that is one that uses the processor's vectors: zfec is not needed then. */
bool rs_vectorised(void);

/* For tests and benchmarks: use `kernel` from now on; -1 goes back to the fastest. RS_EINVAL when it is not usable. */
int rs_choose_kernel(int kernel);

/* What rs_use_zfec may answer. */
enum {
    RS_ZFEC_ENCODES = -2, /* its fec_encode computes other parity than it should */
    RS_ZFEC_DECODES = -3, /* its fec_decode does not bring back what was encoded */
    RS_ZFEC_LAYOUT = -4,  /* its fec_t is not the structure that it used to be, or fec_new failed */
};

/* Takes over zfec's functions fec_new, fec_free, fec_encode and fec_decode after a known-answer check: 0, or one of the
 * above and nothing taken over. Once, before codes are made that should use it. */
int rs_use_zfec(void *fec_new, void *fec_free, void *fec_encode, void *fec_decode);

#endif

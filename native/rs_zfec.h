/* zfec's C functions as a way to compute Reed-Solomon shards.
 *
 * zfec works in the same field but evaluates at other points. It reads its matrix from the public structure fec_t, so a
 * matrix of ours in that place makes it compute our code. */
#ifndef KCPSOCKET_RS_ZFEC_H
#define KCPSOCKET_RS_ZFEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A code of zfec's with a matrix of ours. */
struct rs_zfec;

/* As rs_use_zfec. */
int rs_zfec_adopt(void *fec_new, void *fec_free, void *fec_encode, void *fec_decode);

/* True once rs_zfec_adopt has succeeded. */
bool rs_zfec_ready(void);

/* `matrix`: `parity` rows of `data` coefficients. NULL when zfec can't. */
struct rs_zfec *rs_zfec_new(int data, int parity, const uint8_t *matrix);
void rs_zfec_free(struct rs_zfec *zfec);

void rs_zfec_encode(const struct rs_zfec *zfec, const uint8_t *const *data, uint8_t *const *parity, size_t n);

/* At least `data` shards are present. */
void rs_zfec_reconstruct(const struct rs_zfec *zfec, uint8_t *const *shards, const bool *present, size_t n);

#endif

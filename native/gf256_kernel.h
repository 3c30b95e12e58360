/* The matrix product of gf256.h, for whatever vectors the including file defines; included once for each of them, so
 * there is no guard. It wants:
 *
 *   KERNEL            name of the function it makes
 *   KERNEL_TARGET     attribute that names the instruction set, or nothing
 *   KERNEL_WIDTH      bytes of a vector
 *   KERNEL_UNROLL     vectors of one shard that are worked on together
 *   KERNEL_TABLE      its member of struct gf256_tables
 *   kernel_vector     type of a vector
 *   kernel_factor     type of a constant factor, ready for use
 *   KERNEL_LOAD(p), KERNEL_STORE(p, v), KERNEL_ZERO(), KERNEL_ADD(a, b), KERNEL_FACTOR(table entry),
 *   KERNEL_MUL(v, factor)
 *   KERNEL_SHORT      the gf256_product for shards of fewer than KERNEL_WIDTH bytes
 *
 * Sums stay in registers (which is what the unrolling is for): an input is read once for up to four outputs, and an
 * output written once. */

#define KERNEL_JOIN_(a, b) a##b
#define KERNEL_JOIN(a, b) KERNEL_JOIN_(a, b)
#define KERNEL_COLUMN KERNEL_JOIN(KERNEL, _column)
#define KERNEL_ROWS KERNEL_JOIN(KERNEL, _rows)

/* `vectors` vectors at offset `at` of up to four outputs. The counts are constants where it is inlined. */
KERNEL_TARGET static inline __attribute__((always_inline)) void
KERNEL_COLUMN(const struct gf256_tables *tables, const uint8_t *matrix, size_t ins, size_t outs,
              const uint8_t *const *in, uint8_t *const *out, size_t at, size_t vectors)
{
    kernel_vector sum[4][KERNEL_UNROLL];

#pragma GCC unroll 4
    for (size_t o = 0; o < outs; o++) {
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            sum[o][v] = KERNEL_ZERO();
        }
    }
    for (size_t i = 0; i < ins; i++) {
        kernel_vector shard[KERNEL_UNROLL];

#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            shard[v] = KERNEL_LOAD(in[i] + at + v * KERNEL_WIDTH);
        }
#pragma GCC unroll 4
        for (size_t o = 0; o < outs; o++) {
            kernel_factor factor = KERNEL_FACTOR(tables->KERNEL_TABLE[matrix[o * ins + i]]);

#pragma GCC unroll 4
            for (size_t v = 0; v < vectors; v++) {
                sum[o][v] = KERNEL_ADD(sum[o][v], KERNEL_MUL(shard[v], factor));
            }
        }
    }
#pragma GCC unroll 4
    for (size_t o = 0; o < outs; o++) {
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            KERNEL_STORE(out[o] + at + v * KERNEL_WIDTH, sum[o][v]);
        }
    }
}

/* All of up to four outputs. */
KERNEL_TARGET static inline __attribute__((always_inline)) void
KERNEL_ROWS(const struct gf256_tables *tables, const uint8_t *matrix, size_t ins, size_t outs,
            const uint8_t *const *in, uint8_t *const *out, size_t n)
{
    size_t at = 0;

    for (; n - at >= KERNEL_WIDTH * KERNEL_UNROLL; at += KERNEL_WIDTH * KERNEL_UNROLL) {
        KERNEL_COLUMN(tables, matrix, ins, outs, in, out, at, KERNEL_UNROLL);
    }
    for (; n - at >= KERNEL_WIDTH; at += KERNEL_WIDTH) {
        KERNEL_COLUMN(tables, matrix, ins, outs, in, out, at, 1);
    }
    if (at < n) { /* the rest as one whole vector, which computes some bytes a second time */
        KERNEL_COLUMN(tables, matrix, ins, outs, in, out, n - KERNEL_WIDTH, 1);
    }
}

KERNEL_TARGET static void KERNEL(const uint8_t *matrix, size_t ins, size_t outs, const uint8_t *const *in,
                                 uint8_t *const *out, size_t n)
{
    const struct gf256_tables *tables = gf256_tables();

    if (n < KERNEL_WIDTH) {
        KERNEL_SHORT(matrix, ins, outs, in, out, n);
        return;
    }
    for (; outs >= 4; outs -= 4, matrix += 4 * ins, out += 4) {
        KERNEL_ROWS(tables, matrix, ins, 4, in, out, n);
    }
    if (outs == 3) {
        KERNEL_ROWS(tables, matrix, ins, 3, in, out, n);
    } else if (outs == 2) {
        KERNEL_ROWS(tables, matrix, ins, 2, in, out, n);
    } else if (outs == 1) {
        KERNEL_ROWS(tables, matrix, ins, 1, in, out, n);
    }
}

#undef KERNEL
#undef KERNEL_TARGET
#undef KERNEL_WIDTH
#undef KERNEL_UNROLL
#undef KERNEL_TABLE
#undef KERNEL_LOAD
#undef KERNEL_STORE
#undef KERNEL_ZERO
#undef KERNEL_ADD
#undef KERNEL_FACTOR
#undef KERNEL_MUL
#undef KERNEL_SHORT
#undef KERNEL_COLUMN
#undef KERNEL_ROWS
#undef KERNEL_JOIN
#undef KERNEL_JOIN_
#undef kernel_vector
#undef kernel_factor

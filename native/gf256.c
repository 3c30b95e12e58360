#include "gf256.h"

#include <pthread.h>
#include <string.h>

#define POLYNOMIAL 0x11d

static struct gf256_tables made;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint8_t multiply(unsigned a, unsigned b)
{
    return a == 0 || b == 0 ? 0 : made.exp[made.log[a] + made.log[b]];
}

/* GFNI computes bit i of a result as the parity of (byte 7 - i of the matrix AND the operand). */
static uint64_t affine(unsigned c)
{
    uint64_t matrix = 0;

    for (unsigned i = 0; i < 8; i++) {
        for (unsigned j = 0; j < 8; j++) {
            uint64_t bit = multiply(c, 1u << j) >> i & 1;

            matrix |= bit << (8 * (7 - i) + j);
        }
    }
    return matrix;
}

static void make_tables(void)
{
    unsigned power = 1;

    for (unsigned i = 0; i < 255; i++) {
        made.exp[i] = made.exp[i + 255] = made.exp[i + 510] = (uint8_t)power;
        made.log[power] = (uint8_t)i;
        power <<= 1;
        if (power & 0x100) {
            power ^= POLYNOMIAL;
        }
    }
    for (unsigned c = 0; c < 256; c++) {
        for (unsigned i = 0; i < 16; i++) {
            made.nibbles[c][i] = multiply(c, i);
            made.nibbles[c][16 + i] = multiply(c, i << 4);
        }
        for (unsigned i = 0; i < 8; i++) {
            made.planes[c][i] = multiply(c, 1u << i);
        }
        made.affine[c] = affine(c);
    }
}

const struct gf256_tables *gf256_tables(void)
{
    pthread_once(&once, make_tables);
    return &made;
}

static void product_of_bytes(const uint8_t *matrix, size_t ins, size_t outs, const uint8_t *const *in,
                             uint8_t *const *out, size_t n)
{
    for (size_t o = 0; o < outs; o++) {
        for (size_t at = 0; at < n; at++) {
            uint8_t sum = 0;

            for (size_t i = 0; i < ins; i++) {
                sum ^= multiply(matrix[o * ins + i], in[i][at]);
            }
            out[o][at] = sum;
        }
    }
}

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t value;

    memcpy(&value, p, sizeof value);
    return value;
}

static inline void store64(uint8_t *p, uint64_t value)
{
    memcpy(p, &value, sizeof value);
}

/* Eight bytes at a time: bit i of each byte, as a byte of 0 or 1, times c * 2^i is an ordinary product without carries
 * from byte to byte. */
static inline __attribute__((always_inline)) uint64_t multiply64(uint64_t value, const uint8_t *planes)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < 8; i++) {
        sum ^= (value >> i & 0x0101010101010101u) * planes[i];
    }
    return sum;
}

#define KERNEL product_portable
#define KERNEL_TARGET
#define KERNEL_WIDTH 8
#define KERNEL_UNROLL 1
#define KERNEL_TABLE planes
#define KERNEL_LOAD load64
#define KERNEL_STORE store64
#define KERNEL_ZERO() 0
#define KERNEL_ADD(a, b) ((a) ^ (b))
#define KERNEL_FACTOR(entry) (entry)
#define KERNEL_MUL multiply64
#define KERNEL_SHORT product_of_bytes
#define kernel_vector uint64_t
#define kernel_factor const uint8_t *
#include "gf256_kernel.h"

static bool always(void)
{
    return true;
}

const struct gf256_kernel gf256_portable = {"portable", always, product_portable};

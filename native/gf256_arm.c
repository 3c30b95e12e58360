#include "gf256.h"

#if defined(__aarch64__)

#include <arm_neon.h>

static void product_short(const uint8_t *matrix, size_t ins, size_t outs, const uint8_t *const *in, uint8_t *const *out,
                          size_t n)
{
    gf256_portable.product(matrix, ins, outs, in, out, n);
}

struct nibbles {
    uint8x16_t low, high; /* products of the low and of the high nibble */
};

static inline __attribute__((always_inline)) struct nibbles nibbles(const uint8_t *entry)
{
    struct nibbles factor = {vld1q_u8(entry), vld1q_u8(entry + 16)};

    return factor;
}

static inline __attribute__((always_inline)) uint8x16_t multiply(uint8x16_t value, struct nibbles factor)
{
    uint8x16_t low = vandq_u8(value, vdupq_n_u8(15)), high = vshrq_n_u8(value, 4);

    return veorq_u8(vqtbl1q_u8(factor.low, low), vqtbl1q_u8(factor.high, high));
}

#define KERNEL product_neon
#define KERNEL_TARGET
#define KERNEL_WIDTH 16
#define KERNEL_UNROLL 2
#define KERNEL_TABLE nibbles
#define KERNEL_LOAD vld1q_u8
#define KERNEL_STORE vst1q_u8
#define KERNEL_ZERO() vdupq_n_u8(0)
#define KERNEL_ADD veorq_u8
#define KERNEL_FACTOR nibbles
#define KERNEL_MUL multiply
#define KERNEL_SHORT product_short
#define kernel_vector uint8x16_t
#define kernel_factor struct nibbles
#include "gf256_kernel.h"

static bool always(void)
{
    return true; /* every 64-bit ARM has it */
}

const struct gf256_kernel gf256_arm_kernels[] = {{"neon", always, product_neon}, {NULL, NULL, NULL}};

#else

const struct gf256_kernel gf256_arm_kernels[] = {{NULL, NULL, NULL}};

#endif

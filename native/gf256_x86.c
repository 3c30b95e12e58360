#include "gf256.h"

#if defined(__x86_64__)

#include <immintrin.h>

/* The kernels are compiled for processors that the rest of the program need not run on: the attributes say for which,
 * and nothing here runs before its `usable` has said yes. */
#define SSSE3 __attribute__((target("ssse3")))
#define AVX2 __attribute__((target("avx2")))
#define GFNI256 __attribute__((target("gfni,avx2")))
#define GFNI512 __attribute__((target("gfni,avx512f,avx512bw")))

static void product_short(const uint8_t *matrix, size_t ins, size_t outs, const uint8_t *const *in, uint8_t *const *out,
                          size_t n)
{
    gf256_portable.product(matrix, ins, outs, in, out, n);
}

struct nibbles128 {
    __m128i low, high; /* products of the low and of the high nibble */
};

SSSE3 static inline __attribute__((always_inline)) struct nibbles128 nibbles128(const uint8_t *entry)
{
    struct nibbles128 factor = {
        _mm_loadu_si128((const __m128i *)entry),
        _mm_loadu_si128((const __m128i *)(entry + 16)),
    };

    return factor;
}

SSSE3 static inline __attribute__((always_inline)) __m128i multiply128(__m128i value, struct nibbles128 factor)
{
    const __m128i mask = _mm_set1_epi8(15);
    __m128i low = _mm_and_si128(value, mask), high = _mm_and_si128(_mm_srli_epi64(value, 4), mask);

    return _mm_xor_si128(_mm_shuffle_epi8(factor.low, low), _mm_shuffle_epi8(factor.high, high));
}

#define KERNEL product_ssse3
#define KERNEL_TARGET SSSE3
#define KERNEL_WIDTH 16
#define KERNEL_UNROLL 2
#define KERNEL_TABLE nibbles
#define KERNEL_LOAD(p) _mm_loadu_si128((const __m128i *)(p))
#define KERNEL_STORE(p, v) _mm_storeu_si128((__m128i *)(p), v)
#define KERNEL_ZERO _mm_setzero_si128
#define KERNEL_ADD _mm_xor_si128
#define KERNEL_FACTOR nibbles128
#define KERNEL_MUL multiply128
#define KERNEL_SHORT product_short
#define kernel_vector __m128i
#define kernel_factor struct nibbles128
#include "gf256_kernel.h"

struct nibbles256 {
    __m256i low, high; /* as nibbles128, in both halves */
};

AVX2 static inline __attribute__((always_inline)) struct nibbles256 nibbles256(const uint8_t *entry)
{
    struct nibbles256 factor = {
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)entry)),
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(entry + 16))),
    };

    return factor;
}

AVX2 static inline __attribute__((always_inline)) __m256i multiply256(__m256i value, struct nibbles256 factor)
{
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i low = _mm256_and_si256(value, mask), high = _mm256_and_si256(_mm256_srli_epi64(value, 4), mask);

    return _mm256_xor_si256(_mm256_shuffle_epi8(factor.low, low), _mm256_shuffle_epi8(factor.high, high));
}

#define KERNEL product_avx2
#define KERNEL_TARGET AVX2
#define KERNEL_WIDTH 32
#define KERNEL_UNROLL 2
#define KERNEL_TABLE nibbles
#define KERNEL_LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define KERNEL_STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define KERNEL_ZERO _mm256_setzero_si256
#define KERNEL_ADD _mm256_xor_si256
#define KERNEL_FACTOR nibbles256
#define KERNEL_MUL multiply256
#define KERNEL_SHORT product_short
#define kernel_vector __m256i
#define kernel_factor struct nibbles256
#include "gf256_kernel.h"

#define KERNEL product_gfni256
#define KERNEL_TARGET GFNI256
#define KERNEL_WIDTH 32
#define KERNEL_UNROLL 2
#define KERNEL_TABLE affine
#define KERNEL_LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define KERNEL_STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define KERNEL_ZERO _mm256_setzero_si256
#define KERNEL_ADD _mm256_xor_si256
#define KERNEL_FACTOR(entry) _mm256_set1_epi64x((long long)(entry))
#define KERNEL_MUL(v, factor) _mm256_gf2p8affine_epi64_epi8(v, factor, 0)
#define KERNEL_SHORT product_short
#define kernel_vector __m256i
#define kernel_factor __m256i
#include "gf256_kernel.h"

#define KERNEL product_gfni512
#define KERNEL_TARGET GFNI512
#define KERNEL_WIDTH 64
#define KERNEL_UNROLL 4
#define KERNEL_TABLE affine
#define KERNEL_LOAD(p) _mm512_loadu_si512(p)
#define KERNEL_STORE(p, v) _mm512_storeu_si512(p, v)
#define KERNEL_ZERO _mm512_setzero_si512
#define KERNEL_ADD _mm512_xor_si512
#define KERNEL_FACTOR(entry) _mm512_set1_epi64((long long)(entry))
#define KERNEL_MUL(v, factor) _mm512_gf2p8affine_epi64_epi8(v, factor, 0)
#define KERNEL_SHORT product_short
#define kernel_vector __m512i
#define kernel_factor __m512i
#include "gf256_kernel.h"

static bool has_gfni512(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("gfni") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}

static bool has_gfni256(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("gfni") && __builtin_cpu_supports("avx2");
}

static bool has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2");
}

static bool has_ssse3(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("ssse3");
}

const struct gf256_kernel gf256_x86_kernels[] = {
    {"gfni512", has_gfni512, product_gfni512}, {"gfni256", has_gfni256, product_gfni256},
    {"avx2", has_avx2, product_avx2},          {"ssse3", has_ssse3, product_ssse3},
    {NULL, NULL, NULL},
};

#else

const struct gf256_kernel gf256_x86_kernels[] = {{NULL, NULL, NULL}};

#endif

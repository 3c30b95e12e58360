#include "cipher_ghash.h"

#include <errno.h>
#include <string.h>

#include "cipher_library.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define OWN_PATH 1
#define TARGET __attribute__((target("pclmul,ssse3")))

/* The arithmetic is that of POLYVAL (RFC 8452, appendix A): GHASH with the bytes of each block turned around and H
 * multiplied by x, which spares the shift of every product by one bit. Reduction is Montgomery's. */

TARGET static inline __m128i turn(__m128i block)
{
    return _mm_shuffle_epi8(block, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

/* An unreduced product, or a sum of such, by Karatsuba's three multiplications: `middle` is that of the folded
 * factors. */
struct product {
    __m128i low, middle, high;
};

TARGET static inline void multiply_add(struct product *sum, __m128i a, __m128i b)
{
    sum->low = _mm_xor_si128(sum->low, _mm_clmulepi64_si128(a, b, 0x00));
    sum->high = _mm_xor_si128(sum->high, _mm_clmulepi64_si128(a, b, 0x11));
    a = _mm_xor_si128(a, _mm_shuffle_epi32(a, 0x4E));
    b = _mm_xor_si128(b, _mm_shuffle_epi32(b, 0x4E));
    sum->middle = _mm_xor_si128(sum->middle, _mm_clmulepi64_si128(a, b, 0x00));
}

TARGET static inline __m128i reduce(const struct product *sum)
{
    const __m128i field = _mm_set_epi64x(0, (long long)0xC200000000000000u);
    __m128i middle = _mm_xor_si128(sum->middle, _mm_xor_si128(sum->low, sum->high));
    __m128i low = _mm_xor_si128(sum->low, _mm_slli_si128(middle, 8));
    __m128i high = _mm_xor_si128(sum->high, _mm_srli_si128(middle, 8));
    low = _mm_xor_si128(_mm_shuffle_epi32(low, 0x4E), _mm_clmulepi64_si128(low, field, 0x00));
    low = _mm_xor_si128(_mm_shuffle_epi32(low, 0x4E), _mm_clmulepi64_si128(low, field, 0x00));
    return _mm_xor_si128(high, low);
}

TARGET static void own_expand(struct ghash *ghash, const uint8_t h[16])
{
    uint64_t word[2];
    _mm_storeu_si128((__m128i *)word, turn(_mm_loadu_si128((const __m128i *)h)));
    uint64_t carry = -(word[1] >> 63);
    uint64_t *last = ghash->powers[GHASH_POWERS - 1];
    last[1] = (word[1] << 1 | word[0] >> 63) ^ (carry & 0xC200000000000000u);
    last[0] = word[0] << 1 ^ (carry & 1);
    explicit_bzero(word, sizeof word);

    __m128i one = _mm_loadu_si128((const __m128i *)last), power = one;
    for (int i = GHASH_POWERS - 2; i >= 0; i--) {
        struct product product = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
        multiply_add(&product, power, one);
        power = reduce(&product);
        _mm_storeu_si128((__m128i *)ghash->powers[i], power);
    }
}

/* The lanes of `wide` added up. */
__attribute__((target("avx2"))) static inline __m128i halves(__m256i wide)
{
    return _mm_xor_si128(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
}

/* `count` blocks at `data`, an even number up to GHASH_POWERS, into the state, two to a register; as the loop of
 * own_update does one by one. */
__attribute__((target("avx2,vpclmulqdq,pclmul,ssse3"))) static __m128i update_wide(const struct ghash *ghash,
                                                                                  __m128i state, const uint8_t *data,
                                                                                  size_t count)
{
    const __m256i order = _mm256_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7,
                                          8, 9, 10, 11, 12, 13, 14, 15);
    __m256i low = _mm256_setzero_si256(), middle = low, high = low;
    __m256i extra = _mm256_inserti128_si256(low, state, 0);
    for (size_t i = 0; i < count; i += 2) {
        __m256i a = _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)(data + 16 * i)), order);
        __m256i b = _mm256_loadu_si256((const __m256i *)ghash->powers[GHASH_POWERS - count + i]);
        a = _mm256_xor_si256(a, extra);
        extra = _mm256_setzero_si256();
        low = _mm256_xor_si256(low, _mm256_clmulepi64_epi128(a, b, 0x00));
        high = _mm256_xor_si256(high, _mm256_clmulepi64_epi128(a, b, 0x11));
        a = _mm256_xor_si256(a, _mm256_shuffle_epi32(a, 0x4E));
        b = _mm256_xor_si256(b, _mm256_shuffle_epi32(b, 0x4E));
        middle = _mm256_xor_si256(middle, _mm256_clmulepi64_epi128(a, b, 0x00));
    }
    struct product sum = {halves(low), halves(middle), halves(high)};
    return reduce(&sum);
}

TARGET static void own_update(const struct ghash *ghash, uint8_t y[16], const uint8_t *data, size_t length)
{
    __m128i state = turn(_mm_loadu_si128((const __m128i *)y));
    size_t blocks = length / 16;
    if (ghash->wide) {
        for (; blocks >= GHASH_POWERS; blocks -= GHASH_POWERS, data += 16 * GHASH_POWERS)
            state = update_wide(ghash, state, data, GHASH_POWERS);
        size_t even = blocks & ~(size_t)1;
        if (even)
            state = update_wide(ghash, state, data, even);
        blocks -= even;
        data += 16 * even;
    }
    while (blocks) {
        /* (...((y + d1) H + d2) H ... + dn) H = (y + d1) H^n + d2 H^(n-1) + ... + dn H: one reduction for n blocks. */
        size_t now = blocks < GHASH_POWERS ? blocks : GHASH_POWERS;
        struct product sum = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
        for (size_t i = 0; i < now; i++) {
            __m128i block = turn(_mm_loadu_si128((const __m128i *)(data + 16 * i)));
            if (i == 0)
                block = _mm_xor_si128(block, state);
            multiply_add(&sum, block, _mm_loadu_si128((const __m128i *)ghash->powers[GHASH_POWERS - now + i]));
        }
        state = reduce(&sum);
        data += 16 * now;
        blocks -= now;
    }
    _mm_storeu_si128((__m128i *)y, turn(state));
}

#else

#define OWN_PATH 0

static void own_expand(struct ghash *ghash, const uint8_t h[16])
{
    (void)ghash;
    (void)h;
}

static void own_update(const struct ghash *ghash, uint8_t y[16], const uint8_t *data, size_t length)
{
    (void)ghash;
    (void)y;
    (void)data;
    (void)length;
}

#endif

int ghash_new(struct ghash *ghash, const uint8_t h[16], unsigned int cpu)
{
    memset(ghash, 0, sizeof *ghash);
    if (OWN_PATH && cpu & SEAL_CPU_MULTIPLY) {
        own_expand(ghash, h);
        ghash->wide = (cpu & SEAL_CPU_MULTIPLY_WIDE) != 0;
        return 0;
    }
    return library_ghash_new(&ghash->tables, h);
}

void ghash_clear(struct ghash *ghash)
{
    if (ghash->tables)
        library_ghash_free(ghash->tables);
    explicit_bzero(ghash, sizeof *ghash);
}

int ghash_update(const struct ghash *ghash, uint8_t y[16], const uint8_t *data, size_t length)
{
    if (ghash->tables)
        return library_ghash_update(ghash->tables, y, data, length);
    own_update(ghash, y, data, length);
    return 0;
}

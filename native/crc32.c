#include "crc32.h"

#include <pthread.h>

#include "cipher_bytes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define POLYNOMIAL 0xEDB88320u

/* slices[k][b]: the checksum of byte b followed by k zero bytes, so that eight bytes go in one step. */
static uint32_t slices[8][256];
static pthread_once_t slices_once = PTHREAD_ONCE_INIT;

static void make_slices(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        slices[0][byte] = crc;
    }
    for (int k = 1; k < 8; k++) {
        for (int byte = 0; byte < 256; byte++)
            slices[k][byte] = slices[k - 1][byte] >> 8 ^ slices[0][slices[k - 1][byte] & 0xff];
    }
}

/* Takes `data` into the register `crc`, which is neither inverted before nor after. */
static uint32_t step_tables(uint32_t crc, const uint8_t *data, size_t length)
{
    for (; length >= 8; data += 8, length -= 8) {
        uint32_t low = load_le32(data) ^ crc, high = load_le32(data + 4);
        crc = slices[7][low & 0xff] ^ slices[6][low >> 8 & 0xff] ^ slices[5][low >> 16 & 0xff] ^ slices[4][low >> 24] ^
              slices[3][high & 0xff] ^ slices[2][high >> 8 & 0xff] ^ slices[1][high >> 16 & 0xff] ^
              slices[0][high >> 24];
    }
    for (; length; data++, length--)
        crc = crc >> 8 ^ slices[0][(crc ^ *data) & 0xff];
    return crc;
}

#if defined(__x86_64__)

/* One lane moved on by the distance that `by` stands for, and the bytes found there added. */
__attribute__((target("pclmul,sse4.1"))) static inline __m128i fold(__m128i lane, __m128i by, const uint8_t *data)
{
    __m128i low = _mm_clmulepi64_si128(lane, by, 0x00), high = _mm_clmulepi64_si128(lane, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), _mm_loadu_si128((const __m128i *)data));
}

/* As step_tables, for 64 bytes at least. Four lanes of 16 bytes are folded forward over the data (Gopal et al., "Fast
 * CRC computation for generic polynomials using PCLMULQDQ", Intel 2009): the 16 bytes that are left have the same
 * remainder as everything before them, so the tables finish the work. The constants are x^n mod P, bits reflected, for
 * n = 544, 480 (64 bytes ahead) and n = 160, 96 (16 bytes ahead). */
__attribute__((target("pclmul,sse4.1"))) static uint32_t step_clmul(uint32_t crc, const uint8_t *data, size_t length)
{
    const __m128i by_64 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    const __m128i by_16 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    const __m128i *at = (const __m128i *)data;
    __m128i a = _mm_xor_si128(_mm_loadu_si128(at), _mm_cvtsi32_si128((int)crc));
    __m128i b = _mm_loadu_si128(at + 1), c = _mm_loadu_si128(at + 2), d = _mm_loadu_si128(at + 3);

    for (data += 64, length -= 64; length >= 64; data += 64, length -= 64) {
        a = fold(a, by_64, data);
        b = fold(b, by_64, data + 16);
        c = fold(c, by_64, data + 32);
        d = fold(d, by_64, data + 48);
    }

    uint8_t rest[16];
    _mm_storeu_si128((__m128i *)rest, b);
    a = fold(a, by_16, rest);
    _mm_storeu_si128((__m128i *)rest, c);
    a = fold(a, by_16, rest);
    _mm_storeu_si128((__m128i *)rest, d);
    a = fold(a, by_16, rest);
    for (; length >= 16; data += 16, length -= 16)
        a = fold(a, by_16, data);
    _mm_storeu_si128((__m128i *)rest, a);
    return step_tables(step_tables(0, rest, sizeof rest), data, length);
}

static uint32_t step(uint32_t crc, const uint8_t *data, size_t length)
{
    if (length >= 64 && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1"))
        return step_clmul(crc, data, length);
    return step_tables(crc, data, length);
}

#else

static uint32_t step(uint32_t crc, const uint8_t *data, size_t length)
{
    return step_tables(crc, data, length);
}

#endif

uint32_t crc32_ieee(const uint8_t *data, size_t length)
{
    pthread_once(&slices_once, make_slices);
    return ~step(~0u, data, length);
}

uint32_t crc32_ieee_portable(const uint8_t *data, size_t length)
{
    pthread_once(&slices_once, make_slices);
    return ~step_tables(~0u, data, length);
}

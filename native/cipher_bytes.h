/* Bytes to words and back, and xor over bytes, as the ciphers need them. */
#ifndef KCPSOCKET_CIPHER_BYTES_H
#define KCPSOCKET_CIPHER_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t load_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void store_le32(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
    p[2] = (uint8_t)(value >> 16);
    p[3] = (uint8_t)(value >> 24);
}

static inline uint32_t load_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static inline void store_be32(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 24);
    p[1] = (uint8_t)(value >> 16);
    p[2] = (uint8_t)(value >> 8);
    p[3] = (uint8_t)value;
}

static inline uint32_t rotate_left(uint32_t value, unsigned bits)
{
    return value << (bits & 31) | value >> (-bits & 31);
}

/* A vector register of the target, or what the compiler makes stand in for it. */
typedef uint64_t vector16 __attribute__((vector_size(16)));

/* out = a ^ b over 16 bytes; any of them may be the same place. One store: a load of all 16 bytes right behind two
 * stores of 8 would stall. */
static inline void xor_block16(uint8_t *out, const uint8_t *a, const uint8_t *b)
{
    vector16 x, y;
    memcpy(&x, a, 16);
    memcpy(&y, b, 16);
    x ^= y;
    memcpy(out, &x, 16);
}

static inline void xor_block8(uint8_t *out, const uint8_t *a, const uint8_t *b)
{
    uint64_t x, y;
    memcpy(&x, a, 8);
    memcpy(&y, b, 8);
    x ^= y;
    memcpy(out, &x, 8);
}

/* data ^= stream over `length` bytes; the two don't overlap. */
static inline void xor_bytes(uint8_t *data, const uint8_t *stream, size_t length)
{
    for (; length >= 64; length -= 64, data += 64, stream += 64) {
        xor_block16(data, data, stream);
        xor_block16(data + 16, data + 16, stream + 16);
        xor_block16(data + 32, data + 32, stream + 32);
        xor_block16(data + 48, data + 48, stream + 48);
    }
    for (; length >= 8; length -= 8, data += 8, stream += 8)
        xor_block8(data, data, stream);
    for (; length; length--)
        *data++ ^= *stream++;
}

#endif

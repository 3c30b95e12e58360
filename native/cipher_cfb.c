#include "cipher_cfb.h"

#include "cipher_bytes.h"

#define LANES 32   /* datagrams side by side */
#define CHUNK 1536 /* bytes decrypted with one call of the cipher: any datagram of ours */

static const uint8_t iv[16] = {167, 115, 79, 156, 18, 172, 27, 1, 164, 21, 242, 193, 252, 120, 230, 107};

int cfb_first(const struct block_cipher *cipher, uint8_t first[16])
{
    return cipher->encrypt(cipher->schedule, iv, first, cipher->size);
}

/* cfb_encrypt for up to LANES datagrams. `size` is cipher->size, a constant where this is inlined. */
static inline __attribute__((always_inline)) int encrypt_lanes(const struct block_cipher *cipher, size_t size,
                                                               const uint8_t *first, uint8_t *const *packets,
                                                               const size_t *lengths, size_t count)
{
    uint8_t *at[LANES];
    size_t left[LANES];
    uint8_t stream[LANES * 16]; /* key stream for each lane's next block, then that block encrypted */

    for (size_t i = 0; i < count; i++) {
        at[i] = packets[i];
        left[i] = lengths[i];
        memcpy(stream + i * size, first, size);
    }
    while (count) {
        size_t live = 0; /* lanes that go on move up to close the gaps */
        for (size_t i = 0; i < count; i++) {
            uint8_t *place = at[i];
            if (left[i] <= size) {
                for (size_t n = 0; n < left[i]; n++)
                    place[n] ^= stream[i * size + n];
                continue;
            }
            if (size == 16)
                xor_block16(place, place, stream + i * size);
            else
                xor_block8(place, place, stream + i * size);
            memcpy(stream + live * size, place, size);
            at[live] = place + size;
            left[live] = left[i] - size;
            live++;
        }
        count = live;
        if (count) {
            int failure = cipher->encrypt(cipher->schedule, stream, stream, count * size);
            if (failure)
                return failure;
        }
    }
    return 0;
}

int cfb_encrypt(const struct block_cipher *cipher, const uint8_t first[16], uint8_t *const *packets,
                const size_t *lengths, size_t count)
{
    while (count) {
        size_t now = count < LANES ? count : LANES;
        int failure = cipher->size == 16 ? encrypt_lanes(cipher, 16, first, packets, lengths, now)
                                         : encrypt_lanes(cipher, 8, first, packets, lengths, now);
        if (failure)
            return failure;
        packets += now;
        lengths += now;
        count -= now;
    }
    return 0;
}

int cfb_decrypt(const struct block_cipher *cipher, const uint8_t first[16], uint8_t *packet, size_t length)
{
    size_t size = cipher->size;
    /* The key stream of a block is the encrypted block before it: that of a whole chunk is the chunk itself encrypted,
     * one block further on. */
    uint8_t stream[16 + CHUNK];

    memcpy(stream, first, size);
    while (length > CHUNK) {
        int failure = cipher->encrypt(cipher->schedule, packet, stream + size, CHUNK);
        if (failure)
            return failure;
        xor_bytes(packet, stream, CHUNK);
        memcpy(stream, stream + CHUNK, size);
        packet += CHUNK;
        length -= CHUNK;
    }
    size_t blocks = length ? (length - 1) / size : 0; /* that have a block behind them */
    if (blocks) {
        int failure = cipher->encrypt(cipher->schedule, packet, stream + size, blocks * size);
        if (failure)
            return failure;
    }
    xor_bytes(packet, stream, length);
    return 0;
}

#include "cipher_gcm.h"

#include <errno.h>
#include <pthread.h>

#include "cipher_bytes.h"

#define CHUNK 96 /* blocks of key stream made with one call of the cipher, the tag's included: any datagram of ours */

/* The counter blocks of every datagram's first chunk, less the nonce: it is xored in. */
static uint8_t counters[CHUNK][16];
static pthread_once_t counters_once = PTHREAD_ONCE_INIT;

static void make_counters(void)
{
    for (uint32_t i = 0; i < CHUNK; i++)
        store_be32(counters[i] + GCM_NONCE, i + 1);
}

/* The first `blocks` blocks of key stream, at most CHUNK; the very first is the tag's. */
static int first_stream(const struct block_cipher *cipher, const uint8_t *nonce, uint8_t *stream, size_t blocks)
{
    uint8_t block[16] = {0};
    pthread_once(&counters_once, make_counters);
    memcpy(block, nonce, GCM_NONCE);
    for (size_t i = 0; i < blocks; i++)
        xor_block16(stream + 16 * i, counters[i], block);
    return cipher->encrypt(cipher->schedule, stream, stream, 16 * blocks);
}

/* `blocks` blocks of key stream, from the counter `counter` on. */
static int make_stream(const struct block_cipher *cipher, const uint8_t *nonce, uint32_t counter, uint8_t *stream,
                       size_t blocks)
{
    uint8_t block[16];
    memcpy(block, nonce, GCM_NONCE);
    memset(block + GCM_NONCE, 0, 4);
    for (size_t i = 0; i < blocks; i++) {
        uint8_t *place = stream + 16 * i;
        memcpy(place, block, 16);
        store_be32(place + GCM_NONCE, counter + (uint32_t)i);
    }
    return cipher->encrypt(cipher->schedule, stream, stream, 16 * blocks);
}

/* The blocks of stream that `length` bytes take, the tag's with counter `first` 1 included, as far as a chunk goes. */
static size_t chunk_blocks(size_t length)
{
    size_t blocks = 1 + (length + 15) / 16;
    return blocks < CHUNK ? blocks : CHUNK;
}

/* Xors the text with the key stream. `stream` holds the first chunk, with the tag's block in front. */
static int apply_stream(const struct block_cipher *cipher, const uint8_t *nonce, uint8_t *stream, uint8_t *text,
                        size_t length)
{
    size_t have = 16 * (CHUNK - 1), now = length < have ? length : have;
    uint32_t counter = CHUNK + 1;

    xor_bytes(text, stream + 16, now);
    for (text += now, length -= now; length; text += now, length -= now) {
        int failure = make_stream(cipher, nonce, counter, stream, chunk_blocks(length));
        if (failure)
            return failure;
        now = length < 16 * CHUNK ? length : 16 * CHUNK;
        xor_bytes(text, stream, now);
        counter += CHUNK;
    }
    return 0;
}

/* The tag of the ciphertext, given the key stream's block for it. */
static int make_tag(const struct ghash *ghash, const uint8_t *text, size_t length, const uint8_t *mask, uint8_t tag[16])
{
    uint8_t y[16] = {0}, last[32] = {0};
    size_t rest = length % 16, whole = length - rest, bits = length * 8;
    uint8_t *end = rest ? last + 16 : last; /* the block of lengths: no associated data, then the text's in bits */
    int failure = 0;

    memcpy(last, text + whole, rest);
    store_be32(end + 8, (uint32_t)((uint64_t)bits >> 32));
    store_be32(end + 12, (uint32_t)bits);
    if (whole)
        failure = ghash_update(ghash, y, text, whole);
    if (!failure)
        failure = ghash_update(ghash, y, last, (size_t)(end - last) + 16);
    xor_block16(tag, y, mask);
    return failure;
}

int gcm_encrypt(const struct block_cipher *cipher, const struct ghash *ghash, uint8_t *packet, size_t length)
{
    uint8_t stream[16 * CHUNK], mask[16];
    uint8_t *text = packet + GCM_NONCE;

    int failure = first_stream(cipher, packet, stream, chunk_blocks(length));
    if (failure)
        return failure;
    memcpy(mask, stream, 16);
    failure = apply_stream(cipher, packet, stream, text, length);
    if (failure)
        return failure;
    return make_tag(ghash, text, length, mask, text + length);
}

int gcm_decrypt(const struct block_cipher *cipher, const struct ghash *ghash, uint8_t *packet, size_t length)
{
    uint8_t stream[16 * CHUNK], tag[GCM_TAG], difference = 0;
    uint8_t *text = packet + GCM_NONCE;

    int failure = first_stream(cipher, packet, stream, chunk_blocks(length));
    if (!failure)
        failure = make_tag(ghash, text, length, stream, tag);
    if (failure)
        return failure;
    for (int i = 0; i < GCM_TAG; i++)
        difference |= (uint8_t)(tag[i] ^ text[length + (size_t)i]);
    if (difference)
        return -EBADMSG;
    return apply_stream(cipher, packet, stream, text, length);
}

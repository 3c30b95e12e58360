/* CFB with full-block feedback over datagrams, as kcp-go has it: each datagram starts anew from one fixed IV, and its
 * last partial block is xored with the beginning of the next key-stream block. */
#ifndef KCPSOCKET_CIPHER_CFB_H
#define KCPSOCKET_CIPHER_CFB_H

#include <stddef.h>
#include <stdint.h>

#include "cipher_block.h"

/* The first key-stream block of every datagram, which depends on the key alone. 0, or what the cipher returned. */
int cfb_first(const struct block_cipher *cipher, uint8_t first[16]);

/* Encrypts `count` datagrams in place, side by side: the cipher is called once for a block of each, since within one
 * datagram each block waits for the one before. 0, or what the cipher returned: then the datagrams are garbage, partly
 * clear, and must not be sent. */
int cfb_encrypt(const struct block_cipher *cipher, const uint8_t first[16], uint8_t *const *packets,
                const size_t *lengths, size_t count);

/* Decrypts one datagram in place. 0, or what the cipher returned. */
int cfb_decrypt(const struct block_cipher *cipher, const uint8_t first[16], uint8_t *packet, size_t length);

#endif

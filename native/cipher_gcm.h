/* GCM (NIST SP 800-38D) over datagrams: nonce(12) | text | tag(16), no associated data. */
#ifndef KCPSOCKET_CIPHER_GCM_H
#define KCPSOCKET_CIPHER_GCM_H

#include <stddef.h>
#include <stdint.h>

#include "cipher_block.h"
#include "cipher_ghash.h"

#define GCM_NONCE 12
#define GCM_TAG 16

/* Encrypts the `length` bytes behind the nonce at `packet` in place and writes the tag behind them. 0, or what a
 * function of the library returned: then the datagram must not be sent. */
int gcm_encrypt(const struct block_cipher *cipher, const struct ghash *ghash, uint8_t *packet, size_t length);

/* Checks the tag and then decrypts the `length` bytes between nonce and tag in place. 0; -EBADMSG: the tag is wrong,
 * the packet is as it was; or what a function of the library returned. The comparison takes the same time wherever the
 * tags differ. */
int gcm_decrypt(const struct block_cipher *cipher, const struct ghash *ghash, uint8_t *packet, size_t length);

#endif

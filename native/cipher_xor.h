/* kcp-go's "xor": a fixed table, made from the key, over every datagram. It hides nothing from anyone who tries. */
#ifndef KCPSOCKET_CIPHER_XOR_H
#define KCPSOCKET_CIPHER_XOR_H

#include <stddef.h>
#include <stdint.h>

#define XOR_TABLE 1500 /* bytes: kcp-go's largest datagram; what lies beyond stays clear, as there */

/* table = PBKDF2-HMAC-SHA1(key, "sH3CIVoF#rWLtJo6", 32 rounds, XOR_TABLE bytes). About a millisecond. */
void xor_expand(uint8_t table[XOR_TABLE], const uint8_t *key, size_t key_length);

/* Encrypts or decrypts in place. */
void xor_apply(const uint8_t table[XOR_TABLE], uint8_t *packet, size_t length);

#endif

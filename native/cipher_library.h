/* The ciphers that pycryptodome brings, called through the addresses that seal_use_library handed in. */
#ifndef KCPSOCKET_CIPHER_LIBRARY_H
#define KCPSOCKET_CIPHER_LIBRARY_H

#include <stddef.h>
#include <stdint.h>

#include "cipher_block.h"
#include "seal.h"

/* The library's functions; all NULL before seal_use_library. */
const struct seal_library *library_get(void);

/* Keys one of its block ciphers, which must have blocks of `size` bytes. -ENOSYS: the functions are not there;
 * -ELIBBAD: its state does not look like the one that we know, or it refuses the key; -ENOMEM. */
int library_cipher_new(struct block_cipher *cipher, const struct seal_library_cipher *functions, const uint8_t *key,
                       size_t key_length, size_t size);

/* Wipes and frees what library_cipher_new made of this `key`. */
void library_cipher_free(struct block_cipher *cipher, const uint8_t *key, size_t key_length);

/* Xors Salsa20's key stream, from its beginning, over `data`. 0; -ENOSYS; or what the library returned. */
int library_salsa20(const uint8_t key[32], const uint8_t nonce[8], uint8_t *data, size_t length);

/* GHASH: expansion of H (0, -ENOSYS or -ENOMEM), its end with a wipe, and the hash itself (0 or a failure). */
int library_ghash_new(void **tables, const uint8_t h[16]);
void library_ghash_free(void *tables);
int library_ghash_update(const void *tables, uint8_t y[16], const uint8_t *data, size_t length);

#endif

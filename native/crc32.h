/* CRC-32 as IEEE 802.3 has it (reflected, polynomial 0xEDB88320), the check in the crypto header; zlib's crc32. */
#ifndef KCPSOCKET_CRC32_H
#define KCPSOCKET_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of `length` bytes; any thread. Folds with carry-less multiplication where the processor has it. */
uint32_t crc32_ieee(const uint8_t *data, size_t length);

/* The same by tables alone: the path on other processors, and what the fast one is tested against. */
uint32_t crc32_ieee_portable(const uint8_t *data, size_t length);

#endif

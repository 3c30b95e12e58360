/* Packet buffers of one size, handed out and taken back in O(1).
 *
 * A pool belongs to one engine and is used under that engine's lock only. Memory is taken from the system a slab at a
 * time and given back when whole slabs have been free for a while (pool_trim), so a burst does not stay in the process
 * for good. */
#ifndef KCPSOCKET_POOL_H
#define KCPSOCKET_POOL_H

#include <stddef.h>
#include <stdint.h>

#define POOL_BUFFER 1536 /* bytes in a buffer: holds any payload of an MTU of 1,500 */

struct pool;

/* A new, empty pool, or NULL when out of memory. */
struct pool *pool_new(void);

/* Frees the pool and every slab; buffers still handed out die with it. */
void pool_free(struct pool *pool);

/* A buffer of POOL_BUFFER bytes, uninitialised, or NULL when out of memory. */
uint8_t *pool_get(struct pool *pool);

/* Takes back a buffer that pool_get gave. */
void pool_put(struct pool *pool, uint8_t *buffer);

/* pool_get answers NULL while this many buffers are handed out: a cap on memory, and how tests run out of it. */
void pool_limit(struct pool *pool, size_t buffers);

/* Gives slabs that hold no buffer in use back to the system, save one. O(slabs). */
void pool_trim(struct pool *pool);

/* Buffers handed out at the moment. */
size_t pool_in_use(const struct pool *pool);

/* Bytes that the pool holds of the system's memory. */
size_t pool_bytes(const struct pool *pool);

#endif

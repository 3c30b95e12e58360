/* A kcp_sink that keeps datagrams in memory: the wire of a simulated network, for tests. */
#ifndef KCPSOCKET_KCP_COLLECT_H
#define KCPSOCKET_KCP_COLLECT_H

#include <stddef.h>
#include <stdint.h>

#include "kcp.h"

struct kcp_collect;

/* A new, empty collection whose datagrams may have `room` bytes each, or NULL when out of memory. */
struct kcp_collect *kcp_collect_new(size_t room);
void kcp_collect_free(struct kcp_collect *collect);

/* The sink to hand to kcp_flush; lives as long as the collection. A datagram that finds no memory is lost, as on a
 * network. */
struct kcp_sink *kcp_collect_sink(struct kcp_collect *collect);

/* Datagrams collected, and the one at `index`, which stays until kcp_collect_clear. */
size_t kcp_collect_count(const struct kcp_collect *collect);
const uint8_t *kcp_collect_get(const struct kcp_collect *collect, size_t index, size_t *length);

/* Forgets all of them. */
void kcp_collect_clear(struct kcp_collect *collect);

#endif

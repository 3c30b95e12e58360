/* A session's way out: from its ARQ through FEC and the cipher into the engine's outbox. Every datagram is written once,
 * where the kernel will read it, and sealed there; those of one flush are sealed together. */
#ifndef KCPSOCKET_OUTLET_H
#define KCPSOCKET_OUTLET_H

#include <stddef.h>
#include <stdint.h>

#include "address.h"
#include "api.h"

struct endpoint;
struct session;

/* Bytes of each datagram that are not KCP's, under this configuration. */
uint32_t outlet_overhead(const struct kcps_config *config);

/* Flushes the ARQ. */
void outlet_flush(struct session *session);

/* Sends one datagram made of the segments in `payload`. */
void outlet_send(struct session *session, const uint8_t *payload, size_t length);

/* Sends one out-of-band datagram with the bytes of `data`, on a session with FEC. */
void outlet_oob(struct session *session, const uint8_t *data, size_t length);

/* Sends one datagram to someone who has no session, at once. */
void outlet_answer(struct endpoint *endpoint, const struct address *peer, const struct address *local,
                   const uint8_t *payload, size_t length);

#endif

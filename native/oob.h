/* Out-of-band datagrams of a session: unreliable, unordered, beside the stream (kcp-go's type 0xF3; with FEC only).
 *
 * The application may hold a SOCK_SEQPACKET socket for them, to receive (and select) on and to send by; the engine holds
 * the other end. What arrives while nobody holds one, or faster than it is read, is dropped, as datagrams are. */
#ifndef KCPSOCKET_OOB_H
#define KCPSOCKET_OOB_H

#include <stddef.h>
#include <stdint.h>

struct session;

/* The most bytes that a datagram of this session can carry; 0 without FEC. */
size_t oob_limit(const struct session *session);

/* Sends one: 0; -EOPNOTSUPP without FEC, -EMSGSIZE over the limit, -ENOTCONN before or after the connection. */
int oob_send(struct session *session, const void *data, size_t length);

/* The application's end of the session's socket for datagrams, which the caller takes over, or a negative errno: -EBUSY
 * when it was given out before and is still open; else as oob_send. */
int oob_open(struct session *session);

/* One arrived, its payload behind the conv. */
void oob_deliver(struct session *session, const uint8_t *data, size_t length);

/* The engine's end has events (as epoll's). */
void oob_ready(struct session *session, uint32_t events);

/* The session ends: the application reads an end of file. */
void oob_close(struct session *session);

#endif

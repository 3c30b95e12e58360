/* The KCP segment as it is on the wire: a header of 24 bytes, little-endian, and `len` bytes of payload.
 *
 *   conv(4) cmd(1) frg(1) wnd(2) ts(4) sn(4) una(4) len(4)
 *
 * Format: skywind3000/kcp and xtaci/kcp-go; RESET is ours (both of them drop an unknown command without harm). */
#ifndef KCPSOCKET_WIRE_H
#define KCPSOCKET_WIRE_H

#include <stdint.h>
#include <string.h>

#define WIRE_HEADER 24

enum wire_cmd {
    WIRE_PUSH = 81,  /* payload; one of zero bytes ends the stream */
    WIRE_ACK = 82,   /* sn and ts of a PUSH that arrived */
    WIRE_WASK = 83,  /* asks for the peer's window: also our SYN and our keepalive */
    WIRE_WINS = 84,  /* tells the window */
    WIRE_RESET = 85, /* the session is gone; echoes the receiver's own last ts, so that it can't be forged blindly */
};

struct wire_segment {
    uint32_t conv; /* conversation: names the session, equal on both sides */
    uint8_t cmd;   /* enum wire_cmd */
    uint8_t frg;   /* fragments of the same message still to come; ignored, the payload is a stream */
    uint16_t wnd;  /* sender's free receive window, packets */
    uint32_t ts;   /* PUSH: sender's clock, ms; ACK: the ts of the PUSH it answers */
    uint32_t sn;   /* sequence number, in packets */
    uint32_t una;  /* sender has received everything below this sn */
    uint32_t len;  /* payload bytes behind the header */
};

static inline uint32_t wire_get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void wire_put32(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
    p[2] = (uint8_t)(value >> 16);
    p[3] = (uint8_t)(value >> 24);
}

static inline uint16_t wire_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline void wire_put16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

/* Reads the 24 bytes at `p`. */
static inline void wire_decode(struct wire_segment *segment, const uint8_t *p)
{
    segment->conv = wire_get32(p);
    segment->cmd = p[4];
    segment->frg = p[5];
    segment->wnd = wire_get16(p + 6);
    segment->ts = wire_get32(p + 8);
    segment->sn = wire_get32(p + 12);
    segment->una = wire_get32(p + 16);
    segment->len = wire_get32(p + 20);
}

/* Writes the header at `p` and returns the place behind it. */
static inline uint8_t *wire_encode(uint8_t *p, const struct wire_segment *segment)
{
    wire_put32(p, segment->conv);
    p[4] = segment->cmd;
    p[5] = segment->frg;
    wire_put16(p + 6, segment->wnd);
    wire_put32(p + 8, segment->ts);
    wire_put32(p + 12, segment->sn);
    wire_put32(p + 16, segment->una);
    wire_put32(p + 20, segment->len);
    return p + WIRE_HEADER;
}

/* Signed distance from `b` to `a` on the circle of 32-bit numbers (sn and ts both wrap around). */
static inline int32_t wire_diff(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b);
}

#endif

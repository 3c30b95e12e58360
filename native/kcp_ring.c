#include "kcp_internal.h"

#include <stdlib.h>

/* The power of two from KCP_RING_MIN that holds `count`; `size` at least. */
static uint32_t fitting(uint32_t size, uint32_t count)
{
    if (size < KCP_RING_MIN)
        size = KCP_RING_MIN;
    while (size < count)
        size *= 2;
    return size;
}

bool kcp_send_reserve(struct kcp *kcp, uint32_t count)
{
    if (count <= kcp->snd_size)
        return true;
    uint32_t size = fitting(kcp->snd_size, count);
    struct send_slot *grown = malloc(size * sizeof(*grown));
    if (!grown)
        return false;
    for (uint32_t sn = kcp->snd_una; sn != kcp->snd_end + kcp->open_new; sn++)
        grown[sn & (size - 1)] = *send_at(kcp, sn);
    free(kcp->snd);
    kcp->snd = grown;
    kcp->snd_size = size;
    return true;
}

bool kcp_recv_reserve(struct kcp *kcp, uint32_t count)
{
    if (count <= kcp->rcv_size)
        return true;
    uint32_t size = fitting(kcp->rcv_size, count);
    struct recv_slot *grown = calloc(size, sizeof(*grown)); /* zeroed: nothing present */
    if (!grown)
        return false;
    for (uint32_t sn = kcp->rcv_head; sn != kcp->rcv_head + kcp->rcv_size; sn++)
        grown[sn & (size - 1)] = *recv_at(kcp, sn);
    free(kcp->rcv);
    kcp->rcv = grown;
    kcp->rcv_size = size;
    return true;
}

static bool grow(struct number_queue *queue, uint32_t limit)
{
    uint32_t size = fitting(queue->size, queue->tail - queue->head + 1);
    if (size > limit)
        return false;
    uint32_t *grown = malloc(size * sizeof(*grown));
    if (!grown)
        return false;
    for (uint32_t i = queue->head; i != queue->tail; i++)
        grown[i & (size - 1)] = *number_at(queue, i);
    free(queue->slot);
    queue->slot = grown;
    queue->size = size;
    return true;
}

bool number_queue_push(struct number_queue *queue, uint32_t number, uint32_t limit)
{
    if (queue->tail - queue->head >= queue->size && !grow(queue, limit))
        return false;
    *number_at(queue, queue->tail++) = number;
    return true;
}

void number_queue_drain(struct number_queue *queue)
{
    queue->head = queue->tail;
    if (queue->size > KCP_RING_MIN) {
        free(queue->slot);
        queue->slot = NULL;
        queue->size = 0;
    }
}

#include "post.h"

#include <linux/sockios.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define POST_BYTES ((size_t)256 * 1024)

struct piece { /* before each piece's bytes */
    kcps_id id;
    size_t length;
};

struct post {
    pthread_mutex_t lock;
    _Atomic size_t used;         /* bytes of `filling` */
    uint8_t *filling, *emptying; /* what is left now, what is being taken: POST_BYTES each */
};

struct post *post_new(void)
{
    struct post *post = calloc(1, sizeof *post);
    if (!post)
        return NULL;
    pthread_mutex_init(&post->lock, NULL);
    post->filling = malloc(POST_BYTES);
    post->emptying = malloc(POST_BYTES);
    if (post->filling && post->emptying)
        return post;
    post_free(post);
    return NULL;
}

void post_free(struct post *post)
{
    if (!post)
        return;
    free(post->filling);
    free(post->emptying);
    free(post);
}

static size_t padded(size_t length)
{
    return (length + _Alignof(struct piece) - 1) & ~(_Alignof(struct piece) - 1);
}

/* True when the engine has read all that was ever written to the application's end of the stream. */
static bool is_drained(int app_fd)
{
    int unread;
    return ioctl(app_fd, SIOCOUTQ, &unread) == 0 && unread == 0;
}

bool post_leave(struct post *post, kcps_id id, int app_fd, const void *data, size_t length)
{
    struct piece piece = {id, length};
    size_t need = sizeof piece + padded(length);
    pthread_mutex_lock(&post->lock);
    size_t used = atomic_load(&post->used);
    bool fits = need <= POST_BYTES - used && is_drained(app_fd);
    if (fits) {
        memcpy(post->filling + used, &piece, sizeof piece);
        memcpy(post->filling + used + sizeof piece, data, length);
        atomic_store(&post->used, used + need);
    }
    pthread_mutex_unlock(&post->lock);
    return fits;
}

bool post_waits(const struct post *post)
{
    return atomic_load(&post->used) > 0;
}

void post_take(struct post *post, post_deliver *deliver, void *context)
{
    post_hold(post, deliver, context);
    post_release(post);
}

void post_hold(struct post *post, post_deliver *deliver, void *context)
{
    pthread_mutex_lock(&post->lock);
    while (atomic_load(&post->used) > 0) {
        uint8_t *taken = post->filling;
        size_t used = atomic_load(&post->used);
        post->filling = post->emptying;
        post->emptying = taken;
        atomic_store(&post->used, 0);
        pthread_mutex_unlock(&post->lock);
        for (size_t at = 0; at < used;) {
            struct piece piece;
            memcpy(&piece, taken + at, sizeof piece);
            at += sizeof piece;
            deliver(context, piece.id, taken + at, piece.length);
            at += padded(piece.length);
        }
        pthread_mutex_lock(&post->lock);
    }
}

void post_release(struct post *post)
{
    pthread_mutex_unlock(&post->lock);
}

#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char magic[] = "kcpsocket/1"; /* what every name begins with */

/* A label as bytes: id(8) family(1), and for each end ip(16) port(2) scope(4); then 8 random bytes, which make an
 * abstract name unguessable and unique among all that share the network namespace. */
#define END_BYTES (16 + 2 + 4)
#define LABEL_BYTES (8 + 1 + 2 * END_BYTES)
#define NONCE_BYTES 8

static uint8_t *pack_end(uint8_t *p, const struct address *address)
{
    struct kcps_address plain = {0};
    if (address->any.sa_family != AF_UNSPEC)
        address_export(address, &plain);
    memcpy(p, plain.ip, 16);
    memcpy(p + 16, &plain.port, 2);
    memcpy(p + 18, &plain.scope_id, 4);
    return p + END_BYTES;
}

static const uint8_t *unpack_end(const uint8_t *p, int family, struct address *address)
{
    struct kcps_address plain;
    memcpy(plain.ip, p, 16);
    memcpy(&plain.port, p + 16, 2);
    memcpy(&plain.scope_id, p + 18, 4);
    address_import(address, family, &plain);
    return p + END_BYTES;
}

static void pack(uint8_t *p, const struct stream_label *label)
{
    memcpy(p, &label->id, 8);
    p[8] = (uint8_t)label->local.any.sa_family;
    pack_end(pack_end(p + 9, &label->local), &label->peer);
}

static void unpack(const uint8_t *p, bool listening, struct stream_label *label)
{
    memcpy(&label->id, p, 8);
    int family = p[8];
    p = unpack_end(p + 9, family, &label->local);
    unpack_end(p, family, &label->peer);
    if (listening)
        label->peer.any.sa_family = AF_UNSPEC;
}

static int open_stream(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd >= 0 ? fd : -errno;
}

/* Binds `fd` to the abstract name of `label`; `un` receives it. Returns the name's length or a negative errno. */
static int bind_abstract(int fd, const struct stream_label *label, struct sockaddr_un *un)
{
    memset(un, 0, sizeof *un);
    un->sun_family = AF_UNIX;
    uint8_t *p = (uint8_t *)un->sun_path + 1;
    memcpy(p, magic, sizeof magic - 1);
    p += sizeof magic - 1;
    pack(p, label);
    p += LABEL_BYTES;
    if (getrandom(p, NONCE_BYTES, 0) != NONCE_BYTES)
        return -EAGAIN;
    int length = (int)(p + NONCE_BYTES - (uint8_t *)un);
    return bind(fd, (struct sockaddr *)un, (socklen_t)length) == 0 ? length : -errno;
}

/* True when the process at the other end is this one: nobody else got in between bind and accept. */
static bool peer_is_us(int fd)
{
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0 && credentials.pid == getpid();
}

static int join_once(int app_fd, int door, const struct stream_label *label)
{
    struct sockaddr_un un;
    int length = bind_abstract(door, label, &un);
    if (length < 0)
        return length;
    if (listen(door, 1) < 0 || connect(app_fd, (struct sockaddr *)&un, (socklen_t)length) < 0)
        return -errno;
    for (;;) {
        int fd = accept4(door, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return -errno;
        if (peer_is_us(fd))
            return fd;
        close(fd);
    }
}

int stream_join(int app_fd, const struct stream_label *label)
{
    int door = open_stream();
    if (door < 0)
        return door;
    int flags = fcntl(app_fd, F_GETFL);
    if (flags < 0 || fcntl(app_fd, F_SETFL, flags | O_NONBLOCK) < 0) { /* a stranger in the backlog must not block us */
        int error = errno;
        close(door);
        return -error;
    }
    int fd = join_once(app_fd, door, label);
    fcntl(app_fd, F_SETFL, flags);
    close(door);
    return fd;
}

size_t stream_stuff(int app_fd)
{
    static const uint8_t stuffing[32768];
    struct pollfd writable = {.fd = app_fd, .events = POLLOUT};
    size_t total = 0;
    int buffer = 0;
    socklen_t length = sizeof buffer;
    getsockopt(app_fd, SOL_SOCKET, SO_SNDBUF, &buffer, &length);
    /* A unix stream stops being writable when a quarter of its send buffer is taken: no need to fill the rest. */
    do {
        ssize_t n = send(app_fd, stuffing, sizeof stuffing, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n <= 0)
            break;
        total += (size_t)n;
    } while (total < (size_t)buffer / 4 || (poll(&writable, 1, 0) > 0 && writable.revents & POLLOUT));
    return total;
}

static char *put_hex(char *out, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out += sprintf(out, "%02x", bytes[i]);
    return out;
}

/* A listener's label leaves out the peer, so that in hex it fits a file's name within sun_path. */
#define LISTENER_BYTES (8 + 1 + END_BYTES)

int stream_listen(int app_fd, const struct stream_label *label, int backlog, const char *directory)
{
    char place[4096];
    if (snprintf(place, sizeof place, "%s/kcpsocket-XXXXXX", directory) >= (int)sizeof place)
        return -ENAMETOOLONG;
    if (!mkdtemp(place)) /* 0700: nobody else can connect while the name is there */
        return -errno;
    int result, dir_fd = open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        result = -errno;
        rmdir(place);
        return result;
    }
    uint8_t bytes[LABEL_BYTES];
    char name[2 * LISTENER_BYTES + 1];
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    pack(bytes, label);
    put_hex(name, bytes, LISTENER_BYTES);
    snprintf(un.sun_path, sizeof un.sun_path, "/proc/self/fd/%d/%s", dir_fd, name);
    if (bind(app_fd, (struct sockaddr *)&un, sizeof un) < 0 || listen(app_fd, backlog) < 0)
        result = -errno;
    else if ((result = openat(dir_fd, name, O_PATH | O_CLOEXEC)) < 0)
        result = -errno;
    unlinkat(dir_fd, name, 0);
    close(dir_fd);
    rmdir(place);
    return result;
}

int stream_visit(int path_fd, const struct stream_label *label)
{
    int fd = open_stream();
    if (fd < 0)
        return fd;
    struct sockaddr_un un;
    int result = label ? bind_abstract(fd, label, &un) : 0;
    if (result >= 0) {
        memset(&un, 0, sizeof un);
        un.sun_family = AF_UNIX;
        snprintf(un.sun_path, sizeof un.sun_path, "/proc/self/fd/%d", path_fd);
        result = connect(fd, (struct sockaddr *)&un, sizeof un) == 0 ? 0 : -errno;
    }
    if (result < 0) {
        close(fd);
        return result;
    }
    return fd;
}

static int label_of_peer(int app_fd, struct stream_label *label)
{
    struct sockaddr_un un;
    socklen_t length = sizeof un;
    if (getpeername(app_fd, (struct sockaddr *)&un, &length) < 0)
        return -errno;
    const uint8_t *p = (const uint8_t *)un.sun_path + 1;
    if (un.sun_family != AF_UNIX || length != offsetof(struct sockaddr_un, sun_path) + 1 + sizeof magic - 1 +
                                                  LABEL_BYTES + NONCE_BYTES ||
        un.sun_path[0] != 0 || memcmp(p, magic, sizeof magic - 1) != 0)
        return -ENOTCONN;
    unpack(p + sizeof magic - 1, false, label);
    return 0;
}

static int label_of_listener(int app_fd, struct stream_label *label)
{
    struct sockaddr_un un = {0};
    socklen_t length = sizeof un;
    if (getsockname(app_fd, (struct sockaddr *)&un, &length) < 0)
        return -errno;
    uint8_t bytes[LABEL_BYTES] = {0};
    un.sun_path[sizeof un.sun_path - 1] = 0;
    const char *name = strrchr(un.sun_path, '/');
    if (un.sun_family != AF_UNIX || !name || strncmp(un.sun_path, "/proc/self/fd/", 14) != 0 ||
        strlen(name + 1) != 2 * LISTENER_BYTES)
        return -ENOTCONN;
    for (size_t i = 0; i < LISTENER_BYTES; i++)
        if (sscanf(name + 1 + 2 * i, "%2hhx", &bytes[i]) != 1)
            return -ENOTCONN;
    unpack(bytes, true, label);
    return 0;
}

int stream_label_of(int app_fd, struct stream_label *label)
{
    int result = label_of_peer(app_fd, label);
    return result == -ENOTCONN ? label_of_listener(app_fd, label) : result;
}

#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

socklen_t address_length(const struct address *address)
{
    return address->any.sa_family == AF_INET6 ? sizeof address->v6 : sizeof address->v4;
}

bool address_equal(const struct address *a, const struct address *b)
{
    if (a->any.sa_family != b->any.sa_family)
        return false;
    if (a->any.sa_family == AF_INET)
        return a->v4.sin_port == b->v4.sin_port && a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
    return a->v6.sin6_port == b->v6.sin6_port && a->v6.sin6_scope_id == b->v6.sin6_scope_id &&
           memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof a->v6.sin6_addr) == 0;
}

/* The finaliser of splitmix64: every input bit reaches every output bit. */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

uint64_t address_hash(const struct address *address, uint64_t seed)
{
    if (address->any.sa_family == AF_INET)
        return mix(seed ^ ((uint64_t)address->v4.sin_addr.s_addr << 16 | address->v4.sin_port));
    uint64_t halves[2];
    memcpy(halves, &address->v6.sin6_addr, sizeof halves);
    return mix(mix(seed ^ halves[0]) ^ halves[1] ^ (uint64_t)address->v6.sin6_port << 48);
}

bool address_is_wildcard(const struct address *address)
{
    if (address->any.sa_family == AF_INET)
        return address->v4.sin_addr.s_addr == htonl(INADDR_ANY);
    return IN6_IS_ADDR_UNSPECIFIED(&address->v6.sin6_addr);
}

void address_export(const struct address *address, struct kcps_address *out)
{
    memset(out, 0, sizeof *out);
    if (address->any.sa_family == AF_INET) {
        memcpy(out->ip, &address->v4.sin_addr, 4);
        out->port = ntohs(address->v4.sin_port);
    } else {
        memcpy(out->ip, &address->v6.sin6_addr, 16);
        out->port = ntohs(address->v6.sin6_port);
        out->scope_id = address->v6.sin6_scope_id;
    }
}

void address_import(struct address *address, int family, const struct kcps_address *in)
{
    memset(address, 0, sizeof *address);
    address->any.sa_family = (sa_family_t)family;
    if (family == AF_INET) {
        memcpy(&address->v4.sin_addr, in->ip, 4);
        address->v4.sin_port = htons(in->port);
    } else {
        memcpy(&address->v6.sin6_addr, in->ip, 16);
        address->v6.sin6_port = htons(in->port);
        address->v6.sin6_scope_id = in->scope_id;
    }
}

int address_of_socket(int fd, struct address *out)
{
    socklen_t length = sizeof *out;
    memset(out, 0, sizeof *out);
    return getsockname(fd, &out->any, &length) == 0 ? 0 : -errno;
}

/* UDP addresses, IPv4 and IPv6, in one small type. */
#ifndef KCPSOCKET_ADDRESS_H
#define KCPSOCKET_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "api.h"

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    };
};

/* Bytes of the sockaddr inside. */
socklen_t address_length(const struct address *address);

/* Same family, IP, port and scope. */
bool address_equal(const struct address *a, const struct address *b);

/* A hash of IP and port, keyed with the process's random `seed` (so that nobody can aim at one bucket). */
uint64_t address_hash(const struct address *address, uint64_t seed);

/* True for 0.0.0.0 and ::. */
bool address_is_wildcard(const struct address *address);

/* To and from the public form. */
void address_export(const struct address *address, struct kcps_address *out);
void address_import(struct address *address, int family, const struct kcps_address *in);

/* The local address of socket `fd`: 0 or a negative errno. */
int address_of_socket(int fd, struct address *out);

#endif

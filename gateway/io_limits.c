/* SHELL. Addresses of clients: which proxies are trusted to name them, and how many connections
 * each may have and open. Entries exist only while an address has connections or a used-up
 * allowance, and only when a limit is configured. IPv4 addresses are kept in their IPv6-mapped
 * form. */
#include <arpa/inet.h>
#include <stdlib.h>

#include "common/map.h"
#include "common/shell/process.h"
#include "gateway/io_client.h"

#define SWEEP_EVERY 4096 /* entries created between sweeps of those that are no longer needed */

struct network {
    struct in6_addr address;
    unsigned bits;
};

struct ip_entry {
    struct in6_addr address;
    uint64_t sockets;
    double allowance; /* connections that may be opened now */
    int64_t filled_ns;
};

struct ips {
    struct network *trusted;
    size_t n_trusted;
    struct map *entries;
    unsigned created;
    struct ip_entry unlimited; /* stands for everybody while no limit is configured */
};

static bool parse_address(struct slice text, struct in6_addr *out)
{
    char copy[INET6_ADDRSTRLEN];
    struct in_addr v4;
    if (text.size >= 2 && text.data[0] == '[' && text.data[text.size - 1] == ']')
        text = slice_of(text.data + 1, text.size - 2);
    if (text.size == 0 || text.size >= sizeof copy)
        return false;
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    if (inet_pton(AF_INET6, copy, out) == 1)
        return true;
    if (inet_pton(AF_INET, copy, &v4) != 1)
        return false;
    memset(out, 0, sizeof *out);
    out->s6_addr[10] = out->s6_addr[11] = 0xff;
    memcpy(out->s6_addr + 12, &v4, sizeof v4);
    return true;
}

/* "10.0.0.0/8", "::1", "192.0.2.7". */
static bool parse_network(const char *text, struct network *out)
{
    const char *slash = strchr(text, '/');
    size_t size = slash ? (size_t)(slash - text) : strlen(text);
    if (!parse_address(slice_of(text, size), &out->address))
        return false;
    bool v4 = memchr(text, ':', size) == NULL;
    unsigned most = v4 ? 32 : 128;
    char *end = NULL;
    unsigned long bits = slash ? strtoul(slash + 1, &end, 10) : most;
    if (slash && (end == slash + 1 || *end != '\0' || bits > most))
        return false;
    out->bits = (unsigned)bits + (v4 ? 96 : 0);
    return true;
}

void ips_configure(struct ips *ips, const struct config *config)
{
    const struct config_list *list = &config->gateway.trusted_proxies;
    mem_free(ips->trusted);
    ips->trusted = mem_zalloc((list->count + 1) * sizeof *ips->trusted);
    ips->n_trusted = 0;
    for (size_t i = 0; i < list->count; i++)
        if (parse_network(list->at[i], &ips->trusted[ips->n_trusted]))
            ips->n_trusted++;
}

struct ips *ips_create(const struct config *config)
{
    struct ips *ips = mem_zalloc(sizeof *ips);
    ips->entries = map_create(process_random());
    ips_configure(ips, config);
    return ips;
}

void ips_destroy(struct ips **ipsp)
{
    struct ips *ips = *ipsp;
    if (!ips)
        return;
    size_t cursor = 0;
    struct ip_entry *entry;
    while ((entry = map_next(ips->entries, &cursor)) != NULL) {
        map_remove(ips->entries, slice_of(&entry->address, sizeof entry->address));
        mem_free(entry);
    }
    map_destroy(&ips->entries);
    mem_free(ips->trusted);
    mem_free(ips);
    *ipsp = NULL;
}

bool ips_trusts(const struct ips *ips, const struct in6_addr *address)
{
    for (size_t i = 0; i < ips->n_trusted; i++) {
        const struct network *n = &ips->trusted[i];
        unsigned bytes = n->bits / 8;
        unsigned rest = n->bits % 8;
        if (memcmp(n->address.s6_addr, address->s6_addr, bytes) != 0)
            continue;
        if (rest == 0 || (n->address.s6_addr[bytes] ^ address->s6_addr[bytes]) >> (8 - rest) == 0)
            return true;
    }
    return false;
}

/* The entries of one header line from the right. True: `address` is the client's. */
static bool walk_forwarded(const struct ips *ips, struct slice line, struct in6_addr *address)
{
    size_t end = line.size;
    while (end > 0) {
        size_t from = end;
        while (from > 0 && line.data[from - 1] != ',')
            from--;
        struct slice item = slice_of(line.data + from, end - from);
        while (item.size && (item.data[0] == ' ' || item.data[0] == '\t'))
            item = slice_of(item.data + 1, item.size - 1);
        while (item.size && (item.data[item.size - 1] == ' ' || item.data[item.size - 1] == '\t'))
            item.size--;
        struct in6_addr next;
        if (!parse_address(item, &next))
            return true; /* not an address: what is known so far is all that is known */
        *address = next;
        if (!ips_trusts(ips, address))
            return true;
        end = from > 0 ? from - 1 : 0;
    }
    return false;
}

void ips_forwarded(const struct ips *ips, const struct http_request *request,
                   struct in6_addr *address)
{
    for (size_t i = request->n_headers; i-- > 0;) {
        const struct http_header *h = &request->headers[i];
        struct slice name = h->name;
        if (name.size == strlen("x-forwarded-for") &&
            strncasecmp((const char *)name.data, "x-forwarded-for", name.size) == 0 &&
            walk_forwarded(ips, h->value, address))
            return;
    }
}

void ip_text(const struct in6_addr *address, char out[INET6_ADDRSTRLEN])
{
    if (IN6_IS_ADDR_V4MAPPED(address))
        inet_ntop(AF_INET, address->s6_addr + 12, out, INET6_ADDRSTRLEN);
    else
        inet_ntop(AF_INET6, address, out, INET6_ADDRSTRLEN);
}

/* A bucket that holds one second's worth of connections. */
static void refill(struct ip_entry *entry, double rate, int64_t mono_ns)
{
    double most = rate > 1 ? rate : 1;
    entry->allowance += rate * (double)(mono_ns - entry->filled_ns) / 1e9;
    if (entry->allowance > most)
        entry->allowance = most;
    entry->filled_ns = mono_ns;
}

static void sweep(struct ips *ips, double rate, int64_t mono_ns)
{
    size_t cursor = 0;
    struct ip_entry *entry;
    while ((entry = map_next(ips->entries, &cursor)) != NULL) {
        refill(entry, rate, mono_ns);
        if (entry->sockets > 0 || (rate > 0 && entry->allowance < (rate > 1 ? rate : 1)))
            continue;
        map_remove(ips->entries, slice_of(&entry->address, sizeof entry->address));
        mem_free(entry);
    }
}

struct ip_entry *ip_enter(struct ips *ips, const struct in6_addr *address,
                          const struct limits *limits, int64_t mono_ns)
{
    double rate = limits->connection_rate;
    if (limits->sockets_per_ip == 0 && rate <= 0)
        return &ips->unlimited;
    struct ip_entry *entry = map_get(ips->entries, slice_of(address, sizeof *address));
    if (!entry) {
        if (++ips->created % SWEEP_EVERY == 0)
            sweep(ips, rate, mono_ns);
        entry = mem_zalloc(sizeof *entry);
        entry->address = *address;
        entry->allowance = rate > 1 ? rate : 1;
        entry->filled_ns = mono_ns;
        map_put(ips->entries, slice_of(&entry->address, sizeof entry->address), entry);
    }
    if (limits->sockets_per_ip && entry->sockets >= limits->sockets_per_ip)
        return NULL;
    if (rate > 0) {
        refill(entry, rate, mono_ns);
        if (entry->allowance < 1)
            return NULL;
        entry->allowance -= 1;
    }
    entry->sockets++;
    return entry;
}

bool ip_is(const struct ip_entry *entry, const struct in6_addr *address)
{
    return memcmp(&entry->address, address, sizeof *address) == 0;
}

void ip_leave(struct ips *ips, struct ip_entry *entry)
{
    if (!entry || entry == &ips->unlimited)
        return;
    STOA_ASSERT(entry->sockets > 0);
    entry->sockets--;
}

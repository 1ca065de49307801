/* CORE. Endpoint texts of routers. */
#include "client/endpoint.h"

#define PORT_MAX 65535
#define SOCKET_PATH_MAX_BYTES 107 /* sockaddr_un.sun_path without its NUL */

static int invalid(struct strbuf *why, struct slice text, const char *what)
{
    strbuf_printf(why, "router \"%.*s\": %s", text.size < 100 ? (int)text.size : 100,
                  (const char *)text.data, what);
    return ERR_INVALID;
}

static bool begins(struct slice text, const char *with)
{
    size_t size = strlen(with);
    return text.size >= size && memcmp(text.data, with, size) == 0;
}

static struct slice skip(struct slice text, size_t size)
{
    return slice_of(text.data + size, text.size - size);
}

static bool port_valid(struct slice text)
{
    unsigned port = 0;
    if (text.size == 0 || text.size > 5)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        port = port * 10 + (unsigned)(text.data[i] - '0');
    }
    return port >= 1 && port <= PORT_MAX;
}

static bool host_valid(struct slice host)
{
    bool brackets = host.data[0] == '[';
    if (brackets && host.data[host.size - 1] != ']')
        return false;
    for (size_t i = 0; i < host.size; i++) {
        uint8_t c = host.data[i];
        if (c <= ' ' || c >= 0x7f || c == '/' || c == ';' || c == '@' || c == '*' ||
            (c == ':' && !brackets))
            return false;
    }
    return true;
}

static void compose(char out[ENDPOINT_MAX_BYTES], const char *scheme, struct slice rest)
{
    size_t size = strlen(scheme);
    STOA_ASSERT(size + rest.size < ENDPOINT_MAX_BYTES);
    memcpy(out, scheme, size);
    memcpy(out + size, rest.data, rest.size);
    out[size + rest.size] = '\0';
}

static int parse_tcp(struct slice text, char out[ENDPOINT_MAX_BYTES], struct strbuf *why)
{
    struct slice address = begins(text, "tcp://") ? skip(text, 6) : text;
    size_t colon = address.size;
    while (colon > 0 && address.data[colon - 1] != ':')
        colon--;
    if (colon < 2)
        return invalid(why, text, "host:port is wanted");
    if (!port_valid(skip(address, colon)))
        return invalid(why, text, "the port is a number from 1 to 65535");
    if (!host_valid(slice_of(address.data, colon - 1)))
        return invalid(why, text,
                       "a host's name or address is wanted, IPv6 in brackets: [::1]:7100");
    compose(out, "tcp://", address);
    return ERR_OK;
}

int endpoint_parse(struct slice text, char out[ENDPOINT_MAX_BYTES], struct strbuf *why)
{
    if (text.size + sizeof "tcp://" > ENDPOINT_MAX_BYTES)
        return invalid(why, text, "too long");
    if (begins(text, "ipc://")) {
        struct slice path = skip(text, 6);
        if (path.size == 0 || path.size > SOCKET_PATH_MAX_BYTES ||
            memchr(path.data, '\0', path.size))
            return invalid(why, text, "the path of a socket file is wanted, of at most 107 bytes");
        compose(out, "ipc://", path);
        return ERR_OK;
    }
    for (size_t i = 0; i + 3 <= text.size; i++)
        if (memcmp(text.data + i, "://", 3) == 0 && !begins(text, "tcp://"))
            return invalid(why, text, "only tcp:// and ipc:// are spoken");
    return parse_tcp(text, out, why);
}

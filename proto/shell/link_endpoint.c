/* SHELL. Endpoint texts: "tcp://host:port", "host:port", "ipc:///path". Names in listening
 * addresses are resolved here, because libzmq binds to addresses and interfaces only. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/shell/link_internal.h"

#define PORT_MAX 65535

static int invalid(struct strbuf *why, const char *text, const char *what)
{
    strbuf_printf(why, "endpoint \"%.*s\": %s", ENDPOINT_MAX_BYTES, text, what);
    return ERR_INVALID;
}

static bool port_valid(const char *text)
{
    unsigned port = 0;
    size_t digits = strlen(text);
    if (digits == 0 || digits > 5)
        return false;
    for (size_t i = 0; i < digits; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        port = port * 10 + (unsigned)(text[i] - '0');
    }
    return port >= 1 && port <= PORT_MAX;
}

static bool host_is_numeric(const char *host)
{
    return host[0] == '[' || host[strspn(host, "0123456789.")] == '\0';
}

/* Replaces a name by its first address, IPv4 before IPv6. */
static int host_resolve(const char *text, char *host, size_t host_size, struct strbuf *why)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(host, NULL, &hints, &found);
    if (rc != 0) {
        hints.ai_family = AF_INET6;
        rc = getaddrinfo(host, NULL, &hints, &found);
    }
    char address[NI_MAXHOST];
    if (rc == 0) {
        rc = getnameinfo(found->ai_addr, found->ai_addrlen, address, sizeof address, NULL, 0,
                         NI_NUMERICHOST);
        bool v6 = found->ai_family == AF_INET6;
        snprintf(host, host_size, "%s%.60s%s", v6 ? "[" : "", address, v6 ? "]" : "");
        freeaddrinfo(found);
    }
    if (rc != 0) {
        strbuf_printf(why, "cannot listen on \"%s\": %s: use an address, or 0.0.0.0 for all", text,
                      gai_strerror(rc));
        return ERR_INVALID;
    }
    return ERR_OK;
}

static int parse_tcp(const char *text, bool listen, struct link_endpoint *out, struct strbuf *why)
{
    const char *address = strncmp(text, "tcp://", 6) == 0 ? text + 6 : text;
    const char *colon = strrchr(address, ':');
    char host[256];
    if (!colon || colon == address)
        return invalid(why, text, "host:port is wanted");
    if (!port_valid(colon + 1))
        return invalid(why, text, "the port is a number from 1 to 65535");
    size_t size = (size_t)(colon - address);
    if (size >= sizeof host)
        return invalid(why, text, "the host's name is too long");
    memcpy(host, address, size);
    host[size] = '\0';
    if (host[0] != '[' && strchr(host, ':'))
        return invalid(why, text, "an IPv6 address stands in brackets: [::1]:7100");
    if (host[strcspn(host, "/;@ \t")] != '\0')
        return invalid(why, text, "host:port is wanted");
    if (strcmp(host, "*") == 0 && !listen)
        return invalid(why, text, "* is an address to listen on, not to dial");
    if (listen && !host_is_numeric(host) && strcmp(host, "*") != 0)
        TRY(host_resolve(text, host, sizeof host, why));
    snprintf(out->text, sizeof out->text, "tcp://%s:%s", host, colon + 1);
    return ERR_OK;
}

static int parse_ipc(const char *text, struct link_endpoint *out, struct strbuf *why)
{
    const char *path = text + strlen("ipc://");
    if (path[0] == '\0' || path[0] == '@' || path[0] == '*')
        return invalid(why, text, "the path of a socket file is wanted: its directory guards it");
    if (strlen(path) > SOCKET_PATH_MAX_BYTES) {
        strbuf_printf(why,
                      "endpoint \"%s\": the path has %zu bytes, a socket file's at most %d: use a "
                      "shorter directory",
                      text, strlen(path), SOCKET_PATH_MAX_BYTES);
        return ERR_INVALID;
    }
    out->ipc = true;
    snprintf(out->path, sizeof out->path, "%s", path);
    snprintf(out->text, sizeof out->text, "ipc://%s", path);
    return ERR_OK;
}

int link_endpoint_parse(const char *text, bool listen, struct link_endpoint *out,
                        struct strbuf *why)
{
    *out = (struct link_endpoint){0};
    if (strlen(text) >= ENDPOINT_MAX_BYTES)
        return invalid(why, text, "too long");
    if (strncmp(text, "ipc://", 6) == 0)
        return parse_ipc(text, out, why);
    if (strstr(text, "://") && strncmp(text, "tcp://", 6) != 0)
        return invalid(why, text, "only tcp:// and ipc:// are spoken");
    return parse_tcp(text, listen, out, why);
}

/* ---- socket files ---- */

static int directory_check(const char *path, struct strbuf *why)
{
    char directory[SOCKET_PATH_MAX_BYTES + 1];
    snprintf(directory, sizeof directory, "%s", path);
    char *slash = strrchr(directory, '/');
    if (!slash)
        return ERR_OK; /* the working directory */
    if (slash == directory)
        slash++;
    *slash = '\0';
    struct stat st;
    if (stat(directory, &st) != 0) {
        strbuf_printf(why, "cannot listen on ipc://%s: %s: %s; create it with mode 0700", path,
                      directory, strerror(errno));
        return ERR_IO;
    }
    if (!S_ISDIR(st.st_mode)) {
        strbuf_printf(why, "cannot listen on ipc://%s: %s is not a directory", path, directory);
        return ERR_IO;
    }
    return ERR_OK;
}

/* Whether a process answers at the socket file. */
static bool socket_file_alive(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    int rc = connect(fd, (const struct sockaddr *)&address, sizeof address);
    bool alive = rc == 0 || errno == EAGAIN || errno == EINPROGRESS;
    (void)close(fd);
    return alive;
}

int link_endpoint_clear(const struct link_endpoint *e, struct strbuf *why)
{
    TRY(directory_check(e->path, why));
    struct stat st;
    if (lstat(e->path, &st) != 0)
        return ERR_OK; /* nothing there; what else is wrong with the path the bind will tell */
    if (!S_ISSOCK(st.st_mode)) {
        strbuf_printf(why, "cannot listen on %s: a file that is not a socket is there", e->text);
        return ERR_REFUSED;
    }
    if (socket_file_alive(e->path)) {
        strbuf_printf(why,
                      "cannot listen on %s: another process listens there: stop it, or configure "
                      "another address",
                      e->text);
        return ERR_REFUSED;
    }
    (void)unlink(e->path); /* left behind by a process that was killed */
    return ERR_OK;
}

/* fanout.c - the ceiling: single-threaded epoll WebSocket fan-out, no routing, no persistence,
 * nothing but sockets. gcc -O2 -o fanout fanout.c ; ./fanout PORT [-c] GET /sub/ROOM (upgrade)
 * subscribe           POST /pub/ROOM   publish body, answer 200 GET /pub/ROOM (upgrade)      every
 * text frame received is published to ROOM default: one send() per message and subscriber, at once.
 * -c: coalesce - one send() per subscriber and loop turn. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
typedef struct conn conn;
typedef struct room room;
struct room {
    char *name;
    conn **s;
    int n, cap;
    char *p;
    int pn, pcap, dirty;
};
struct conn {
    int fd, ws, pub, idx;
    room *r;
    char *in;
    int inn;
    char *out;
    int on, oo, ocap;
};
static room **tab;
static int tcap = 1 << 16, tn;
static int ep, coal;
static room **dirty;
static int ndirty, cdirty;
static void sha1(const unsigned char *d, int n, unsigned char *o)
{
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0}, w[80];
    unsigned char b[256] = {0};
    memcpy(b, d, n);
    b[n] = 0x80;
    int t = (n + 72) / 64 * 64;
    uint64_t bits = n * 8ull;
    for (int i = 0; i < 8; i++)
        b[t - 1 - i] = bits >> (8 * i);
    for (int c = 0; c < t; c += 64) {
        for (int i = 0; i < 16; i++)
            w[i] = b[c + i * 4] << 24 | b[c + i * 4 + 1] << 16 | b[c + i * 4 + 2] << 8 |
                   b[c + i * 4 + 3];
        for (int i = 16; i < 80; i++) {
            uint32_t x = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16];
            w[i] = x << 1 | x >> 31;
        }
        uint32_t a = h[0], e = h[4], bb = h[1], cc = h[2], dd = h[3];
        for (int i = 0; i < 80; i++) {
            uint32_t f, k;
            if (i < 20)
                f = (bb & cc) | (~bb & dd), k = 0x5A827999;
            else if (i < 40)
                f = bb ^ cc ^ dd, k = 0x6ED9EBA1;
            else if (i < 60)
                f = (bb & cc) | (bb & dd) | (cc & dd), k = 0x8F1BBCDC;
            else
                f = bb ^ cc ^ dd, k = 0xCA62C1D6;
            uint32_t T = (a << 5 | a >> 27) + f + e + k + w[i];
            e = dd;
            dd = cc;
            cc = bb << 30 | bb >> 2;
            bb = a;
            a = T;
        }
        h[0] += a;
        h[1] += bb;
        h[2] += cc;
        h[3] += dd;
        h[4] += e;
    }
    for (int i = 0; i < 20; i++)
        o[i] = h[i / 4] >> (24 - 8 * (i % 4));
}
static room *getroom(const char *n, int l)
{
    uint32_t h = 2166136261u;
    for (int i = 0; i < l; i++)
        h = (h ^ (unsigned char)n[i]) * 16777619u;
    for (uint32_t i = h & (tcap - 1);; i = (i + 1) & (tcap - 1)) {
        if (!tab[i]) {
            tab[i] = calloc(1, sizeof(room));
            tab[i]->name = strndup(n, l);
            tn++;
            return tab[i];
        }
        if (!strncmp(tab[i]->name, n, l) && !tab[i]->name[l])
            return tab[i];
    }
}
static void drop(conn *c)
{
    if (c->r && c->ws && !c->pub) {
        room *r = c->r;
        r->s[c->idx] = r->s[--r->n];
        r->s[c->idx]->idx = c->idx;
    }
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}
static void put(conn *c, const char *d, int n)
{ /* never drops c: a broken socket reports itself by EPOLLHUP */
    if (c->oo == c->on) {
        ssize_t r = send(c->fd, d, n, MSG_NOSIGNAL);
        if (r == n)
            return;
        if (r < 0) {
            if (errno != EAGAIN)
                return;
            r = 0;
        }
        d += r;
        n -= r;
        c->oo = c->on = 0;
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
    }
    if (c->on - c->oo + n > (64 << 20))
        return;
    if (c->on + n > c->ocap) {
        memmove(c->out, c->out + c->oo, c->on - c->oo);
        c->on -= c->oo;
        c->oo = 0;
        if (c->on + n > c->ocap)
            c->out = realloc(c->out, c->ocap = (c->on + n) * 2);
    }
    memcpy(c->out + c->on, d, n);
    c->on += n;
}
static void publish(room *r, const char *d, int n)
{
    char h[10];
    int k = 2;
    h[0] = (char)0x81;
    if (n < 126)
        h[1] = n;
    else if (n < 65536) {
        h[1] = 126;
        h[2] = n >> 8;
        h[3] = n;
        k = 4;
    } else {
        h[1] = 127;
        memset(h + 2, 0, 4);
        for (int i = 0; i < 4; i++)
            h[6 + i] = n >> (24 - 8 * i);
        k = 10;
    }
    if (r->pn + n + k > r->pcap)
        r->p = realloc(r->p, r->pcap = (r->pn + n + k) * 2);
    memcpy(r->p + r->pn, h, k);
    memcpy(r->p + r->pn + k, d, n);
    r->pn += n + k;
    if (coal) {
        if (!r->dirty) {
            r->dirty = 1;
            if (ndirty == cdirty)
                dirty = realloc(dirty, sizeof *dirty * (cdirty = cdirty * 2 + 64));
            dirty[ndirty++] = r;
        }
        return;
    }
    for (int i = 0; i < r->n; i++)
        put(r->s[i], r->p, r->pn);
    r->pn = 0;
}
static int http(conn *c, char *b, int n)
{ /* bytes used, 0 more, -1 close */
    char *e = memmem(b, n, "\r\n\r\n", 4);
    if (!e)
        return n > 8192 ? -1 : 0;
    int hl = e - b + 4;
    char sv = b[hl - 1];
    b[hl - 1] = 0;
    char *p = strchr(b, ' '), *q = p ? strchr(p + 1, ' ') : 0;
    if (!q)
        return -1;
    char *key = strcasestr(b, "Sec-WebSocket-Key:"), *cl = strcasestr(b, "Content-Length:");
    int bl = cl ? atoi(cl + 15) : 0;
    p++;
    int pub = !strncmp(p, "/pub/", 5);
    char *rn = p + 5;
    int rl = strcspn(rn, " ?");
    b[hl - 1] = sv;
    if (!pub && strncmp(p, "/sub/", 5))
        return -1;
    if (key) {
        key += 18;
        while (*key == ' ')
            key++;
        int kl = strcspn(key, "\r\n ");
        if (kl > 100)
            return -1;
        unsigned char t[200], s[20];
        memcpy(t, key, kl);
        memcpy(t + kl, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
        sha1(t, kl + 36, s);
        static const char B[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        char a[32];
        int k = 0;
        for (int i = 0; i < 18; i += 3) {
            uint32_t v = s[i] << 16 | s[i + 1] << 8 | s[i + 2];
            a[k++] = B[v >> 18];
            a[k++] = B[v >> 12 & 63];
            a[k++] = B[v >> 6 & 63];
            a[k++] = B[v & 63];
        }
        uint32_t v = s[18] << 16 | s[19] << 8;
        a[k++] = B[v >> 18];
        a[k++] = B[v >> 12 & 63];
        a[k++] = B[v >> 6 & 63];
        a[k++] = '=';
        a[k] = 0;
        c->ws = 1;
        c->pub = pub;
        c->r = getroom(rn, rl);
        if (!pub) {
            room *r = c->r;
            if (r->n == r->cap)
                r->s = realloc(r->s, sizeof *r->s * (r->cap = r->cap * 2 + 1));
            c->idx = r->n;
            r->s[r->n++] = c;
        }
        char o[256];
        int l = sprintf(o,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
                        "Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                        a);
        put(c, o, l);
        return hl;
    }
    if (n < hl + bl)
        return 0;
    publish(getroom(rn, rl), b + hl, bl);
    static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    put(c, ok, sizeof ok - 1);
    return hl + bl;
}
static int wsin(conn *c, char *b, int n)
{
    if (n < 2)
        return 0;
    unsigned char *p = (void *)b;
    uint64_t l = p[1] & 127;
    int h = 2;
    if (l == 126) {
        if (n < 4)
            return 0;
        l = p[2] << 8 | p[3];
        h = 4;
    } else if (l == 127)
        return -1;
    if (!(p[1] & 128))
        return -1;
    h += 4;
    if ((uint64_t)n < h + l)
        return 0;
    unsigned char *m = p + h - 4, *d = p + h;
    for (uint64_t i = 0; i < l; i++)
        d[i] ^= m[i & 3];
    int op = p[0] & 15;
    if (op == 8)
        return -1;
    if (op == 9) {
        char o[140];
        o[0] = (char)0x8a;
        o[1] = l;
        memcpy(o + 2, d, l);
        put(c, o, l + 2);
    } else if (op == 1 && c->pub)
        publish(c->r, (char *)d, l);
    return h + l;
}
int main(int ac, char **av)
{
    coal = ac > 2 && !strcmp(av[2], "-c");
    tab = calloc(tcap, sizeof *tab);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit rl;
    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
    int one = 1, ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(atoi(av[1])),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(ls, (void *)&a, sizeof a) || listen(ls, 4096)) {
        perror("bind");
        return 1;
    }
    ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = 0};
    epoll_ctl(ep, EPOLL_CTL_ADD, ls, &e);
    static struct epoll_event ev[1024];
    static char buf[1 << 18];
    for (;;) {
        int n = epoll_wait(ep, ev, 1024, -1);
        for (int i = 0; i < n; i++) {
            conn *c = ev[i].data.ptr;
            if (!c) {
                int fd;
                while ((fd = accept4(ls, 0, 0, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    c = calloc(1, sizeof *c);
                    c->fd = fd;
                    e.events = EPOLLIN;
                    e.data.ptr = c;
                    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
                }
                continue;
            }
            if (ev[i].events & EPOLLOUT) {
                ssize_t r = send(c->fd, c->out + c->oo, c->on - c->oo, MSG_NOSIGNAL);
                if (r > 0)
                    c->oo += r;
                if (c->oo == c->on) {
                    e.events = EPOLLIN;
                    e.data.ptr = c;
                    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
                    c->oo = c->on = 0;
                }
            }
            if (!(ev[i].events & ~EPOLLOUT))
                continue;
            int off = c->inn;
            if (off)
                memcpy(buf, c->in, off);
            ssize_t r = recv(c->fd, buf + off, sizeof buf - off, 0);
            if (r <= 0) {
                if (r < 0 && errno == EAGAIN)
                    continue;
                drop(c);
                continue;
            }
            int t = off + r, u = 0, k = 0;
            while (u < t && (k = c->ws ? wsin(c, buf + u, t - u) : http(c, buf + u, t - u)) > 0)
                u += k;
            if (k < 0) {
                drop(c);
                continue;
            }
            c->inn = t - u;
            if (c->inn) {
                c->in = realloc(c->in, c->inn);
                memcpy(c->in, buf + u, c->inn);
            } else if (c->in) {
                free(c->in);
                c->in = 0;
            }
        }
        for (int i = 0; i < ndirty; i++) {
            room *r = dirty[i];
            r->dirty = 0;
            for (int k = 0; k < r->n; k++)
                put(r->s[k], r->p, r->pn);
            r->pn = 0;
        }
        ndirty = 0;
    }
}

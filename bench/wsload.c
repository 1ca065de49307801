/* wsload.c - neutral WebSocket fan-out load generator (libc only, single thread, epoll).
 * Build: gcc -O2 -Wall -o wsload wsload.c -ldl        Run: ./wsload --help
 *
 * Every published payload is   {"wl":RUN,"r":ROOM,"s":SEQ,"t":NS,"p":"xxx..."}   of exactly --size
 * bytes. t = CLOCK_MONOTONIC ns of the INTENDED send time in open loop (--rate), so a stalled
 * server is charged for the wait (coordinated-omission safe); the actual send time in closed loop
 * (no --rate). s = per-room sequence, first is 1. A subscriber finds "wl" anywhere in the received
 * message, then takes the next four integers. So a server may wrap or re-encode the payload as long
 * as it keeps the key order.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint8_t u8;
typedef int64_t i64;
#define WSKEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WSACC "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static inline u64 now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}
static void die(const char *f, ...)
{
    va_list a;
    va_start(a, f);
    vfprintf(stderr, f, a);
    va_end(a);
    fputc('\n', stderr);
    exit(2);
}

/* ---------- log-linear histogram: 128 sub-buckets per power of two, <0.8% error ---------- */
#define HB 7
#define HN ((44 - HB + 2) << HB)
typedef struct {
    u64 c[HN], n, max, min, sum;
} hist;
static inline int hidx(u64 v)
{
    if (v < (1u << (HB + 1)))
        return (int)v;
    int e = 63 - __builtin_clzll(v) - HB;
    int i = (e << HB) + (int)(v >> e);
    return i < HN ? i : HN - 1;
}
static u64 hval(int i)
{
    if (i < (1 << (HB + 1)))
        return i;
    int e = (i >> HB) - 1;
    return (((u64)i - ((u64)e << HB)) << e) + (1ull << e) / 2;
}
static inline void hadd(hist *h, u64 v)
{
    h->c[hidx(v)]++;
    if (!h->n || v < h->min)
        h->min = v;
    h->n++;
    h->sum += v;
    if (v > h->max)
        h->max = v;
}
static double hq(hist *h, double q)
{ /* microseconds */
    if (!h->n)
        return 0;
    u64 t = (u64)(q * h->n + 0.5), s = 0;
    if (t < 1)
        t = 1;
    for (int i = 0; i < HN; i++) {
        s += h->c[i];
        if (s >= t) {
            u64 v = hval(i);
            return (v > h->max ? h->max : v) / 1e3;
        }
    }
    return h->max / 1e3;
}

/* ---------- options ---------- */
static char *o_url, *o_pub, *o_body = "{payload}", *o_method = "POST", *o_prefix, *o_ready,
                            *o_subproto, *o_label = "", *o_pubinit, *o_cmd;
static char *o_roomfmt = "r%06d", *o_inits[8];
static int n_inits, o_initbin, o_pubbin;
static char *o_hdrs[16], *o_subhdrs[16];
static int n_hdrs, n_subhdrs;
static int o_conns = 1, o_rooms = 1, o_size = 200, o_pubconns = 1, o_pipe = 1, o_conc = 256, o_json,
           o_stream, o_deflate, o_spread, o_nopub, o_spin, o_cmdown, o_replay;
static double o_rate, o_dur = 5, o_warm = 1, o_drain = 3, o_hold, o_ctmo = 30, o_settle = 0.5;
static i64 o_count = -1, o_window;
static int o_srcs = 1;
static int pids[64], n_pids;
static u32 o_first;

/* ---------- templates ---------- */
enum { T_LIT, T_ROOM, T_I, T_N, T_PAY, T_ESC, T_LEN };
typedef struct {
    int k;
    char *s;
    int len;
} seg;
typedef struct {
    seg v[64];
    int n;
} tmpl;
static void addseg(tmpl *t, int k, const char *s, int len)
{
    if (k == T_LIT && !len)
        return;
    if (t->n == 64)
        die("template too long");
    t->v[t->n].k = k;
    t->v[t->n].s = s ? memcpy(malloc(len + 1), s, len) : 0;
    t->v[t->n++].len = len;
}
static void tcompile(tmpl *t, const char *s, int esc)
{
    char *b = malloc(strlen(s) + 1);
    int n = 0;
    t->n = 0;
    static const struct {
        const char *k;
        int id;
    } K[] = {{"{room}", T_ROOM},       {"{i}", T_I},    {"{n}", T_N}, {"{payload}", T_PAY},
             {"{payload_esc}", T_ESC}, {"{len}", T_LEN}};
    while (*s) {
        if (esc && *s == '\\' && s[1]) {
            char c = s[1];
            s += 2;
            if (c == 'r')
                b[n++] = '\r';
            else if (c == 'n')
                b[n++] = '\n';
            else if (c == 't')
                b[n++] = '\t';
            else if (c == '\\')
                b[n++] = '\\';
            else if (c == 'x') {
                char h[3] = {s[0], s[1], 0};
                b[n++] = (char)strtol(h, 0, 16);
                s += 2;
            } else {
                b[n++] = '\\';
                b[n++] = c;
            }
            continue;
        }
        int hit = 0;
        if (*s == '{')
            for (unsigned i = 0; i < sizeof K / sizeof *K; i++) {
                int l = strlen(K[i].k);
                if (!strncmp(s, K[i].k, l)) {
                    addseg(t, T_LIT, b, n);
                    n = 0;
                    addseg(t, K[i].id, 0, 0);
                    s += l;
                    hit = 1;
                    break;
                }
            }
        if (!hit)
            b[n++] = *s++;
    }
    addseg(t, T_LIT, b, n);
    free(b);
}
static inline int putu(char *p, u64 v)
{
    char b[24];
    int n = 0;
    do
        b[n++] = '0' + v % 10;
    while (v /= 10);
    for (int i = 0; i < n; i++)
        p[i] = b[n - 1 - i];
    return n;
}
static char **roomname;
static int *roomlen;
static int trender(tmpl *t, char *o, u32 room, u64 n, const char *pay, int plen)
{
    char *p = o;
    for (int i = 0; i < t->n; i++)
        switch (t->v[i].k) {
        case T_LIT:
            memcpy(p, t->v[i].s, t->v[i].len);
            p += t->v[i].len;
            break;
        case T_ROOM:
            memcpy(p, roomname[room], roomlen[room]);
            p += roomlen[room];
            break;
        case T_I:
            p += putu(p, room);
            break;
        case T_N:
            p += putu(p, n);
            break;
        case T_LEN:
            p += putu(p, plen);
            break;
        case T_PAY:
            memcpy(p, pay, plen);
            p += plen;
            break;
        case T_ESC:
            for (int k = 0; k < plen; k++) {
                if (pay[k] == '"')
                    *p++ = '\\';
                *p++ = pay[k];
            }
            break;
        }
    return p - o;
}

/* ---------- url ---------- */
typedef struct {
    char scheme[8];
    char host[108];
    int port;
    char *path;
} url;
static void uparse(url *u, const char *s)
{
    const char *p = strstr(s, "://");
    if (!p)
        die("bad url %s", s);
    snprintf(u->scheme, sizeof u->scheme, "%.*s", (int)(p - s), s);
    p += 3;
    int hl = strcspn(p, ":/?");
    snprintf(u->host, sizeof u->host, "%.*s", hl, p);
    p += hl;
    u->port = 80;
    if (*p == ':')
        u->port = strtol(p + 1, (char **)&p, 10);
    u->path = strdup(*p ? p : "/");
    if (!strcmp(u->host, "localhost"))
        strcpy(u->host, "127.0.0.1");
}

/* ---------- state ---------- */
enum { K_SUB = 1, K_HTTP, K_WS, K_TCP, K_CMD };
enum { S_CONN, S_HS, S_WAIT, S_OPEN, S_DEAD };
typedef struct {
    u32 r, s;
    u64 t;
} msg;
typedef struct {
    void *next_in;
    unsigned avail_in;
    unsigned long total_in;
    void *next_out;
    unsigned avail_out;
    unsigned long total_out;
    char *m;
    void *st;
    void *a, *f, *o;
    int dt;
    unsigned long ad, rs;
} zs;
#define OW 1024 /* order window: a message late by more than this counts as a duplicate */
typedef struct conn {
    int fd;
    u8 kind, st, defl, initi, rdy;
    u32 id, room, last;
    u64 seen[OW / 64], h, t0;
    u32 nrx;
    char *part;
    u32 plen, pcap; /* unparsed input */
    char *frag;
    u32 flen, fcap;
    u8 fcomp; /* fragmented message, or stream tail */
    zs *z;
} conn;
typedef struct {
    conn c;
    int wfd;
    char *ob;
    u32 on, oo, ocap;
    msg *q;
    u32 qh, qt, qcap;
    msg *fl;
    u32 fh, ft, fcap;
    int inflight;
    u32 rnext;
    int want;
} pubc;
static conn *subs;
static pubc *pubs;
static int ep;
static u32 *rseq, *rsubs, *rmeas;
static u32 runid;
static hist H, HA, HC;
static u64 t_meas = ~0ull, t_end = ~0ull, t_last;
static u64 n_open, n_fail, n_closed, n_ign, n_deliv, n_dwin, n_exp, n_gap, n_dup, n_ooo, n_pub,
    n_pubm, n_ack, n_ackm, n_ackw, n_badst, n_bytes, n_dall, n_eall, n_early;
static tmpl t_ready, t_path, t_init[8], t_pubpath, t_body, t_pubinit;
static url u_sub, u_pub;
static int conn_next, conn_fly;
static u64 win_base;
static int badst_last;
static char rbuf[1 << 18], wtmp[1 << 20], ptmp[1 << 20], otmp[1 << 19];
static int (*z_init)(zs *, int, const char *, int), (*z_inf)(zs *, int);

static void epadd(int fd, void *p, u32 ev)
{
    struct epoll_event e = {.events = ev, .data.ptr = p};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e))
        die("epoll add: %s", strerror(errno));
}
static void epmod(int fd, void *p, u32 ev)
{
    struct epoll_event e = {.events = ev, .data.ptr = p};
    epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e);
}

static int dial(url *u, u32 id)
{
    int fd, one = 1;
    if (!strncmp(u->host, "127.", 4) || isdigit(u->host[0])) {
        fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            fprintf(stderr, "socket: %s\n", strerror(errno));
            return -1;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (o_srcs > 1) {
            struct sockaddr_in s = {.sin_family = AF_INET};
            s.sin_addr.s_addr = htonl(0x7f000001 + id % o_srcs);
            setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
            bind(fd, (void *)&s, sizeof s);
        }
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(u->port)};
        inet_pton(AF_INET, u->host, &a.sin_addr);
        if (connect(fd, (void *)&a, sizeof a) && errno != EINPROGRESS) {
            close(fd);
            return -1;
        }
        return fd;
    }
    die("host must be an IPv4 address: %s", u->host);
    return -1;
}

static int wsframe(char *o, int op, const char *d, int n)
{ /* client frame, mask key chosen so data is really masked */
    u8 m[4] = {0x37, 0xfa, 0x21, 0x3d};
    int h = 2;
    o[0] = 0x80 | op;
    if (n < 126)
        o[1] = 0x80 | n;
    else if (n < 65536) {
        o[1] = (char)(0x80 | 126);
        o[2] = n >> 8;
        o[3] = n;
        h = 4;
    } else {
        o[1] = (char)(0x80 | 127);
        memset(o + 2, 0, 4);
        for (int i = 0; i < 4; i++)
            o[6 + i] = n >> (24 - 8 * i);
        h = 10;
    }
    memcpy(o + h, m, 4);
    h += 4;
    for (int i = 0; i < n; i++)
        o[h + i] = d[i] ^ m[i & 3];
    return h + n;
}
static void handshake(conn *c, url *u, tmpl *path)
{
    char p[4096];
    int n = trender(path, p, c->room, c->id, "", 0);
    p[n] = 0;
    n = sprintf(wtmp,
                "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: "
                "Upgrade\r\nSec-WebSocket-Key: " WSKEY "\r\nSec-WebSocket-Version: 13\r\n",
                p, u->host, u->port);
    if (o_subproto)
        n += sprintf(wtmp + n, "Sec-WebSocket-Protocol: %s\r\n", o_subproto);
    if (o_deflate && c->kind == K_SUB)
        n += sprintf(wtmp + n, "Sec-WebSocket-Extensions: permessage-deflate%s\r\n",
                     o_deflate == 2 ? "; server_no_context_takeover; client_no_context_takeover"
                                    : "");
    if (c->kind == K_SUB)
        for (int i = 0; i < n_subhdrs; i++)
            n += sprintf(wtmp + n, "%s\r\n", o_subhdrs[i]);
    n += sprintf(wtmp + n, "\r\n");
    if (send(c->fd, wtmp, n, MSG_NOSIGNAL) != n)
        c->st = S_DEAD;
}
static int parse_hs(conn *c, const char *b, int n)
{ /* bytes consumed, 0 = more, -1 = fail */
    char *e = memmem(b, n, "\r\n\r\n", 4);
    if (!e)
        return 0;
    int l = e - b + 4;
    char *h = strndup(b, l);
    int ok = !strncmp(h, "HTTP/1.1 101", 12) && strstr(h, WSACC);
    if (!ok) {
        static int shown;
        if (!shown++)
            fprintf(stderr, "handshake refused: %.300s\n", h);
    }
    if (ok && strcasestr(h, "permessage-deflate")) {
        c->defl = strcasestr(h, "server_no_context_takeover") ? 2 : 1;
    }
    free(h);
    return ok ? l : -1;
}

/* ---------- delivery accounting ---------- */
static void deliver(conn *c, u32 r, u32 s, u64 t, u64 now)
{
    if (r != c->room || !s) {
        n_ign++;
        return;
    }
    n_dall++;
    c->nrx++;
    if (s > c->last) {
        u32 d = s - c->last;
        if (d > 1) {
            if (c->last || s > o_first)
                n_gap += d - 1;
        }
        if (d >= OW)
            memset(c->seen, 0, sizeof c->seen);
        else
            for (u32 k = c->last + 1; k < s; k++)
                c->seen[k % OW / 64] &= ~(1ull << k % 64);
        c->seen[s % OW / 64] |= 1ull << s % 64;
        c->last = s;
    } else {
        u32 d = c->last - s;
        if (d >= OW || (c->seen[s % OW / 64] >> s % 64) & 1) {
            n_dup++;
            n_dall--;
            return;
        }
        c->seen[s % OW / 64] |= 1ull << s % 64;
        n_ooo++;
        if (n_gap)
            n_gap--;
    }
    c->h = (c->h ^ s) * 1099511628211ull;
    t_last = now;
    if (now >= t_meas && now < t_end)
        n_dwin++;
    if (t >= t_meas) {
        n_deliv++;
        hadd(&H, now > t ? now - t : 0);
        if (now < t)
            n_early++;
    }
}
static int scan(conn *c, const char *b, int n, u64 now, const char **tail)
{ /* one message; returns 1 if parsed */
    const char *e = b + n, *p = b;
    int got = 0;
    if (tail)
        *tail = e;
    for (;;) {
        const char *m = p;
        for (;;) {
            m = memchr(m, 'w', e - m);
            if (!m)
                break;
            if (m + 2 > e - 1) {
                if (tail) {
                    *tail = m;
                    return got;
                }
                m = 0;
                break;
            }
            if (m[1] == 'l' && (m[2] == '"' || m[2] == '\\'))
                break;
            m++;
        }
        if (!m)
            return got;
        u64 v[4];
        const char *x = m + 2;
        int k;
        for (k = 0; k < 4; k++) {
            int lim = 12;
            while (x < e && !isdigit((u8)*x) && lim--)
                x++;
            if (x >= e || !isdigit((u8)*x))
                break;
            u64 q = 0;
            while (x < e && isdigit((u8)*x))
                q = q * 10 + *x++ - '0';
            v[k] = q;
            if (x >= e)
                break;
        }
        if (k < 4) {
            if (tail && x >= e) {
                *tail = m;
                return got;
            }
            p = m + 2;
            continue;
        }
        if (v[0] == runid) {
            deliver(c, v[1], v[2], v[3], now);
            got = 1;
        } else {
            n_ign++;
            got = 1;
        }
        if (!tail)
            return got;
        p = x;
    }
}
static void sub_ready(conn *c, u64 now)
{
    c->st = S_OPEN;
    c->rdy = 1;
    n_open++;
    conn_fly--;
    hadd(&HC, now - c->t0);
}
static void send_inits(conn *c)
{
    for (int i = 0; i < n_inits; i++) {
        int n = trender(&t_init[i], ptmp, c->room, c->id, "", 0);
        n = wsframe(wtmp, o_initbin ? 2 : 1, ptmp, n);
        if (send(c->fd, wtmp, n, MSG_NOSIGNAL) != n) {
            c->st = S_DEAD;
            return;
        }
    }
}
static void on_msg(conn *c, char *d, int n, int comp, u64 now)
{
    if (comp) {
        if (!c->z) {
            c->z = calloc(1, sizeof(zs));
            if (z_init(c->z, -15, "1.2.11", sizeof(zs)))
                die("inflateInit");
        }
        static char in[1 << 19];
        if (n + 4 > (int)sizeof in)
            return;
        memcpy(in, d, n);
        memcpy(in + n, "\0\0\xff\xff", 4);
        c->z->next_in = in;
        c->z->avail_in = n + 4;
        c->z->next_out = otmp;
        c->z->avail_out = sizeof otmp;
        int r = z_inf(c->z, 2);
        if (r != 0 && r != -5 && r != 1) {
            n_ign++;
            return;
        }
        n = sizeof otmp - c->z->avail_out;
        d = otmp;
    }
    n_bytes += n;
    if (c->st == S_WAIT) {
        if (memmem(d, n, t_ready.v[0].s, t_ready.v[0].len))
            sub_ready(c, now);
        if (!o_stream)
            return;
    }
    if (o_prefix && (n < (int)strlen(o_prefix) || memcmp(d, o_prefix, strlen(o_prefix)))) {
        n_ign++;
        return;
    }
    if (!o_stream) {
        if (!scan(c, d, n, now, 0))
            n_ign++;
        return;
    }
    if (c->flen) {
        if (c->flen + n > c->fcap)
            c->frag = realloc(c->frag, c->fcap = c->flen + n);
        memcpy(c->frag + c->flen, d, n);
        c->flen += n;
        d = c->frag;
        n = c->flen;
    }
    const char *tail;
    scan(c, d, n, now, &tail);
    int left = d + n - tail;
    if (left > (int)c->fcap) {
        char *nb = malloc(left);
        memcpy(nb, tail, left);
        free(c->frag);
        c->frag = nb;
        c->fcap = left;
    } else if (left)
        memmove(c->frag, tail, left);
    c->flen = left;
}
static int ws_frames(conn *c, char *b, int n, u64 now)
{ /* bytes consumed */
    int used = 0;
    while (n - used >= 2 && c->st != S_DEAD) {
        u8 *p = (u8 *)b + used;
        int av = n - used, h = 2;
        u64 l = p[1] & 127;
        if (l == 126) {
            if (av < 4)
                break;
            l = p[2] << 8 | p[3];
            h = 4;
        } else if (l == 127) {
            if (av < 10)
                break;
            l = 0;
            for (int i = 0; i < 8; i++)
                l = l << 8 | p[2 + i];
            h = 10;
        }
        if (l > (1 << 26)) {
            c->st = S_DEAD;
            break;
        }
        if ((u64)av < h + l)
            break;
        int op = p[0] & 15, fin = p[0] >> 7, comp = (p[0] >> 6) & 1;
        char *d = (char *)p + h;
        if (op == 9) {
            int k = wsframe(wtmp, 10, d, l > 125 ? 125 : l);
            send(c->fd, wtmp, k, MSG_NOSIGNAL);
        } else if (op == 8) {
            c->st = S_DEAD;
            break;
        } else if (op == 10) {
        } else if (c->kind != K_SUB) {
        } else if (fin && op)
            on_msg(c, d, l, comp && c->defl, now);
        else if (!o_stream) {
            if (op) {
                c->flen = 0;
                c->fcomp = comp && c->defl;
            }
            if (c->flen + l > c->fcap)
                c->frag = realloc(c->frag, c->fcap = (c->flen + l) * 2);
            memcpy(c->frag + c->flen, d, l);
            c->flen += l;
            if (fin) {
                on_msg(c, c->frag, c->flen, c->fcomp, now);
                c->flen = 0;
            }
        } else
            on_msg(c, d, l, 0, now);
        used += h + l;
    }
    return used;
}
static void conn_dead(conn *c)
{
    if (c->fd < 0)
        return;
    epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, 0);
    close(c->fd);
    c->fd = -1;
    if (c->kind == K_SUB) {
        if (c->rdy)
            n_closed++;
        else {
            n_fail++;
            conn_fly--;
        }
    }
    c->st = S_DEAD;
}
static void start_sub(int i)
{
    conn *c = &subs[i];
    c->kind = K_SUB;
    c->id = i;
    c->room = i % o_rooms;
    c->t0 = now_ns();
    c->fd = dial(&u_sub, i);
    conn_fly++;
    if (c->fd < 0) {
        n_fail++;
        conn_fly--;
        c->st = S_DEAD;
        return;
    }
    c->st = S_CONN;
    epadd(c->fd, c, EPOLLOUT | EPOLLIN);
}
static void on_sub(conn *c, u32 ev)
{
    if (c->fd < 0)
        return;
    if (c->st == S_CONN) {
        int e = 0;
        socklen_t l = sizeof e;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &l);
        if (e) {
            static int sh;
            if (!sh++)
                fprintf(stderr, "connect: %s\n", strerror(e));
            conn_dead(c);
            return;
        }
        if (!(ev & EPOLLOUT))
            return;
        c->st = S_HS;
        handshake(c, &u_sub, &t_path);
        epmod(c->fd, c, EPOLLIN);
        if (c->st == S_DEAD)
            conn_dead(c);
        return;
    }
    char *b = rbuf;
    int off = 0;
    if (c->plen) {
        memcpy(rbuf, c->part, c->plen);
        off = c->plen;
    }
    ssize_t r = recv(c->fd, rbuf + off, sizeof rbuf - off, 0);
    if (r <= 0) {
        if (r < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        conn_dead(c);
        return;
    }
    u64 now = now_ns();
    int n = off + r, used = 0;
    if (c->st == S_HS) {
        int k = parse_hs(c, b, n);
        if (k < 0) {
            conn_dead(c);
            return;
        }
        if (k) {
            used = k;
            c->initi = 99;
            send_inits(c);
            if (c->st != S_DEAD) {
                if (o_ready)
                    c->st = S_WAIT;
                else
                    sub_ready(c, now);
            }
        }
    }
    if (c->st == S_WAIT || c->st == S_OPEN)
        used += ws_frames(c, b + used, n - used, now);
    int left = n - used;
    if (left) {
        if (left > (int)c->pcap) {
            free(c->part);
            c->part = malloc(c->pcap = left < 512 ? 512 : left);
        }
        memcpy(c->part, b + used, left);
    } else if (c->pcap > 4096) {
        free(c->part);
        c->part = 0;
        c->pcap = 0;
    }
    c->plen = left;
    if (c->st == S_DEAD)
        conn_dead(c);
}

/* ---------- publisher ---------- */
static void ogrow(pubc *p, u32 n)
{
    if (p->oo && p->oo == p->on)
        p->oo = p->on = 0;
    if (p->on + n > p->ocap) {
        if (p->oo) {
            memmove(p->ob, p->ob + p->oo, p->on - p->oo);
            p->on -= p->oo;
            p->oo = 0;
        }
        if (p->on + n > p->ocap)
            p->ob = realloc(p->ob, p->ocap = (p->on + n) * 2);
    }
}
static void qpush(msg **q, u32 *h, u32 *t, u32 *cap, msg m)
{
    if (*t - *h == *cap) {
        u32 nc = *cap ? *cap * 2 : 256;
        msg *nq = malloc(nc * sizeof *nq);
        for (u32 i = 0; i < *cap; i++)
            nq[i] = (*q)[(*h + i) & (*cap - 1)];
        free(*q);
        *q = nq;
        *t -= *h;
        *h = 0;
        *cap = nc;
    }
    (*q)[(*t)++ & (*cap - 1)] = m;
}
static void oflush(pubc *p)
{
    while (p->oo < p->on) {
        ssize_t r = p->c.kind == K_CMD ? write(p->wfd, p->ob + p->oo, p->on - p->oo)
                                       : send(p->c.fd, p->ob + p->oo, p->on - p->oo, MSG_NOSIGNAL);
        if (r < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EAGAIN) {
                if (!p->want) {
                    p->want = 1;
                    if (p->c.kind != K_CMD)
                        epmod(p->c.fd, p, EPOLLIN | EPOLLOUT);
                }
                return;
            }
            die("publisher write: %s", strerror(errno));
        }
        p->oo += r;
    }
    if (p->want) {
        p->want = 0;
        if (p->c.kind != K_CMD)
            epmod(p->c.fd, p, EPOLLIN);
    }
}
static int mkpayload(char *o, u32 r, u32 s, u64 t)
{
    char *p = o;
    memcpy(p, "{\"wl\":", 6);
    p += 6;
    p += putu(p, runid);
    memcpy(p, ",\"r\":", 5);
    p += 5;
    p += putu(p, r);
    memcpy(p, ",\"s\":", 5);
    p += 5;
    p += putu(p, s);
    memcpy(p, ",\"t\":", 5);
    p += 5;
    p += putu(p, t);
    memcpy(p, ",\"p\":\"", 6);
    p += 6;
    int pad = o_size - (p - o) - 2;
    if (pad > 0) {
        memset(p, 'x', pad);
        p += pad;
    }
    *p++ = '"';
    *p++ = '}';
    return p - o;
}
static void emit(pubc *p, msg m)
{
    char pay[1 << 16];
    int pl = mkpayload(pay, m.r, m.s, m.t);
    ogrow(p, pl * 2 + 8192);
    char *o = p->ob + p->on;
    int n;
    if (p->c.kind == K_HTTP) {
        static char bod[1 << 17];
        int bl = trender(&t_body, bod, m.r, m.s, pay, pl), k = 0;
        k = sprintf(o, "%s ", o_method);
        k += trender(&t_pubpath, o + k, m.r, m.s, pay, pl);
        k += sprintf(o + k, " HTTP/1.1\r\nHost: %s:%d\r\nContent-Length: %d\r\n", u_pub.host,
                     u_pub.port, bl);
        for (int i = 0; i < n_hdrs; i++)
            k += sprintf(o + k, "%s\r\n", o_hdrs[i]);
        o[k++] = '\r';
        o[k++] = '\n';
        memcpy(o + k, bod, bl);
        n = k + bl;
        p->inflight++;
        qpush(&p->fl, &p->fh, &p->ft, &p->fcap, m);
    } else if (p->c.kind == K_WS) {
        int bl = trender(&t_body, ptmp, m.r, m.s, pay, pl);
        n = wsframe(o, o_pubbin ? 2 : 1, ptmp, bl);
    } else {
        n = trender(&t_body, o, m.r, m.s, pay, pl);
        if (p->c.kind == K_CMD) {
            o[n++] = '\n';
            p->inflight++;
            qpush(&p->fl, &p->fh, &p->ft, &p->fcap, m);
        }
    }
    p->on += n;
}
static void account_pub(u32 r, u64 t)
{
    n_pub++;
    n_eall += rsubs[r];
    if (t >= t_meas && t < t_end) {
        n_pubm++;
        n_exp += rsubs[r];
    }
}
static int pub_room(pubc *p)
{ /* closed loop: next room of this publisher connection */
    if (o_spread || o_pubconns == 1) {
        static u32 g;
        return g++ % o_rooms;
    }
    int idx = p - pubs;
    u32 r = idx + p->rnext * o_pubconns;
    if (r >= (u32)o_rooms) {
        p->rnext = 0;
        r = idx % o_rooms;
    }
    p->rnext++;
    return r;
}
static int window_ok(void)
{
    return !o_window || (i64)(n_eall - n_dall - win_base) <
                            o_window * (o_conns > o_rooms ? o_conns / o_rooms : 1);
}
static void pump(pubc *p)
{
    if (p->c.st != S_OPEN)
        return;
    int lim = p->c.kind == K_HTTP ? o_pipe : 1 << 30;
    u32 before = p->on;
    while (p->qh != p->qt && p->inflight < lim && p->on - p->oo < (1 << 18)) {
        msg m = p->q[p->qh++ & (p->qcap - 1)];
        emit(p, m);
    }
    if (p->on != before || p->oo < p->on)
        oflush(p);
}
static void acked(pubc *p, int status, u64 now)
{
    if (p->fh == p->ft)
        return;
    msg m = p->fl[p->fh++ & (p->fcap - 1)];
    p->inflight--;
    n_ack++;
    if (now >= t_meas && now < t_end)
        n_ackw++;
    if (status && (status < 200 || status > 299)) {
        n_badst++;
        badst_last = status;
    }
    if (m.t >= t_meas && m.t < t_end) {
        n_ackm++;
        hadd(&HA, now > m.t ? now - m.t : 0);
    }
}
static int http_resp(char *b, int n, int *status)
{
    char *e = memmem(b, n, "\r\n\r\n", 4);
    if (!e)
        return 0;
    int hl = e - b + 4;
    *status = n > 12 ? atoi(b + 9) : 0;
    int cl = -1, chunk = 0;
    for (char *p = b; p < e;) {
        char *q = memmem(p, e + 2 - p, "\r\n", 2);
        if (!strncasecmp(p, "content-length:", 15))
            cl = atoi(p + 15);
        else if (!strncasecmp(p, "transfer-encoding:", 18))
            chunk = 1;
        p = q + 2;
    }
    if (*status == 204 || *status == 304 || *status / 100 == 1)
        return hl;
    if (cl >= 0)
        return n >= hl + cl ? hl + cl : 0;
    if (!chunk)
        return hl;
    int o = hl;
    for (;;) {
        char *q = memmem(b + o, n - o, "\r\n", 2);
        if (!q)
            return 0;
        int k = strtol(b + o, 0, 16);
        o = q - b + 2;
        if (k == 0) {
            if (n < o + 2)
                return 0;
            return o + 2;
        }
        o += k + 2;
        if (o > n)
            return 0;
    }
}
static void pub_dial(pubc *p)
{
    conn *c = &p->c;
    c->fd = dial(&u_pub, c->id);
    if (c->fd < 0)
        die("publisher connect failed");
    c->st = S_CONN;
    epadd(c->fd, p, EPOLLIN | EPOLLOUT);
}
static u64 n_pubreconn;
static void on_pub(pubc *p, u32 ev)
{
    conn *c = &p->c;
    if (c->kind != K_CMD && c->st == S_CONN) {
        int e = 0;
        socklen_t l = sizeof e;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &l);
        if (e)
            die("publisher connect: %s", strerror(e));
        if (!(ev & EPOLLOUT))
            return;
        epmod(c->fd, p, EPOLLIN);
        if (c->kind == K_WS) {
            c->st = S_HS;
            handshake(c, &u_pub, &t_pubpath);
        } else {
            c->st = S_OPEN;
            if (o_pubinit) {
                int n = trender(&t_pubinit, ptmp, 0, c->id, "", 0);
                send(c->fd, ptmp, n, MSG_NOSIGNAL);
            }
            pump(p);
        }
        return;
    }
    if (ev & EPOLLOUT) {
        oflush(p);
        pump(p);
    }
    if (!(ev & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    int off = c->plen;
    if (off)
        memcpy(rbuf, c->part, off);
    ssize_t r = c->kind == K_CMD ? read(c->fd, rbuf + off, sizeof rbuf - off)
                                 : recv(c->fd, rbuf + off, sizeof rbuf - off, 0);
    if (r <= 0) {
        if (r < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (c->kind == K_HTTP) { /* keep-alive closed by server: reconnect; requests in flight are
                                    sent again only if none was answered wrongly */
            n_pubreconn++;
            if (n_pubreconn > 100000)
                die("publisher: server keeps closing");
            epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, 0);
            close(c->fd);
            p->on = p->oo = 0;
            c->plen = 0;
            u32 k = p->ft - p->fh;
            p->inflight = 0;
            msg *re = malloc((k + 1) * sizeof *re);
            for (u32 i = 0; i < k; i++)
                re[i] = p->fl[(p->fh + i) & (p->fcap - 1)];
            p->fh = p->ft;
            for (u32 i = 0; i < k; i++)
                emit(p, re[i]);
            free(re);
            p->want = 0;
            pub_dial(p);
            return;
        }
        if (c->kind == K_CMD) {
            epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, 0);
            c->st = S_DEAD;
            return;
        }
        die("publisher connection closed by server");
    }
    u64 now = now_ns();
    int n = off + r, used = 0;
    if (c->st == S_HS) {
        int k = parse_hs(c, rbuf, n);
        if (k < 0)
            die("publisher handshake refused");
        if (k) {
            used = k;
            c->st = S_OPEN;
            if (o_pubinit) {
                int m = trender(&t_pubinit, ptmp, 0, c->id, "", 0);
                ogrow(p, m + 16);
                p->on += wsframe(p->ob + p->on, o_pubbin ? 2 : 1, ptmp, m);
                oflush(p);
            }
        }
    } else if (c->kind == K_HTTP) {
        int st, k;
        while (used < n && (k = http_resp(rbuf + used, n - used, &st)) > 0) {
            used += k;
            if (st != 100)
                acked(p, st, now);
        }
    } else if (c->kind == K_WS)
        used = ws_frames(c, rbuf, n, now);
    else if (c->kind == K_TCP)
        used = n;
    else if (c->kind == K_CMD) {
        char *q;
        while ((q = memchr(rbuf + used, '\n', n - used))) {
            if (o_cmdown) {
                u32 rr = strtoul(rbuf + used, 0, 10) % o_rooms;
                account_pub(rr, now);
                n_ack++;
                if (now >= t_meas && now < t_end)
                    n_ackw++;
            } else
                acked(p, 0, now);
            used = q - rbuf + 1;
        }
    }
    int left = n - used;
    if (left > (int)c->pcap) {
        free(c->part);
        c->part = malloc(c->pcap = left * 2);
    }
    if (left)
        memcpy(c->part, rbuf + used, left);
    c->plen = left;
    pump(p);
}

/* ---------- server process accounting (given pids and all their descendants) ---------- */
static int tree(int *out, int max)
{
    static int pid[32768], pp[32768];
    int n = 0, k = 0;
    DIR *d = opendir("/proc");
    struct dirent *e;
    while ((e = readdir(d)))
        if (isdigit(e->d_name[0]) && n < 32768) {
            char f[64], b[512];
            snprintf(f, 64, "/proc/%.20s/stat", e->d_name);
            int fd = open(f, O_RDONLY);
            if (fd < 0)
                continue;
            int r = read(fd, b, 511);
            close(fd);
            if (r <= 0)
                continue;
            b[r] = 0;
            char *q = strrchr(b, ')');
            if (!q)
                continue;
            pid[n] = atoi(e->d_name);
            pp[n++] = atoi(q + 4);
        }
    closedir(d);
    for (int i = 0; i < n_pids; i++)
        out[k++] = pids[i];
    for (int i = 0; i < k; i++)
        for (int j = 0; j < n && k < max; j++)
            if (pp[j] == out[i]) {
                int dup = 0;
                for (int q = 0; q < k; q++)
                    dup |= out[q] == pid[j];
                if (!dup && pid[j] != getpid())
                    out[k++] = pid[j];
            }
    return k;
}
static void srvmem(double *rss, double *pss)
{
    int t[512], n = tree(t, 512);
    *rss = *pss = 0;
    for (int i = 0; i < n; i++) {
        char f[64], l[256];
        snprintf(f, 64, "/proc/%d/smaps_rollup", t[i]);
        FILE *s = fopen(f, "r");
        if (!s)
            continue;
        double v;
        while (fgets(l, 256, s)) {
            if (sscanf(l, "Rss: %lf", &v) == 1)
                *rss += v;
            else if (sscanf(l, "Pss: %lf", &v) == 1)
                *pss += v;
        }
        fclose(s);
    }
}
static double srvcpu(void)
{
    int t[512], n = tree(t, 512);
    double s = 0;
    for (int i = 0; i < n; i++) {
        char f[64], b[1024];
        snprintf(f, 64, "/proc/%d/stat", t[i]);
        int fd = open(f, O_RDONLY);
        if (fd < 0)
            continue;
        int r = read(fd, b, 1023);
        close(fd);
        if (r <= 0)
            continue;
        b[r] = 0;
        char *q = strrchr(b, ')');
        unsigned long ut, st;
        if (q &&
            sscanf(q + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &ut, &st) == 2)
            s += ut + st;
    }
    return s / sysconf(_SC_CLK_TCK);
}
static double selfcpu(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static void poll_once(i64 tmo_ns)
{
    static struct epoll_event ev[1024];
    if (o_spin)
        tmo_ns = 0;
    if (tmo_ns < 0)
        tmo_ns = 0;
    struct timespec ts = {tmo_ns / 1000000000, tmo_ns % 1000000000};
    int n = epoll_pwait2(ep, ev, 1024, &ts, 0);
    for (int i = 0; i < n; i++) {
        conn *c = ev[i].data.ptr;
        if (c->kind == K_SUB)
            on_sub(c, ev[i].events);
        else
            on_pub((pubc *)c, ev[i].events);
    }
}
static void gen_closed(u64 t)
{ /* one message per connection in turn, so a window is spread over all connections and rooms */
    static int cur;
    int idle = 0, guard = 0;
    while (idle < o_pubconns && guard++ < 20000) {
        pubc *p = &pubs[cur];
        cur = (cur + 1) % o_pubconns;
        if (!window_ok() || (o_count >= 0 && (i64)n_pub >= o_count))
            break;
        if (p->c.st != S_OPEN) {
            idle++;
            continue;
        }
        int lim = p->c.kind == K_HTTP || p->c.kind == K_CMD ? o_pipe : 1 << 30;
        u32 cap = o_window || p->c.kind == K_HTTP ? 1 << 16 : 1 << 14;
        if (p->inflight >= lim || p->on - p->oo >= cap) {
            idle++;
            continue;
        }
        idle = 0;
        u32 r = pub_room(p);
        t = now_ns();
        msg m = {r, ++rseq[r], t};
        account_pub(r, t);
        emit(p, m);
    }
    for (int i = 0; i < o_pubconns; i++)
        if (pubs[i].c.st == S_OPEN && pubs[i].oo < pubs[i].on)
            oflush(&pubs[i]);
}
static void usage(void)
{
    puts("wsload --url ws://127.0.0.1:PORT/path/{room} [options]\n"
         "Subscribers: --conns N --rooms R --room-fmt r%06d --init TEXT (repeatable; \\r\\n\\xNN; "
         "sent after the upgrade) --init-bin\n"
         "  --ready STR (connection counts as open once a message contains STR) --prefix STR (only "
         "messages starting so) --stream (payloads may\n"
         "  be packed/split over frames: NATS, MQTT) --subproto P --sub-header H --deflate (offer "
         "permessage-deflate) --deflate-nct (no context takeover)\n"
         "  --connect-concurrency K --connect-timeout S --sources K (source addresses "
         "127.0.0.1..K; default conns/20000+1)\n"
         "Publisher: --pub http://.../{room} | ws://... | tcp://host:port | --pub-cmd 'CMD' (one "
         "line per publish to its stdin, one stdout line = one ack)\n"
         "  --pub-cmd-own 'CMD' (CMD publishes by itself and prints the room index per publish)   "
         "--no-pub\n"
         "  --method POST --header 'K: V' --body '{payload}' (also {payload_esc} {room} {i} "
         "{n}=seq {len}) --pub-init TEXT --pub-bin\n"
         "  --pub-conns C --pipeline D (requests in flight per connection) --pub-spread (any room "
         "on any connection; default room%C keeps per-room order)\n"
         "  --rate X (open loop, msgs/s over all rooms; absent = closed loop) --window W (closed "
         "loop: at most W messages published but not yet delivered to everybody)\n"
         "  --size BYTES --warmup S --duration S --count N --drain S --hold S (idle after "
         "connecting) --settle S\n"
         "  --replay N (publish N per room first, then connect and time the replay)\n"
         "Output: --json (only the JSON line) --label X --pid P[,P2] (server: rss/pss per "
         "connection, cpu per delivery; descendants included) --spin");
    exit(0);
}
int main(int ac, char **av)
{
    enum {
        O_URL = 1,
        O_CONNS,
        O_ROOMS,
        O_RFMT,
        O_INIT,
        O_INITBIN,
        O_READY,
        O_PREFIX,
        O_STREAM,
        O_SUBP,
        O_SUBH,
        O_DEFL,
        O_DEFLN,
        O_CC,
        O_CT,
        O_SRC,
        O_PUB,
        O_CMD,
        O_CMDOWN,
        O_NOPUB,
        O_METH,
        O_HDR,
        O_BODY,
        O_PINIT,
        O_PBIN,
        O_PC,
        O_PIPE,
        O_SPREAD,
        O_RATE,
        O_WIN,
        O_SIZE,
        O_WARM,
        O_DUR,
        O_COUNT,
        O_DRAIN,
        O_HOLD,
        O_SETTLE,
        O_REPLAY,
        O_JSON,
        O_LABEL,
        O_PID,
        O_SPIN,
        O_HELP
    };
#define A(n, v)    \
    {              \
        n, 1, 0, v \
    }
#define F(n, v)    \
    {              \
        n, 0, 0, v \
    }
    static struct option L[] = {A("url", O_URL),
                                A("conns", O_CONNS),
                                A("rooms", O_ROOMS),
                                A("room-fmt", O_RFMT),
                                A("init", O_INIT),
                                F("init-bin", O_INITBIN),
                                A("ready", O_READY),
                                A("prefix", O_PREFIX),
                                F("stream", O_STREAM),
                                A("subproto", O_SUBP),
                                A("sub-header", O_SUBH),
                                F("deflate", O_DEFL),
                                F("deflate-nct", O_DEFLN),
                                A("connect-concurrency", O_CC),
                                A("connect-timeout", O_CT),
                                A("sources", O_SRC),
                                A("pub", O_PUB),
                                A("pub-cmd", O_CMD),
                                A("pub-cmd-own", O_CMDOWN),
                                F("no-pub", O_NOPUB),
                                A("method", O_METH),
                                A("header", O_HDR),
                                A("body", O_BODY),
                                A("pub-init", O_PINIT),
                                F("pub-bin", O_PBIN),
                                A("pub-conns", O_PC),
                                A("pipeline", O_PIPE),
                                F("pub-spread", O_SPREAD),
                                A("rate", O_RATE),
                                A("window", O_WIN),
                                A("size", O_SIZE),
                                A("warmup", O_WARM),
                                A("duration", O_DUR),
                                A("count", O_COUNT),
                                A("drain", O_DRAIN),
                                A("hold", O_HOLD),
                                A("settle", O_SETTLE),
                                A("replay", O_REPLAY),
                                F("json", O_JSON),
                                A("label", O_LABEL),
                                A("pid", O_PID),
                                F("spin", O_SPIN),
                                F("help", O_HELP),
                                {0}};
    int o;
    o_srcs = 0;
    while ((o = getopt_long(ac, av, "", L, 0)) != -1)
        switch (o) {
        case O_URL:
            o_url = optarg;
            break;
        case O_CONNS:
            o_conns = atoi(optarg);
            break;
        case O_ROOMS:
            o_rooms = atoi(optarg);
            break;
        case O_RFMT:
            o_roomfmt = optarg;
            break;
        case O_INIT:
            if (n_inits < 8)
                o_inits[n_inits++] = optarg;
            break;
        case O_INITBIN:
            o_initbin = 1;
            break;
        case O_READY:
            o_ready = optarg;
            break;
        case O_PREFIX:
            o_prefix = optarg;
            break;
        case O_STREAM:
            o_stream = 1;
            break;
        case O_SUBP:
            o_subproto = optarg;
            break;
        case O_SUBH:
            if (n_subhdrs < 16)
                o_subhdrs[n_subhdrs++] = optarg;
            break;
        case O_DEFL:
            o_deflate = 1;
            break;
        case O_DEFLN:
            o_deflate = 2;
            break;
        case O_CC:
            o_conc = atoi(optarg);
            break;
        case O_CT:
            o_ctmo = atof(optarg);
            break;
        case O_SRC:
            o_srcs = atoi(optarg);
            break;
        case O_PUB:
            o_pub = optarg;
            break;
        case O_CMD:
            o_cmd = optarg;
            break;
        case O_CMDOWN:
            o_cmd = optarg;
            o_cmdown = 1;
            break;
        case O_NOPUB:
            o_nopub = 1;
            break;
        case O_METH:
            o_method = optarg;
            break;
        case O_HDR:
            if (n_hdrs < 16)
                o_hdrs[n_hdrs++] = optarg;
            break;
        case O_BODY:
            o_body = optarg;
            break;
        case O_PINIT:
            o_pubinit = optarg;
            break;
        case O_PBIN:
            o_pubbin = 1;
            break;
        case O_PC:
            o_pubconns = atoi(optarg);
            break;
        case O_PIPE:
            o_pipe = atoi(optarg);
            break;
        case O_SPREAD:
            o_spread = 1;
            break;
        case O_RATE:
            o_rate = atof(optarg);
            break;
        case O_WIN:
            o_window = atoll(optarg);
            break;
        case O_SIZE:
            o_size = atoi(optarg);
            break;
        case O_WARM:
            o_warm = atof(optarg);
            break;
        case O_DUR:
            o_dur = atof(optarg);
            break;
        case O_COUNT:
            o_count = atoll(optarg);
            break;
        case O_DRAIN:
            o_drain = atof(optarg);
            break;
        case O_HOLD:
            o_hold = atof(optarg);
            break;
        case O_SETTLE:
            o_settle = atof(optarg);
            break;
        case O_REPLAY:
            o_replay = atoi(optarg);
            break;
        case O_JSON:
            o_json = 1;
            break;
        case O_LABEL:
            o_label = optarg;
            break;
        case O_PID:
            for (char *p = optarg; *p && n_pids < 64;) {
                pids[n_pids++] = strtol(p, &p, 10);
                if (*p)
                    p++;
            }
            break;
        case O_SPIN:
            o_spin = 1;
            break;
        default:
            usage();
        }
    if (!o_url || (!o_pub && !o_cmd && !o_nopub))
        usage();
    if (o_size > 60000)
        die("size <= 60000");
    if (o_srcs < 1)
        o_srcs = o_conns / 20000 + 1;
    struct rlimit rl = {o_conns + o_pubconns + 100, o_conns + o_pubconns + 100};
    struct rlimit cur;
    getrlimit(RLIMIT_NOFILE, &cur);
    if (cur.rlim_cur < rl.rlim_cur) {
        if (rl.rlim_max < cur.rlim_max)
            rl.rlim_max = cur.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &rl)) {
            rl = cur;
            rl.rlim_cur = cur.rlim_max;
            setrlimit(RLIMIT_NOFILE, &rl);
            if ((int)rl.rlim_cur < o_conns + o_pubconns + 16)
                fprintf(stderr, "warning: RLIMIT_NOFILE hard limit %ld\n", (long)rl.rlim_cur);
        }
    }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000ul);
    if (o_deflate) {
        void *z = dlopen("libz.so.1", RTLD_NOW);
        if (!z)
            die("--deflate needs libz.so.1");
        z_init = dlsym(z, "inflateInit2_");
        z_inf = dlsym(z, "inflate");
    }
    u64 t0 = now_ns();
    runid = (u32)((t0 / 1000) ^ (u64)getpid() << 16) & 0x7fffffff;
    if (!runid)
        runid = 1;
    roomname = malloc(sizeof(char *) * o_rooms);
    roomlen = malloc(sizeof(int) * o_rooms);
    rseq = calloc(o_rooms, 4);
    rsubs = calloc(o_rooms, 4);
    rmeas = calloc(o_rooms, 4);
    for (int i = 0; i < o_rooms; i++) {
        char b[256];
        roomlen[i] = snprintf(b, 256, o_roomfmt, i);
        roomname[i] = strdup(b);
    }
    uparse(&u_sub, o_url);
    tcompile(&t_path, u_sub.path, 0);
    for (int i = 0; i < n_inits; i++)
        tcompile(&t_init[i], o_inits[i], 1);
    if (strcmp(u_sub.scheme, "ws"))
        die("only ws:// is supported");
    if (o_ready)
        tcompile(&t_ready, o_ready, 1);
    tcompile(&t_body, o_body, 1);
    if (o_pubinit)
        tcompile(&t_pubinit, o_pubinit, 1);
    ep = epoll_create1(EPOLL_CLOEXEC);
    subs = calloc(o_conns, sizeof *subs);
    for (int i = 0; i < o_conns; i++)
        subs[i].fd = -1;
    double rss0 = 0, pss0 = 0, rss1 = 0, pss1 = 0, rss2 = 0, pss2 = 0;
    if (n_pids)
        srvmem(&rss0, &pss0);
    /* publisher connections */
    pid_t child = 0;
    if (!o_nopub) {
        if (o_cmd)
            o_pubconns = 1;
        else {
            uparse(&u_pub, o_pub);
            tcompile(&t_pubpath, u_pub.path, 0);
        }
        pubs = calloc(o_pubconns, sizeof *pubs);
        for (int i = 0; i < o_pubconns; i++) {
            pubc *p = &pubs[i];
            p->c.id = i;
            p->c.room = i % o_rooms;
            if (o_cmd) {
                int a[2], b[2];
                if (pipe2(a, O_CLOEXEC) || pipe2(b, O_CLOEXEC))
                    die("pipe");
                child = fork();
                if (!child) {
                    dup2(a[0], 0);
                    dup2(b[1], 1);
                    execl("/bin/sh", "sh", "-c", o_cmd, (char *)0);
                    _exit(127);
                }
                close(a[0]);
                close(b[1]);
                p->wfd = a[1];
                p->c.fd = b[0];
                fcntl(p->wfd, F_SETFL, O_NONBLOCK);
                fcntl(p->c.fd, F_SETFL, O_NONBLOCK);
                p->c.kind = K_CMD;
                p->c.st = S_OPEN;
                epadd(p->c.fd, p, EPOLLIN);
                continue;
            }
            p->c.kind = !strcmp(u_pub.scheme, "http") ? K_HTTP
                        : !strcmp(u_pub.scheme, "ws") ? K_WS
                                                      : K_TCP;
            pub_dial(p);
        }
        u64 lim = now_ns() + 5000000000ull;
        for (;;) {
            int ok = 1;
            for (int i = 0; i < o_pubconns; i++)
                ok &= pubs[i].c.st == S_OPEN;
            if (ok)
                break;
            if (now_ns() > lim)
                die("publisher cannot connect");
            poll_once(1000000);
        }
    }
    double rep_s = 0;
    u64 rep_pub = 0;
    if (o_replay) { /* publish first, with nobody subscribed */
        o_first = 0;
        o_count = (i64)o_replay * o_rooms;
        u64 tt = now_ns();
        t_meas = 0;
        u64 stepn = 0; /* exactly N per room, in order, room r over connection r % C */
        while ((i64)n_pub < o_count ||
               (n_ack < n_pub && (pubs[0].c.kind == K_HTTP || pubs[0].c.kind == K_CMD))) {
            for (int k = 0; k < 4096 && (i64)n_pub < o_count &&
                            n_pub - n_ack < (pubs[0].c.kind == K_HTTP ? 65536u : ~0u);
                 k++, stepn++) {
                u32 r = stepn % o_rooms;
                pubc *p = &pubs[r % o_pubconns];
                u64 t = now_ns();
                msg m = {r, ++rseq[r], t};
                account_pub(r, t);
                qpush(&p->q, &p->qh, &p->qt, &p->qcap, m);
            }
            for (int k = 0; k < o_pubconns; k++)
                pump(&pubs[k]);
            poll_once(1000000);
            if (now_ns() - tt > 60e9)
                die("replay: publish stalled, %llu/%llu acks", (unsigned long long)n_ack,
                    (unsigned long long)n_pub);
        }
        for (;;) {
            int left = 0;
            for (int k = 0; k < o_pubconns; k++) {
                pump(&pubs[k]);
                left += pubs[k].qh != pubs[k].qt || pubs[k].oo < pubs[k].on;
            }
            if (!left)
                break;
            poll_once(1000000);
        }
        if (pubs[0].c.kind != K_HTTP) {
            u64 w = now_ns() + 500000000;
            while (now_ns() < w)
                poll_once(1000000);
        }
        rep_s = (now_ns() - tt) / 1e9;
        rep_pub = n_pub;
    }
    /* connect */
    u64 tc0 = now_ns(), tlim = tc0 + o_ctmo * 1e9;
    double ccpu0 = n_pids ? srvcpu() : 0;
    while (conn_next < o_conns || conn_fly) {
        while (conn_next < o_conns && conn_fly < o_conc)
            start_sub(conn_next++);
        poll_once(5000000);
        if (now_ns() > tlim) {
            fprintf(stderr, "connect phase timed out: open %llu failed %llu\n",
                    (unsigned long long)n_open, (unsigned long long)n_fail);
            break;
        }
    }
    u64 tc1 = now_ns();
    double conn_s = (tc1 - tc0) / 1e9, ccpu1 = n_pids ? srvcpu() : 0;
    u64 opened = n_open;
    for (int i = 0; i < o_conns; i++)
        if (subs[i].st == S_OPEN)
            rsubs[subs[i].room]++;
    if (o_replay) {
        n_exp = 0;
        for (int i = 0; i < o_conns; i++)
            if (subs[i].st == S_OPEN)
                n_exp += o_replay;
        u64 last = 0, since = now_ns();
        while (n_dall < n_exp) {
            poll_once(1000000);
            if (n_dall != last) {
                last = n_dall;
                since = now_ns();
            }
            if (now_ns() - since > o_drain * 1e9)
                break;
        }
        u64 te = t_last > tc0 ? t_last : now_ns();
        n_deliv = n_dall;
        conn_s = (tc1 - tc0) / 1e9;
        printf("{\"label\":\"%s\",\"mode\":\"replay\",\"conns\":%llu,\"rooms\":%d,\"published\":%"
               "llu,\"publish_s\":%.3f,\"publish_rate\":%.0f,\"connect_s\":%.3f,\"expected\":%llu,"
               "\"delivered\":%llu,\"lost\":%lld,\"dup\":%llu,\"out_of_order\":%llu,\"replay_s\":%."
               "4f,\"replayed_per_s\":%.0f,\"bad_status\":%llu}\n",
               o_label, (unsigned long long)opened, o_rooms, (unsigned long long)rep_pub, rep_s,
               rep_pub / rep_s, conn_s, (unsigned long long)n_exp, (unsigned long long)n_deliv,
               (long long)(n_exp - n_deliv), (unsigned long long)n_dup, (unsigned long long)n_ooo,
               (te - tc0) / 1e9, n_deliv / ((te - tc0) / 1e9), (unsigned long long)n_badst);
        return 0;
    }
    {
        u64 w = now_ns() + (u64)(o_settle * 1e9);
        while (now_ns() < w)
            poll_once(w - now_ns());
    }
    double hcpu0 = n_pids ? srvcpu() : 0;
    if (o_hold > 0) {
        u64 w = now_ns() + (u64)(o_hold * 1e9);
        while (now_ns() < w)
            poll_once(w - now_ns());
    }
    double hcpu1 = n_pids ? srvcpu() : 0;
    if (n_pids)
        srvmem(&rss1, &pss1);
    /* publish */
    double c0 = 0, c1 = 0, s0 = 0, s1 = 0, wall = 0;
    u64 pub0 = 0, max_backlog = 0;
    u64 stall = 0;
    if (!o_nopub) {
        u64 start = now_ns() + 1000000;
        t_meas = start + (u64)(o_warm * 1e9);
        t_end = t_meas + (u64)(o_dur * 1e9);
        u64 i = 0;
        int begun = 0;
        double per = o_rate > 0 ? 1e9 / o_rate : 0;
        u64 lastd = 0, lastt = start;
        if (o_count >= 0)
            t_end = ~0ull >> 1;
        for (;;) {
            u64 now = now_ns();
            if (!begun && now >= t_meas) {
                begun = 1;
                s0 = selfcpu();
                if (n_pids)
                    c0 = srvcpu();
                pub0 = n_pub;
            }
            if (now >= t_end || (o_count >= 0 && (i64)n_pub >= o_count)) {
                if (o_count >= 0)
                    t_end = now;
                break;
            }
            i64 tmo = 1000000;
            if (o_cmdown) {
            } else if (o_rate > 0) {
                while (start + (u64)(i * per) <= now && (o_count < 0 || (i64)n_pub < o_count)) {
                    u64 t = start + (u64)(i * per);
                    if (t >= t_end)
                        break;
                    u32 r = i % o_rooms;
                    pubc *p = &pubs[(o_spread ? i : r) % o_pubconns];
                    msg m = {r, ++rseq[r], t};
                    account_pub(r, t);
                    qpush(&p->q, &p->qh, &p->qt, &p->qcap, m);
                    i++;
                    if (p->c.kind != K_HTTP || p->inflight < o_pipe)
                        pump(p);
                }
                u64 nt = start + (u64)(i * per);
                tmo = (i64)nt - (i64)now_ns();
                if (tmo > 1000000)
                    tmo = 1000000;
                for (int k = 0; k < o_pubconns; k++) {
                    u64 bl = pubs[k].qt - pubs[k].qh;
                    if (bl > max_backlog)
                        max_backlog = bl;
                }
            } else {
                gen_closed(now);
                if (o_window && n_dall != lastd) {
                    lastd = n_dall;
                    lastt = now;
                } else if (o_window && !window_ok() && now > lastt && now - lastt > 1000000000ull) {
                    win_base = n_eall - n_dall;
                    lastt = now;
                    stall++;
                }
                tmo = 500000;
            }
            poll_once(tmo);
        }
        s1 = selfcpu();
        if (n_pids)
            c1 = srvcpu();
        wall = (now_ns() - t_meas) / 1e9;
        (void)pub0;
        u64 lastc = n_dall + n_ack, since = now_ns();
        while (n_deliv < n_exp || (pubs[0].c.kind == K_HTTP && n_ack < n_pub)) {
            for (int k = 0; k < o_pubconns; k++)
                pump(&pubs[k]);
            poll_once(2000000);
            u64 now = now_ns();
            if (n_dall + n_ack != lastc) {
                lastc = n_dall + n_ack;
                since = now;
            }
            if (now - since > o_drain * 1e9)
                break;
        }
        {
            u64 w = now_ns() + 50000000;
            while (now_ns() < w)
                poll_once(w - now_ns());
        } /* late duplicates */
    }
    if (n_pids)
        srvmem(&rss2, &pss2);
    /* same order in every subscriber of a room */
    u64 diff = 0;
    {
        u64 *h = calloc(o_rooms, 8);
        u32 *nr = calloc(o_rooms, 4);
        u8 *set = calloc(o_rooms, 1), *bad = calloc(o_rooms, 1);
        for (int i = 0; i < o_conns; i++)
            if (subs[i].st == S_OPEN) {
                u32 r = subs[i].room;
                if (!set[r]) {
                    set[r] = 1;
                    h[r] = subs[i].h;
                    nr[r] = subs[i].nrx;
                } else if (h[r] != subs[i].h || nr[r] != subs[i].nrx)
                    bad[r] = 1;
            }
        for (int i = 0; i < o_rooms; i++)
            diff += bad[i];
    }
    double dur =
        o_count >= 0 ? (t_last > t_meas && t_last != 0 ? (t_last - t_meas) / 1e9 : 1) : o_dur;
    if (o_nopub)
        dur = 1;
    double per1k = opened ? 1.0 / opened : 0;
    double drained = t_last > t_meas && !o_nopub ? n_deliv / ((t_last - t_meas) / 1e9) : 0;
    if (child)
        kill(child, SIGTERM);
    char buf[8192];
    int n = snprintf(
        buf, sizeof buf,
        "{\"label\":\"%s\",\"mode\":\"%s\",\"conns\":%llu,\"conn_failed\":%llu,\"conn_closed\":%"
        "llu,\"rooms\":%d,\"size\":%d,\"connect_s\":%.3f,\"connects_per_s\":%.0f,\"connect_p50_"
        "us\":%.0f,\"connect_p99_us\":%.0f,\"rate\":%.0f,\"published\":%llu,\"expected\":%llu,"
        "\"delivered\":%llu,\"lost\":%lld,\"dup\":%llu,\"out_of_order\":%llu,\"gaps\":%llu,\"order_"
        "window\":1024,\"rooms_order_differs\":%llu,\"ignored\":%llu,"
        "\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,\"mean_"
        "us\":%.1f,\"deliveries_per_s\":%.0f,\"drained_per_s\":%.0f,\"publish_per_s\":%.0f,\"acks_"
        "per_s\":%.0f,\"ack_p50_us\":%.1f,\"ack_p99_us\":%.1f,\"ack_max_us\":%.1f,\"bad_status\":%"
        "llu,\"bad_status_last\":%d,\"pub_reconnects\":%llu,\"pub_backlog_max\":%llu,\"stalls\":%"
        "llu,\"gen_cpu_pct\":%.0f",
        o_label,
        o_nopub      ? "idle"
        : o_rate > 0 ? "open"
                     : "closed",
        (unsigned long long)opened, (unsigned long long)n_fail, (unsigned long long)n_closed,
        o_rooms, o_size, conn_s, opened / conn_s, hq(&HC, .5), hq(&HC, .99), o_rate,
        (unsigned long long)n_pubm, (unsigned long long)n_exp, (unsigned long long)n_deliv,
        (long long)(n_exp - n_deliv), (unsigned long long)n_dup, (unsigned long long)n_ooo,
        (unsigned long long)n_gap, (unsigned long long)diff, (unsigned long long)n_ign, hq(&H, .5),
        hq(&H, .9), hq(&H, .99), hq(&H, .999), H.max / 1e3, H.n ? H.sum / 1e3 / H.n : 0,
        n_dwin / dur, drained, n_pubm / dur, n_ackw / dur, hq(&HA, .5), hq(&HA, .99), HA.max / 1e3,
        (unsigned long long)n_badst, badst_last, (unsigned long long)n_pubreconn,
        (unsigned long long)max_backlog, (unsigned long long)stall,
        wall > 0 ? 100 * (s1 - s0) / wall : 0);
    if (n_pids)
        n +=
            snprintf(buf + n, sizeof buf - n,
                     ",\"srv_rss0_kb\":%.0f,\"srv_rss_conn_kb\":%.0f,\"srv_rss_end_kb\":%.0f,\"rss_"
                     "per_conn_b\":%.0f,\"pss_per_conn_b\":%.0f,\"srv_cpu_pct\":%.0f,\"srv_cpu_us_"
                     "per_delivery\":%.2f,\"srv_cpu_us_per_connect\":%.1f,\"idle_cpu_pct\":%.2f",
                     rss0, rss1, rss2, (rss1 - rss0) * 1024 * per1k, (pss1 - pss0) * 1024 * per1k,
                     wall > 0 ? 100 * (c1 - c0) / wall : 0, n_dwin ? 1e6 * (c1 - c0) / n_dwin : 0,
                     opened ? 1e6 * (ccpu1 - ccpu0) / opened : 0,
                     o_hold > 0 ? 100 * (hcpu1 - hcpu0) / o_hold : 0);
    printf("%s}\n", buf);
    if (!o_json)
        fprintf(stderr,
                "%s: %llu conns, %d rooms | %.0f deliveries/s (drained %.0f) | p50 %.0f p99 %.0f "
                "p99.9 %.0f max %.0f us | lost %lld dup %llu ooo %llu | acks/s %.0f | gen cpu "
                "%.0f%% srv cpu %.0f%%\n",
                o_label, (unsigned long long)opened, o_rooms, n_dwin / dur, drained, hq(&H, .5),
                hq(&H, .99), hq(&H, .999), H.max / 1e3, (long long)(n_exp - n_deliv),
                (unsigned long long)n_dup, (unsigned long long)n_ooo, n_ackw / dur,
                wall > 0 ? 100 * (s1 - s0) / wall : 0, wall > 0 ? 100 * (c1 - c0) / wall : 0);
    return 0;
}

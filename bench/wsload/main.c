/* SHELL. Options, and what follows what. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/shell/process.h"
#include "load.h"

#define TOKENS_MAX_BYTES (1u << 26)

static const char usage[] =
    "wsload --url ws://127.0.0.1:PORT/path/{room} [options]: one line of JSON\n"
    "Subscribers: --conns N --rooms R --room-fmt r%06d --tokens FILE (a line for each {token})\n"
    "  --init TEXT (repeatable; sent after the upgrade; \\r \\n \\t \\xNN) --init-bin\n"
    "  --ready TEXT (a connection is open once a message has it)\n"
    "  --stream (payloads may be packed, or split over frames)\n"
    "  --connect-concurrency K --connect-timeout S\n"
    "Publisher: --pub http://.../{room} | ws://... | tcp://HOST:PORT | --no-pub\n"
    "  | --pub-cmd COMMAND (a line for each publish, a line back for each acknowledgement)\n"
    "  --body TEXT ({payload} {payload_esc} {room} {i} {n}=sequence {len}) --pub-init TEXT\n"
    "  --pub-conns C --pipeline D (under way on each) --pub-spread (any room on any connection)\n"
    "  --rate X (open loop, messages/s over all rooms; without it closed loop)\n"
    "  --window W (closed loop: published and not yet delivered to everybody)\n"
    "  --size BYTES --warmup S --duration S --count N --drain S --hold S --settle S\n"
    "  --replay N (publish N a room first, then connect and time the replay)\n"
    "Servers: --pid P[,P...] (memory a connection, CPU a delivery; with their descendants)\n";

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * (uint64_t)NS_PER_S + (uint64_t)t.tv_nsec;
}

_Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("wsload: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

/* ---- options ---- */

enum option_kind { FLAG, TEXT, WHOLE, LONG, REAL, INIT, PID };
struct option_place {
    const char *name;
    enum option_kind kind;
    size_t at;
};
#define AT(field_) offsetof(struct options, field_)
static const struct option_place places[] = {
    {"url", TEXT, AT(url)},
    {"conns", WHOLE, AT(conns)},
    {"rooms", WHOLE, AT(rooms)},
    {"room-fmt", TEXT, AT(room_format)},
    {"tokens", TEXT, AT(tokens)},
    {"init", INIT, 0},
    {"init-bin", FLAG, AT(init_binary)},
    {"ready", TEXT, AT(ready)},
    {"stream", FLAG, AT(stream)},
    {"connect-concurrency", WHOLE, AT(connecting)},
    {"connect-timeout", REAL, AT(connect_timeout)},
    {"pub", TEXT, AT(pub)},
    {"pub-cmd", TEXT, AT(pub_command)},
    {"no-pub", FLAG, AT(no_pub)},
    {"body", TEXT, AT(body)},
    {"pub-init", TEXT, AT(pub_init)},
    {"pub-conns", WHOLE, AT(pub_conns)},
    {"pipeline", WHOLE, AT(pipeline)},
    {"pub-spread", FLAG, AT(spread)},
    {"rate", REAL, AT(rate)},
    {"window", LONG, AT(window)},
    {"size", WHOLE, AT(size)},
    {"warmup", REAL, AT(warmup)},
    {"duration", REAL, AT(duration)},
    {"count", LONG, AT(count)},
    {"drain", REAL, AT(drain)},
    {"hold", REAL, AT(hold)},
    {"settle", REAL, AT(settle)},
    {"replay", WHOLE, AT(replay)},
    {"pid", PID, 0},
};
#define PLACES (sizeof places / sizeof *places)

static void pids_read(struct options *o, const char *text)
{
    while (*text && o->n_pids < PIDS_MAX) {
        char *end;
        o->pids[o->n_pids++] = (int)strtol(text, &end, 10);
        if (end == text)
            fail("--pid: numbers with commas between them");
        text = *end ? end + 1 : end;
    }
}

static void option_take(struct options *o, const struct option_place *place, const char *value)
{
    void *at = (char *)o + place->at;
    char *end = NULL;
    switch (place->kind) {
    case FLAG:
        *(bool *)at = true;
        return;
    case TEXT:
        *(const char **)at = value;
        return;
    case INIT:
        if (o->n_inits == INITS_MAX)
            fail("--init: at most %d", INITS_MAX);
        o->inits[o->n_inits++] = value;
        return;
    case PID:
        pids_read(o, value);
        return;
    case WHOLE:
        *(uint32_t *)at = (uint32_t)strtoul(value, &end, 10);
        break;
    case LONG:
        *(int64_t *)at = strtoll(value, &end, 10);
        break;
    case REAL:
        *(double *)at = strtod(value, &end);
        break;
    }
    if (end == value || *end)
        fail("--%s %s: not a number", place->name, value);
}

static void options_read(struct options *o, int argc, char **argv)
{
    struct option known[PLACES + 1] = {0};
    int chosen;
    for (size_t i = 0; i < PLACES; i++)
        known[i] = (struct option){.name = places[i].name, .has_arg = places[i].kind != FLAG};
    *o = (struct options){.body = "{payload}",
                          .room_format = "r%06d",
                          .conns = 1,
                          .rooms = 1,
                          .size = 200,
                          .pub_conns = 1,
                          .pipeline = 1,
                          .connecting = 256,
                          .count = -1,
                          .duration = 5,
                          .warmup = 1,
                          .drain = 3,
                          .connect_timeout = 30,
                          .settle = 0.5};
    int code;
    while ((code = getopt_long(argc, argv, "", known, &chosen)) == 0)
        option_take(o, &places[chosen], optarg);
    bool publishes = o->pub || o->pub_command;
    if (code != -1 || optind < argc || !o->url || publishes == o->no_pub) {
        fputs(usage, stderr);
        exit(2);
    }
    if (o->size > PAYLOAD_MAX_BYTES || o->rooms == 0 || o->pub_conns == 0 || o->pipeline == 0)
        fail("--size is at most %d; rooms, pub-conns and pipeline at least 1", PAYLOAD_MAX_BYTES);
    o->pub_conns = o->pub_command ? 1 : o->pub_conns;
}

/* ---- setting up ---- */

/* "ev.r%06d" with the number in: its only %, with or without 0 and a width. */
static uint32_t room_name(char *out, size_t size, const char *format, uint32_t number)
{
    const char *mark = strchr(format, '%');
    char *end = NULL;
    unsigned long width = mark ? strtoul(mark + 1, &end, 10) : 0;
    if (!end || *end != 'd' || width > 20)
        fail("--room-fmt %s: a text with %%06d in it", format);
    int n = snprintf(out, size, "%.*s%0*u%s", (int)(mark - format), format,
                     width > 0 ? (int)width : 1, number, end + 1);
    if (n < 0 || (size_t)n >= size)
        fail("--room-fmt %s: too long", format);
    return (uint32_t)n;
}

static void descriptors_raise(const struct options *o)
{
    struct rlimit limit;
    const rlim_t wanted = o->conns + o->pub_conns + 100;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= wanted)
        return;
    limit.rlim_max = limit.rlim_max > wanted ? limit.rlim_max : wanted;
    limit.rlim_cur = wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit))
        fprintf(stderr, "wsload: %lu descriptors: %s\n", (unsigned long)wanted, strerror(errno));
}

static void targets_read(struct load *l)
{
    const struct options *o = &l->options;
    target_parse(&l->sub, o->url);
    if (!l->sub.websocket)
        fail("%s: only ws:// is supported", o->url);
    if (o->pub)
        target_parse(&l->pub, o->pub);
    for (uint32_t i = 0; i < o->n_inits; i++)
        template_compile(&l->inits[i], o->inits[i], true);
    if (o->ready)
        template_compile(&l->ready, o->ready, true);
    if (o->pub_init)
        template_compile(&l->pub_init, o->pub_init, true);
    template_compile(&l->body, o->body, true);
}

static void tokens_read(struct load *l, const char *path)
{
    size_t size, capacity = 0;
    char *text = process_read_file(path, TOKENS_MAX_BYTES, &size), *rest = text;
    if (!text)
        fail("--tokens %s: %s", path, strerror(errno));
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        if (*line == '\0')
            continue;
        if (l->n_tokens == capacity) {
            capacity = capacity ? 2 * capacity : 1024;
            l->tokens = (struct slice *)mem_realloc(l->tokens, capacity * sizeof *l->tokens);
        }
        l->tokens[l->n_tokens++] = slice_text(line);
    }
}

static void load_begin(struct load *l, int argc, char **argv)
{
    struct options *o = &l->options;
    options_read(o, argc, argv);
    descriptors_raise(o);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000UL);
    l->run = (uint32_t)(now_ns() / 1000 ^ (uint64_t)getpid() << 16) & 0x7fffffff;
    l->measured_from = l->measured_to = UINT64_MAX;
    l->rooms = (struct room *)mem_zalloc(o->rooms * sizeof *l->rooms);
    for (uint32_t i = 0; i < o->rooms; i++)
        l->rooms[i].name_size =
            room_name(l->rooms[i].name, sizeof l->rooms[i].name, o->room_format, i);
    l->subscribers = (struct subscriber *)mem_zalloc((o->conns + 1) * sizeof *l->subscribers);
    for (uint32_t i = 0; i < o->conns; i++)
        l->subscribers[i].link.fd = -1;
    l->poll = epoll_create1(EPOLL_CLOEXEC);
    if (l->poll < 0)
        fail("epoll: %s", strerror(errno));
    targets_read(l);
    if (o->tokens)
        tokens_read(l, o->tokens);
}

/* ---- a run ---- */

static void run(struct load *l)
{
    struct figures *f = &l->figures;
    const struct options *o = &l->options;
    f->before = server_use(l, true);
    if (!o->no_pub)
        publishers_start(l);
    if (o->replay > 0) {
        phase_replay_publish(l);
        phase_replay(l);
        return;
    }
    phase_connect(l);
    f->connected = server_use(l, false);
    phase_rest(l, o->settle);
    f->held_from = server_use(l, false);
    phase_rest(l, o->hold);
    f->held = server_use(l, true);
    if (!o->no_pub)
        phase_publish(l);
}

int main(int argc, char **argv)
{
    static struct load load; /* until the process ends, and all that it has */
    struct load *l = &load;
    load_begin(l, argc, argv);
    run(l);
    if (l->command_pid > 0)
        kill(l->command_pid, SIGTERM);
    report(l);
    return 0;
}

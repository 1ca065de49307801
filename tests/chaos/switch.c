/* SHELL. A switch between network namespaces, for the chaos test: bin/stoa-chaos-switch PORT...
 *
 * Each PORT is a veth whose other end is a host; port n (from 1) reaches the host whose MAC address
 * ends in n, so nothing is learned. Frames keep their offload headers (PACKET_VNET_HDR), so that
 * neither checksums nor segments need to be made here. What a frame meets on its way from one port
 * to another is told on standard input, a line each, answered by "ok":
 *     set FROM TO LOSS_PPM DELAY_US JITTER_US       0 for FROM or TO: every port
 * A loss of 1000000 is a cut. Jitter reorders: each frame has its own due time. Losses come from a
 * generator with a fixed seed. Ends with standard input. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>

#include "common/heap.h"
#include "common/mem.h"

#define PORTS_MAX 32
#define FRAME_MAX (sizeof(struct virtio_net_hdr) + 70000)
#define RECEIVE_BUFFER (8 << 20)
#define QUEUED_MAX 65536 /* frames under way: more is a queue that no real switch has */
#define FRAMES_A_TURN 256
#define CUT 1000000
#define US 1000

struct way {
    uint32_t loss_ppm, delay_us, jitter_us;
};

struct frame {
    struct heap_node node; /* first: a node is its frame */
    int fd;
    size_t size;
    unsigned char data[];
};

static struct way ways[PORTS_MAX][PORTS_MAX];
static int ports[PORTS_MAX];
static size_t port_count;
static struct heap queue;
static uint64_t random_state = UINT64_C(0x9e3779b97f4a7c15);

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint32_t below(uint32_t bound)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 32) * bound >> 32);
}

static int open_port(const char *name)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
    int one = 1, size = RECEIVE_BUFFER;
    struct sockaddr_ll at = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ALL),
                             .sll_ifindex = (int)if_nametoindex(name)};
    if (fd < 0 || at.sll_ifindex == 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one) != 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof at) != 0) {
        fprintf(stderr, "stoa-chaos-switch: %s: %s\n", name, strerror(errno));
        exit(1);
    }
    return fd;
}

/* A frame that the other end has no room for is lost, as on a wire. */
static void emit(int fd, const unsigned char *data, size_t size)
{
    ssize_t written = write(fd, data, size);
    (void)written;
}

static void send_due(void)
{
    struct heap_node *node;
    while ((node = heap_pop_due(&queue, now_ns()))) {
        struct frame *f = (struct frame *)node;
        emit(f->fd, f->data, f->size);
        free(f);
    }
}

static void carry(size_t from, size_t to, const unsigned char *data, size_t size)
{
    const struct way *way = &ways[from][to];
    if (way->loss_ppm && below(CUT) < way->loss_ppm)
        return;
    if (way->delay_us == 0 && way->jitter_us == 0) {
        emit(ports[to], data, size);
        return;
    }
    if (queue.count >= QUEUED_MAX)
        return;
    struct frame *f = mem_alloc(sizeof *f + size);
    *f = (struct frame){.fd = ports[to], .size = size};
    memcpy(f->data, data, size);
    uint32_t jitter = way->jitter_us ? below(way->jitter_us) : 0;
    heap_set(&queue, &f->node, now_ns() + ((int64_t)way->delay_us + jitter) * US);
}

static void receive(size_t from)
{
    static unsigned char data[FRAME_MAX];
    for (int n = 0; n < FRAMES_A_TURN; n++) {
        ssize_t size = recv(ports[from], data, sizeof data, 0);
        if (size < (ssize_t)(sizeof(struct virtio_net_hdr) + sizeof(struct ethhdr)))
            return;
        const struct ethhdr *head =
            (const struct ethhdr *)(const void *)(data + sizeof(struct virtio_net_hdr));
        size_t to = head->h_dest[ETH_ALEN - 1];
        if (head->h_dest[0] & 1) {
            for (to = 0; to < port_count; to++)
                if (to != from)
                    carry(from, to, data, (size_t)size);
        } else if (to >= 1 && to <= port_count && to - 1 != from) {
            carry(from, to - 1, data, (size_t)size);
        }
    }
}

static bool obey(const char *line)
{
    unsigned from, to;
    struct way way;
    if (sscanf(line, "set %u %u %" SCNu32 " %" SCNu32 " %" SCNu32, &from, &to, &way.loss_ppm,
               &way.delay_us, &way.jitter_us) != 5 ||
        from > port_count || to > port_count)
        return false;
    for (size_t i = 0; i < port_count; i++)
        for (size_t j = 0; j < port_count; j++)
            if ((from == 0 || from == i + 1) && (to == 0 || to == j + 1))
                ways[i][j] = way;
    return true;
}

/* False: standard input ended. Lines are short and written whole. */
static bool read_orders(void)
{
    static char text[4096];
    static size_t used;
    ssize_t n = read(STDIN_FILENO, text + used, sizeof text - 1 - used);
    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    used += (size_t)n;
    text[used] = 0;
    char *at = text, *end;
    for (; (end = strchr(at, '\n')); at = end + 1) {
        *end = 0;
        puts(obey(at) ? "ok" : "not understood");
    }
    fflush(stdout);
    used -= (size_t)(at - text);
    memmove(text, at, used);
    return true;
}

int main(int argc, char **argv)
{
    struct pollfd polled[PORTS_MAX + 1] = {{.fd = STDIN_FILENO, .events = POLLIN}};
    if (argc < 2 || argc > PORTS_MAX + 1) {
        fprintf(stderr, "usage: stoa-chaos-switch PORT...\n");
        return 2;
    }
    port_count = (size_t)argc - 1;
    for (size_t i = 0; i < port_count; i++) {
        ports[i] = open_port(argv[i + 1]);
        polled[i + 1] = (struct pollfd){.fd = ports[i], .events = POLLIN};
    }
    for (;;) {
        int64_t due = heap_next(&queue), left = due - now_ns();
        struct timespec wait = {.tv_sec = 3600};
        if (queue.count)
            wait = left > 0 ? (struct timespec){.tv_sec = left / 1000000000,
                                                .tv_nsec = left % 1000000000}
                            : (struct timespec){0};
        if (ppoll(polled, port_count + 1, &wait, NULL) < 0 && errno != EINTR)
            return 1;
        send_due();
        if (polled[0].revents && !read_orders())
            return 0;
        for (size_t i = 0; i < port_count; i++)
            if (polled[i + 1].revents)
                receive(i);
    }
}

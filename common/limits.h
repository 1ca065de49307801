/* CORE. Every bound of the system, with its unit in the name, and the relations between them. The
 * source of each number is the design's own table unless a comment says otherwise. */
#ifndef STOA_COMMON_LIMITS_H
#define STOA_COMMON_LIMITS_H

#define KIB 1024
#define MIB (1024 * 1024)

/* keys and payloads */
#define KEY_MAX_BYTES 256
#define PAYLOAD_MAX_BYTES (512 * KIB)    /* default of gateway.limits.message */
#define PAYLOAD_HARD_MAX_BYTES (1 * MIB) /* no configuration goes beyond */
#define CONFLATE_MAX_BYTES 64
#define FILTER_MAX_BYTES (4 * KIB)
#define IDEMPOTENCY_KEY_MAX_BYTES 255
#define JSON_DEPTH_MAX 64
#define BATCH_MAX_EVENTS 256
#define BATCH_MAX_BYTES (1 * MIB)

/* envelope */
#define HEAD_MAX_BYTES (64 * KIB)
#define HEAD_DEPTH_MAX 4
#define HEAD_ARRAY_MAX 4096
#define BODY_MAX_BYTES (2 * MIB)        /* payloads of one message: a batch, or a page */
#define PACKET_MAX_BYTES (4 * MIB)      /* one ZeroMQ message; ZMQ_MAXMSGSIZE */
#define PACKET_TARGET_BYTES (256 * KIB) /* a packet is sent once it is this large */

/* slots */
#define SLOT_COUNT 16384
#define SLOT_UNKNOWN 0xffff /* in a head: the router works it out */

/* links */
#define LINK_HEARTBEAT_MS 1000
#define LINK_DEAD_MS 3000
#define LINK_HWM_PACKETS 10000 /* ZeroMQ's backstop, never the mechanism */
#define PEERS_MAX 4096
#define CREDIT_WINDOW_BYTES (16 * MIB)
#define SUBSYNC_KEYS_PER_MESSAGE 1000
#define SUBSYNC_INTERVAL_MS 5000

/* shard */
#define ROOM_FIFO_MAX_MESSAGES 1000
#define ROOM_FIFO_MAX_BYTES (4 * MIB)
#define DRR_QUANTUM_BYTES (16 * KIB)
#define COMMIT_MAX_EVENTS 512
#define COMMIT_MAX_CODE_NS (50 * 1000 * 1000) /* of rooms' code */
#define COMMIT_MAX_BYTES (1 * MIB)
#define REPLAY_PAGE_MAX_BYTES (256 * KIB)
#define REPLAY_PAGE_MAX_ITEMS 1500
#define IDEMPOTENCY_WINDOW_MIN_MS (5 * 60 * 1000)
#define IDEMPOTENCY_IDS_PER_ROOM_MAX 1048576
#define ROOM_META_MIN_MS (24 * 3600 * 1000)

/* tokens */
#define REVOCATIONS_KEY "$stoa:revoked"
#define TOKEN_CLOCK_MARGIN_MS (3600 * 1000) /* revocations outlive auth.max_ttl by it */

/* rooms with handlers */
#define ROOM_CONNECTIONS_MAX 32768
#define CONNECTION_STATE_MAX_BYTES (16 * KIB)

/* gateway */
#define CONN_QUEUE_MAX_BYTES (256 * KIB) /* beyond it a connection lags */
#define CONN_LAG_MAX_MS 30000
#define KEYS_PER_SOCKET_MAX 1000
#define KEYS_PER_GATEWAY_MAX 100000
#define HTTP_HEAD_MAX_BYTES (16 * KIB)
#define HTTP_HEAD_TIMEOUT_MS 10000
#define HTTP_IDLE_TIMEOUT_MS 30000
#define PUBLISH_TIMEOUT_MS 10000 /* HTTP publish without an answer: 504 */
#define UPGRADE_TIMEOUT_MS 10000
#define PING_INTERVAL_MS 25000
#define PING_WATCHED_INTERVAL_MS 5000 /* in rooms that tell who is there */
#define SSE_COMMENT_INTERVAL_MS 15000
#define BAD_FRAMES_MAX 20
#define LOG_LIMIT_DEFAULT 100
#define LOG_LIMIT_MAX 1000

/* publisher */
#define PUBLISH_WINDOW_PER_KEY 256
#define PUBLISH_RETRY_MIN_MS 50
#define PUBLISH_RETRY_MAX_MS 2000

_Static_assert(PAYLOAD_MAX_BYTES <= PAYLOAD_HARD_MAX_BYTES,
               "the default lies within the hard bound");
_Static_assert(BATCH_MAX_BYTES + PAYLOAD_HARD_MAX_BYTES <= BODY_MAX_BYTES,
               "a batch or a page fits a body");
_Static_assert(BODY_MAX_BYTES + 2 * HEAD_MAX_BYTES <= PACKET_MAX_BYTES,
               "every message fits a packet");
_Static_assert(CREDIT_WINDOW_BYTES >= 2 * PACKET_MAX_BYTES,
               "credit covers two of the largest packets");
_Static_assert(LINK_DEAD_MS >= 2 * LINK_HEARTBEAT_MS, "one lost heartbeat does not kill a link");
_Static_assert(REPLAY_PAGE_MAX_ITEMS <= HEAD_ARRAY_MAX, "a page's items fit the array bound");

#endif

/**
 * CORE. The bounds that a publisher keeps, with their units in the names. They are those of
 * common/limits.h and client/publisher.h, where each is explained.
 */
export const KEY_MAX_BYTES = 256;
export const PAYLOAD_HARD_MAX_BYTES = 1024 * 1024;
export const CONFLATE_MAX_BYTES = 64;
export const FILTER_MAX_BYTES = 4 * 1024;
export const IDEMPOTENCY_KEY_MAX_BYTES = 255;
export const BATCH_MAX_EVENTS = 256;
export const BATCH_MAX_BYTES = 1024 * 1024;

export const HEAD_MAX_BYTES = 64 * 1024;
export const BODY_MAX_BYTES = 2 * 1024 * 1024;
export const PACKET_MAX_BYTES = 4 * 1024 * 1024;
/** A packet is sent once it is this large. */
export const PACKET_TARGET_BYTES = 256 * 1024;

export const LINK_HEARTBEAT_MS = 1000;
export const LINK_DEAD_MS = 3000;
export const LINK_RESET_INTERVAL_MS = 100;
export const LINK_HWM_PACKETS = 10000;
export const ROUTERS_MAX = 16;
export const ENDPOINT_MAX_BYTES = 320;
export const NAME_MAX_BYTES = 64;

/** Publishes of one key in flight. */
export const PUBLISH_WINDOW_PER_KEY = 256;
export const PUBLISH_RETRY_MIN_MS = 50;
export const PUBLISH_RETRY_MAX_MS = 2000;
/** What a refusal may ask to wait at most. */
export const PAUSE_WISH_MAX_MS = 60000;
/** An answer that does not come for this long over a link that is up is taken as lost. */
export const PUBLISH_SILENCE_MS = 5000;
/** A key without publishes keeps its numbering so long; and so many of them. */
export const LANE_IDLE_MS = 60000;
export const LANES_IDLE_MAX = 16384;
/** Where a WELCOME announces no window. */
export const WINDOW_DEFAULT_MESSAGES = 256;
export const WINDOW_DEFAULT_BYTES = 1024 * 1024;

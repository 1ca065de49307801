/* CORE. Structured log: an event name and typed fields, written as one line of text for people
 * ("12:03:04.123 info  shard.open dir=/data slots=8192") or one JSON object. A core logs through
 * the `struct log` it was given; the programs make one that writes to stderr, tests one that
 * collects. Secrets and payloads are never fields. Lines are at most 4 KiB; longer values are cut
 * with "...". */
#ifndef STOA_COMMON_LOG_H
#define STOA_COMMON_LOG_H

#include "common/slice.h"
#include "common/tick.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_TEXT, LOG_JSON };

struct log_field {
    const char *name;
    enum { LOG_FIELD_TEXT, LOG_FIELD_U64, LOG_FIELD_I64, LOG_FIELD_DOUBLE } kind;
    struct slice text;
    uint64_t u64;
    double real;
};

struct log {
    enum log_level level; /* events below it are dropped */
    enum log_format format;
    const char *role; /* "shard-0": the field `role` of every line; NULL: none */
    /* Receives one finished line ending in '\n'. */
    void (*write)(void *ctx, const char *line, size_t size);
    /* Wall clock in ms for the line's time; NULL writes none (tests). */
    int64_t (*wall_ms)(void *ctx);
    void *ctx;
};

void log_emit(struct log *log, enum log_level level, const char *event,
              const struct log_field *fields, size_t n_fields);

#define LOG_STR(name_, text_) \
    ((struct log_field){.name = (name_), .kind = LOG_FIELD_TEXT, .text = slice_text(text_)})
#define LOG_SLICE(name_, slice_) \
    ((struct log_field){.name = (name_), .kind = LOG_FIELD_TEXT, .text = (slice_)})
#define LOG_U64(name_, value_) \
    ((struct log_field){.name = (name_), .kind = LOG_FIELD_U64, .u64 = (uint64_t)(value_)})
#define LOG_I64(name_, value_) \
    ((struct log_field){.name = (name_), .kind = LOG_FIELD_I64, .u64 = (uint64_t)(int64_t)(value_)})
#define LOG_REAL(name_, value_) \
    ((struct log_field){.name = (name_), .kind = LOG_FIELD_DOUBLE, .real = (value_)})

/* LOG(log, LOG_INFO, "shard.open", LOG_STR("dir", dir), LOG_U64("slots", n)); a field-less event:
 * LOG0. */
#define LOG(log_, level_, event_, ...)                            \
    do {                                                          \
        if ((log_) && (level_) >= (log_)->level) {                \
            const struct log_field log_fields_[] = {__VA_ARGS__}; \
            log_emit((log_), (level_), (event_), log_fields_,     \
                     sizeof log_fields_ / sizeof *log_fields_);   \
        }                                                         \
    } while (0)
#define LOG0(log_, level_, event_)                         \
    do {                                                   \
        if ((log_) && (level_) >= (log_)->level)           \
            log_emit((log_), (level_), (event_), NULL, 0); \
    } while (0)

#endif

/* A handler for tests of rooms in the shard: it does what the frame, the event or the method's
 * input says, and keeps a diary of what it was called for.
 *
 *   say X      broadcast "X"            pub X     publish "X"          eph X   publish, ephemeral
 *   set X      state becomes X          inc       state becomes one more, and is broadcast
 *   add N      state becomes N more
 *   att X      its connection's state   bye       closes its connection with 4001
 *   alarm MS   on_alarm in MS           purge     forgets everything
 *   sleep MS   waits, then says woke    sib V K X asks the room c:K: V is send, state or call
 *   item X     an item of a stream      fail      fails                bad     does not decode
 *   endless    is stopped
 *   a;b        both, in this order
 */
#ifndef STOA_TESTS_SHARD_ACTOR_ROBOT_H
#define STOA_TESTS_SHARD_ACTOR_ROBOT_H

#include "shard/context.h"
#include "test_shard_rig.h"

struct robot {
    struct handler handler;
    struct strbuf diary;
    const char *on_connect; /* what it does then; NULL: nothing */
    const char *on_close;   /* "say left" */
    const char *on_alarm;
    const char *on_decode_error; /* NULL: it has none */
    bool handles_errors;
    bool refuses; /* identify */
    bool hangs;   /* identify: it is stopped */
    unsigned loaded;
    struct strbuf system_failure; /* of the last alarm */
};

extern struct robot robot;

/* A rig with rooms of type c that the robot handles, and one gateway. */
struct rig_client *robot_begin(void);
void robot_end(void);
extern struct rig *rig;

const struct message *robot_join(struct rig_client *g, const char *key, const char *session,
                                 const char *id, bool again);
void robot_leave(struct rig_client *g, const char *key, const char *session, unsigned code);
void robot_input(struct rig_client *g, const char *key, const char *session, uint64_t counter,
                 const char *frame);
struct robot_call {
    const char *key;
    enum call_verb verb;
    const char *name, *input;
    uint64_t id;
    bool streams;
};
/* Its answer, or NULL while there is none. */
const struct message *robot_call(struct rig_client *g, struct robot_call call);
/* The connections, as JSON. */
const char *robot_connections(struct rig_client *g, const char *key, const char *tag);
const char *robot_state(struct rig_client *g, const char *key);
/* Since the last time. */
const char *robot_diary(void);

#define ck_joined(m_, status_)                              \
    do {                                                    \
        const struct message *joined_ = (m_);               \
        ck_assert_ptr_nonnull(joined_);                     \
        ck_assert_int_eq((int)joined_->type, MSG_JOINED);   \
        ck_assert_uint_eq(joined_->joined.status, status_); \
    } while (0)
#define ck_result(m_, status_, json_)                       \
    do {                                                    \
        const struct message *result_ = (m_);               \
        ck_assert_ptr_nonnull(result_);                     \
        ck_assert_int_eq((int)result_->type, MSG_RESULT);   \
        ck_assert_uint_eq(result_->result.status, status_); \
        ck_assert(slice_is(result_->result.json, json_));   \
    } while (0)

#endif

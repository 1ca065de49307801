/* SHELL. First pass, in the order of time: who published what, what was answered, who owned which
 * slot, what the retention took. Decides what needs no log: H2 (acks), H6, H10, H12. */
#include "internal.h"

struct owner {
    uint32_t who; /* 0: nobody */
    uint32_t rank;
    uint64_t epoch;
};
struct alarm {
    uint64_t due;
    uint32_t fired; /* rank, or NONE */
};

struct facts {
    struct history *h;
    uint32_t calm;
};

struct key *key_of(struct history *h, uint32_t name)
{
    uint32_t *i = table_at(&h->key_index, name, 0);
    if (*i == NONE) {
        *i = (uint32_t)h->keys.count;
        struct key *k = array_add(&h->keys, sizeof *k);
        k->name = name;
        k->head = k->top = NONE;
    }
    return (struct key *)h->keys.data + *i;
}

struct epoch *epoch_of(struct history *h, uint32_t key, uint64_t epoch)
{
    uint32_t *i = table_at(&h->epoch_index, key, epoch);
    if (*i == NONE) {
        *i = (uint32_t)h->epochs.count;
        struct epoch *e = array_add(&h->epochs, sizeof *e);
        e->key = key;
        e->epoch = epoch;
    }
    return (struct epoch *)h->epochs.data + *i;
}

struct message *message_find(const struct history *h, uint32_t key, uint64_t msg)
{
    uint32_t i = table_get(&h->message_index, key, msg);
    return i == NONE ? NULL : message_at(h, i);
}

static void claim(struct history *h, const struct history_entry *e, uint32_t rank, uint64_t seq,
                  enum source source)
{
    struct key *k = key_of(h, e->key);
    struct epoch *ep = epoch_of(h, e->key, e->id.epoch);
    if (seq > ep->highest)
        ep->highest = seq;
    struct claim *c = array_add(&h->claims, sizeof *c);
    *c = (struct claim){.epoch = e->id.epoch,
                        .seq = seq,
                        .key = (uint32_t)(k - (struct key *)h->keys.data),
                        .message = e->msg ? table_get(&h->message_index, e->key, e->msg) : NONE,
                        .rank = rank,
                        .source = (uint8_t)source};
}

static void on_publish(struct history *h, const struct history_entry *e, uint32_t rank)
{
    struct key *k = key_of(h, e->key);
    uint32_t *i = table_at(&h->message_index, e->key, e->msg);
    if (*i != NONE) {
        struct message *m = message_at(h, *i);
        if (m->n != e->n || m->who != e->who || m->ephemeral != e->ephemeral)
            history_bad(h, rank, "a retry differs from its first publish");
        m->again = rank;
        m->told = m->ack != NONE;
        return;
    }
    *i = (uint32_t)h->messages.count;
    struct message *m = array_add(&h->messages, sizeof *m);
    *m = (struct message){.msg = e->msg,
                          .pseq = e->pseq,
                          .aim = e->aim,
                          .but = e->but,
                          .key = e->key,
                          .who = e->who,
                          .conflate = e->conflate,
                          .n = e->n,
                          .submit = rank,
                          .again = rank,
                          .ack = NONE,
                          .floor = k->top,
                          .ephemeral = e->ephemeral,
                          .log_rank = NONE};
    k->aimed |= e->aim || e->but;
    k->conflates |= e->conflate != 0;
}

static void on_answer(struct history *h, const struct history_entry *e, uint32_t rank)
{
    struct message *m = message_find(h, e->key, e->msg);
    if (!m) {
        history_bad(h, rank, "an answer to what was never published");
        return;
    }
    if (e->what != H_TIMEOUT)
        m->told = true;
    if (e->what != H_ACK)
        return;
    h->report.acks++;
    if (e->has_id == m->ephemeral || (e->has_id && e->id.seq < m->n)) {
        history_bad(h, rank, "an ack's id does not fit its publish");
        return;
    }
    if (m->ack != NONE) {
        if (!m->ephemeral && (e->id.epoch != m->at.epoch || e->id.seq != m->at.seq)) {
            violated(h, 2, e->key, m->ack, rank, "message %llu was acknowledged as %s and as %s",
                     (unsigned long long)m->msg, id_text(m->at).text, id_text(e->id).text);
            m->bad = true;
        }
        return;
    }
    m->ack = rank;
    if (m->ephemeral)
        return;
    struct key *k = key_of(h, e->key);
    k->acked = true;
    m->at = e->id;
    if (k->top == NONE || entry_at(h, k->top)->id.epoch != e->id.epoch ||
        entry_at(h, k->top)->id.seq < e->id.seq)
        k->top = rank;
    for (uint32_t i = 0; i < m->n; i++)
        claim(h, e, rank, e->id.seq - i, FROM_ACK);
}

static void on_owner(struct history *h, const struct history_entry *e, uint32_t rank)
{
    uint32_t *i = table_at(&h->scratch, 1, e->slot);
    if (*i == NONE) {
        *i = (uint32_t)h->owners.count;
        array_add(&h->owners, sizeof(struct owner));
    }
    struct owner *o = (struct owner *)h->owners.data + *i;
    uint32_t before = o->epoch ? o->rank : NONE;
    if (e->op == H_DROP) {
        if (o->who != e->who || o->epoch != e->number)
            violated(h, 6, 0, before, rank, "slot %u is dropped by one that does not own it",
                     e->slot);
        else
            o->who = 0;
        return;
    }
    if (o->who == e->who && o->epoch == e->number)
        return; /* restarted, and still the owner */
    if (o->who)
        violated(h, 6, 0, before, rank, "slot %u is owned by %.*s and by %.*s", e->slot,
                 SLICE_FMT(history_text(h, o->who)), SLICE_FMT(history_text(h, e->who)));
    else if (e->number <= o->epoch)
        violated(h, 6, 0, before, rank, "slot %u: epoch %llu comes after %llu", e->slot,
                 (unsigned long long)e->number, (unsigned long long)o->epoch);
    *o = (struct owner){e->who, rank, e->number};
}

static void on_alarm(struct history *h, const struct history_entry *e, uint32_t rank)
{
    uint32_t *i = table_at(&h->scratch2, e->key, e->msg);
    if (e->op == H_ARM) {
        if (*i == NONE) {
            *i = (uint32_t)h->alarms.count;
            array_add(&h->alarms, sizeof(struct alarm));
        }
        ((struct alarm *)h->alarms.data)[*i] = (struct alarm){e->number, NONE};
        return;
    }
    struct alarm *a = *i == NONE ? NULL : (struct alarm *)h->alarms.data + *i;
    if (!a)
        violated(h, 10, e->key, rank, NONE, "an alarm fires that was never armed");
    else if (a->fired != NONE)
        violated(h, 10, e->key, a->fired, rank, "an alarm has its effect twice");
    else if (e->t < a->due)
        violated(h, 10, e->key, rank, NONE, "an alarm fires before it is due");
    if (a)
        a->fired = rank;
}

/* At a deadline: H12 for everything submitted before the last calm. */
static void on_deadline(struct facts *f, uint32_t rank)
{
    struct history *h = f->h;
    if (f->calm == NONE) {
        history_bad(h, rank, "a deadline without a calm before it");
        return;
    }
    for (uint32_t i = 0; i < h->messages.count; i++) {
        struct message *m = message_at(h, i);
        if (m->told || m->again > f->calm)
            continue;
        uint32_t closed = table_get(&h->scratch, 2, m->who);
        if (closed != NONE && closed > m->again)
            continue;
        m->told = true;
        violated(h, 12, m->key, m->again, rank, "publisher %.*s was never told about message %llu",
                 SLICE_FMT(history_text(h, m->who)), (unsigned long long)m->msg);
    }
}

static void on_process(struct history *h, const struct history_entry *e, uint32_t rank)
{
    uint32_t *down = table_at(&h->scratch, 3, e->who);
    if (e->op == H_CRASH) {
        h->report.crashes++;
        if (*down == 1)
            history_bad(h, rank, "a crash of what has crashed already");
        *down = 1;
    } else {
        if (*down != 1)
            history_bad(h, rank, "a restart of what has not crashed");
        *down = 0;
    }
}

static void on_trim(struct history *h, const struct history_entry *e)
{
    struct epoch *ep = epoch_of(h, e->key, e->id.epoch);
    if (e->reason == H_EPOCH)
        ep->lost = true;
    else if (e->id.seq > ep->through)
        ep->through = e->id.seq;
}

static void on_head(struct history *h, const struct history_entry *e, uint32_t rank)
{
    struct key *k = key_of(h, e->key);
    if (k->dumped)
        history_bad(h, rank, "a second dump of a key");
    if (e->from.epoch != e->id.epoch && e->from.seq != 0)
        history_bad(h, rank, "head and from are of two epochs");
    k->dumped = true;
    k->head = rank;
}

static void gather(struct facts *f, const struct history_entry *e, uint32_t rank)
{
    struct history *h = f->h;
    switch (e->op) {
    case H_PUBLISH:
        on_publish(h, e, rank);
        break;
    case H_ANSWER:
        on_answer(h, e, rank);
        break;
    case H_DELIVER:
        if (e->has_id)
            claim(h, e, rank, e->id.seq, FROM_DELIVERY);
        h->report.deliveries++;
        break;
    case H_LOG:
        claim(h, e, rank, e->id.seq, FROM_LOG);
        break;
    case H_HEAD:
        on_head(h, e, rank);
        break;
    case H_TRIM:
        on_trim(h, e);
        break;
    case H_CLOSE:
        if (!e->key)
            *table_at(&h->scratch, 2, e->who) = rank;
        break;
    case H_OWN:
    case H_DROP:
        on_owner(h, e, rank);
        break;
    case H_CRASH:
    case H_RESTART:
        on_process(h, e, rank);
        break;
    case H_ARM:
    case H_FIRE:
        on_alarm(h, e, rank);
        break;
    case H_CALM:
        f->calm = rank;
        break;
    case H_DEADLINE:
        on_deadline(f, rank);
        break;
    default: /* subscriptions: when the log is known */
        break;
    }
}

void gather_facts(struct history *h)
{
    struct facts f = {.h = h, .calm = NONE};
    for (uint32_t i = 0; i < h->entries.count; i++)
        gather(&f, entry_at(h, i), i);
    for (size_t i = 0; i < h->keys.count; i++) {
        const struct key *k = (struct key *)h->keys.data + i;
        if (k->acked && !k->dumped)
            history_bad(h, NONE, "key %.*s has acks, but its final log is not there",
                        SLICE_FMT(history_text(h, k->name)));
    }
}

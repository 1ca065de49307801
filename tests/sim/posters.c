/* CORE. Publishers over HTTP and by stoa.v1 frames. With an idempotency key a poster tries again
 * until it knows; without one an unknown outcome stays unknown. Now and then one purges a key. */
#include "sim.h"

#include "common/json.h"

#define TRIES_MAX 12 /* a stale message stays unknown for ever */

static void poster_soon(struct poster *p)
{
    struct world *w = p->world;
    event_set(w, &p->act, draw_ns(w, w->dice.pace_ns));
}

/* ---- outcomes ---- */

static void told(struct poster *p, enum history_what what, struct position id, bool dup)
{
    struct world *w = p->world;
    const struct msg *m = truth_msg(w, p->msg);
    p->waiting = false;
    if (dup && !m->named)
        world_fail(w, "message %u is called a duplicate of nothing", p->msg);
    truth_answer(w, p->msg, p->who, what, id, dup);
    bool again = what == H_UNKNOWN ? m->named : what == H_NACK && chance(w, 700);
    if (m->ephemeral || what == H_ACK || !again || m->tries >= TRIES_MAX)
        p->msg = 0;
    poster_soon(p);
}

static void told_ok(struct poster *p, struct slice json)
{
    struct position id = {0};
    const struct msg *m = truth_msg(p->world, p->msg);
    bool has_id = json_id(json, "id", &id);
    if (has_id == m->ephemeral) {
        world_fail(p->world, "message %u: an answer that cannot be read: %.*s", p->msg,
                   SLICE_FMT(json));
        return;
    }
    told(p, H_ACK, id, json_get(json, "duplicate").type == JSON_TRUE);
}

static void told_error(struct poster *p, unsigned status, struct slice body)
{
    if (status != 503 && status != 504)
        world_fail(p->world, "message %u is answered %u %.*s", p->msg, status, SLICE_FMT(body));
    else
        told(p, status == 503 ? H_NACK : H_UNKNOWN, (struct position){0}, false);
}

static void on_answered(struct socket *s, unsigned status, struct slice body)
{
    struct poster *p = OWNER_OF(s, struct poster, socket);
    p->open = false;
    if (p->purging || p->v1) {
        p->purging = false;
        poster_soon(p);
    } else if (status == 200) {
        told_ok(p, body);
    } else {
        told_error(p, status, body);
    }
}

static void on_closed(struct socket *s, unsigned code)
{
    struct poster *p = OWNER_OF(s, struct poster, socket);
    (void)code;
    p->open = p->purging = false;
    if (p->waiting)
        told(p, H_UNKNOWN, (struct position){0}, false);
    else
        poster_soon(p);
}

static void on_opened(struct socket *s)
{
    poster_soon(OWNER_OF(s, struct poster, socket));
}

static void on_frame(struct socket *s, struct slice text)
{
    struct poster *p = OWNER_OF(s, struct poster, socket);
    struct slice error = json_get(text, "error").raw, ok = json_get(text, "ok").raw;
    uint64_t ref = 0, status = 0;
    if (!json_u64(json_get(text, "ref"), &ref) || !p->waiting || ref != p->msg) {
        world_fail(p->world, "a poster hears %.*s", SLICE_FMT(text));
        return;
    }
    if (error.size == 0)
        told_ok(p, ok);
    else if (json_u64(json_get(error, "status"), &status))
        told_error(p, (unsigned)status, error);
}

static const struct socket_handler handler = {
    .answered = on_answered, .opened = on_opened, .frame = on_frame, .closed = on_closed};

/* ---- publishing ---- */

static void post_http(struct poster *p, struct process *gateway)
{
    struct world *w = p->world;
    const struct msg *m = truth_msg(w, p->msg);
    struct strbuf body = {0};
    static const char *const whom[WHOM_COUNT][2] = {
        [FOR_ALL] = {"", "&except="},
        [FOR_SOME] = {"&to=somebody", "&tags=a,b&exclude="},
        [FOR_ALL_BUT_SOME] = {"&except=somebody", "&exclude=a,b"}};
    char query[96], name[32], conflate[2] = {(char)('0' + m->conflate), '\0'};
    snprintf(query, sizeof query, "key=%s%s", w->truth.keys[m->key].name,
             whom[m->whom][p->msg % 2]);
    snprintf(name, sizeof name, "poster-%u", p->msg);
    struct http_request request = request_make(HTTP_M_POST, "/publish", query);
    if (m->named)
        request_header(&request, "Idempotency-Key", name);
    if (m->conflate)
        request_header(&request, "Stoa-Conflate", conflate);
    if (m->ephemeral)
        request_header(&request, "Stoa-Ephemeral", "1");
    if (m->form == FORM_TYPED)
        request_header(&request, "Stoa-Format", "orpc");
    if (m->parts > 1)
        request_header(&request, "Content-Type", "application/x-ndjson");
    for (unsigned part = 0; part < m->parts; part++) {
        truth_payload(w, p->msg, part, &body);
        if (m->parts > 1)
            strbuf_put_byte(&body, '\n');
    }
    request.body = strbuf_slice(&body);
    p->open = p->waiting = true;
    truth_submit(w, p->msg, 0);
    (void)socket_request(&p->socket, gateway, &request);
    strbuf_free(&body);
}

static void post_v1(struct poster *p)
{
    struct world *w = p->world;
    const struct msg *m = truth_msg(w, p->msg);
    struct strbuf text = {0};
    strbuf_printf(&text, "{\"pub\":\"%s\",\"ref\":%u,\"data\":", w->truth.keys[m->key].name,
                  p->msg);
    truth_payload(w, p->msg, 0, &text);
    if (m->named)
        strbuf_printf(&text, ",\"idempotencyKey\":\"poster-%u\"", p->msg);
    if (m->conflate)
        strbuf_printf(&text, ",\"conflate\":\"%u\"", m->conflate);
    if (m->ephemeral)
        strbuf_put_text(&text, ",\"ephemeral\":true");
    if (m->whom == FOR_SOME)
        strbuf_put_text(&text, p->msg % 2 ? ",\"to\":[\"\"]" : ",\"tags\":[\"a\"]");
    else if (m->whom == FOR_ALL_BUT_SOME)
        strbuf_put_text(&text, ",\"except\":[\"somebody\"]");
    strbuf_put_byte(&text, '}');
    p->waiting = true;
    truth_submit(w, p->msg, 0);
    socket_say(&p->socket, strbuf_cstr(&text));
    strbuf_free(&text);
}

static void purge(struct poster *p, struct process *gateway)
{
    struct world *w = p->world;
    char query[64];
    snprintf(query, sizeof query, "key=%s", w->truth.keys[draw(w, w->dice.keys)].name);
    struct http_request request = request_make(HTTP_M_DELETE, "/log", query);
    p->open = p->purging = true;
    (void)socket_request(&p->socket, gateway, &request);
}

static void poster_connect(struct poster *p, struct process *gateway)
{
    struct http_request request = request_make(HTTP_M_GET, "/stoa", "");
    request_header(&request, "Sec-WebSocket-Protocol", "stoa.v1");
    request.upgrade = true;
    p->open = true;
    (void)socket_request(&p->socket, gateway, &request);
}

static enum form form_draw(const struct poster *p)
{
    enum form form = guests_form(p->world);
    return form == FORM_JSON && truth_picky(p->world) && p->msg % 4 == 0 ? FORM_TYPED : form;
}

static void poster_act(struct event *e)
{
    struct poster *p = OWNER_OF(e, struct poster, act);
    struct world *w = p->world;
    struct process *gateway = gateway_pick(w);
    if (p->waiting || p->purging || (p->msg == 0 && !w->storm))
        return;
    if (!gateway || (p->v1 && p->open && !p->socket.opened)) {
        poster_soon(p);
        return;
    }
    if (p->v1 && !p->open) {
        poster_connect(p, gateway);
        return;
    }
    /* A request does not say when its publish was first tried, so a client must know that the
     * window has passed. */
    if (p->msg != 0 &&
        (truth_msg(w, p->msg)->forgotten || truth_msg(w, p->msg)->first_ns <= w->leap_ns))
        p->msg = 0;
    if (p->msg == 0 && !w->storm)
        return;
    if (p->msg == 0 && !p->v1 && chance(w, w->dice.purge)) {
        purge(p, gateway);
        return;
    }
    if (p->msg == 0) {
        p->msg = truth_draw(w, p->who, false, chance(w, w->dice.idempotent));
        truth_msg(w, p->msg)->by_request = true;
        if (p->v1)
            truth_msg(w, p->msg)->parts = 1;
        else if (truth_msg(w, p->msg)->parts == 1)
            truth_msg(w, p->msg)->form = form_draw(p);
    }
    if (p->v1)
        post_v1(p);
    else
        post_http(p, gateway);
}

void posters_add(struct world *w)
{
    for (unsigned i = 0; i < w->dice.posters; i++) {
        struct poster *p = &w->posters[i];
        char name[24];
        snprintf(name, sizeof name, "poster-%u", i);
        p->act.fire = poster_act;
        p->world = p->socket.world = w;
        p->socket.handler = &handler;
        p->socket.lag_ns = 2 * MS;
        p->index = i;
        p->v1 = chance(w, 300);
        p->who = history_name(w->history, slice_text(name));
        poster_soon(p);
    }
}

void posters_free(struct world *w)
{
    for (unsigned i = 0; i < POSTERS_MAX; i++)
        socket_free(&w->posters[i].socket);
}

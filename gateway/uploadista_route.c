/* CORE. Requests of Uploadista's clients: which key a path of theirs names, and who may look.
 *
 *   /uploadista/ws/upload/ID   key ID, the query's uploadId before the path's
 *   /uploadista/ws/flow/ID     key ID, the query's jobId before the path's
 *
 * or a route of the configuration with this dialect. Their clients learn of a refusal by a frame on
 * the socket (session_uploadista.c), so what the original accepts is accepted here and told then;
 * what it does not know (a key that is none, a gateway that shuts down) is refused by HTTP. */
#include "gateway/uploadista.h"

bool uploadista_is_flow(const struct gateway_route *route)
{
    return strstr(route->path, "/flow/") != NULL || strstr(route->path, "{jobId}") != NULL;
}

int uploadista_query_id(const struct exchange *x, bool flow, struct strbuf *out)
{
    int found = http_query_get(x->request->query, flow ? "jobId" : "uploadId", out);
    return found == ERR_OK && out->size == 0 ? ERR_NOT_FOUND : found;
}

/* A session that is told something and closed, whatever it asked for. */
static void turn_away(struct exchange *x, enum viewer_kind kind)
{
    identity_unref(x->who);
    x->who = identity_ref(x->g->nobody);
    x->asked = true;
    strbuf_reset(&x->id);
    x->viewer = viewer_create(kind, false, strbuf_slice(&x->id));
    route_socket(x, &dialect_uploadista, NULL);
}

/* Whether whoever asks may do so, on a socket that is not of a key too; else he is told. What may
 * pass, or is no question of who asks, is answered by HTTP. */
static bool let_in(struct exchange *x)
{
    const char *message = "";
    const char *tag = identity_of_request(x->g, x->request, &x->who, &message);
    x->asked = tag == NULL;
    if (!tag)
        return true;
    bool token = request_has_token(x->g, x->request);
    if (slice_is(slice_text(tag), "Busy") || slice_is(slice_text(tag), "BadRequest")) {
        exchange_error(x, tag, message);
        return false;
    }
    refused_note(x->g, tag, message);
    turn_away(x, token ? VIEWER_TOKEN_REFUSED : VIEWER_UNKNOWN);
    return false;
}

/* Whether he may look at x->key. */
static bool may_view(struct exchange *x)
{
    if (identity_may(x->who, RIGHT_SUBSCRIBE, strbuf_slice(&x->key)))
        return true;
    refused_note(x->g, "Forbidden", "the token does not give the right `subscribe` on this key");
    turn_away(x, VIEWER_TOKEN_REFUSED);
    return false;
}

static void view(struct exchange *x, enum viewer_kind kind, bool flow, const struct start *start)
{
    x->viewer = viewer_create(kind, flow, strbuf_slice(&x->id));
    route_socket(x, &dialect_uploadista, start);
}

/* Whose events: x->key, x->id. */
static void view_key(struct exchange *x, bool flow)
{
    struct start start;
    if (!x->replay)
        x->replay = "all";
    if (may_view(x) && exchange_admit(x, RIGHT_SUBSCRIBE) && exchange_serves(x) &&
        start_from_request(x, false, &start))
        view(x, VIEWER_OF_KEY, flow, &start);
}

static bool begins_with(struct slice text, const char *with)
{
    size_t size = strlen(with);
    return text.size >= size && memcmp(text.data, with, size) == 0;
}

static struct slice behind(struct slice text, const char *front)
{
    return slice_of(text.data + strlen(front), text.size - strlen(front));
}

/* What stands behind /upload or /flow. The clients do not encode ids, so one may hold slashes. */
static void view_tail(struct exchange *x, bool flow, struct slice tail)
{
    while (tail.size > 0 && tail.data[0] == '/')
        tail = behind(tail, "/");
    while (tail.size > 0 && tail.data[tail.size - 1] == '/')
        tail.size--;
    strbuf_reset(&x->id);
    int found = uploadista_query_id(x, flow, &x->id);
    if (found == ERR_NOT_FOUND)
        found = http_decode(tail, false, &x->id);
    if (found == ERR_OK && x->id.size == 0) {
        view(x, VIEWER_WITHOUT_ID, flow, NULL);
        return;
    }
    strbuf_reset(&x->key);
    if (found == ERR_OK)
        strbuf_put_slice(&x->key, strbuf_slice(&x->id)); /* else it is refused as a key */
    view_key(x, flow);
}

/* Whether the first part of the path is this one. */
static bool part_is(struct slice path, const char *part)
{
    return begins_with(path, part) && (path.size == strlen(part) || path.data[strlen(part)] == '/');
}

void route_uploadista(struct exchange *x)
{
    struct slice path = x->tail;
    bool sockets = begins_with(path, "ws/");
    if (!x->request->upgrade && sockets) {
        upgrade_required(x, "open this address as a WebSocket");
        return;
    }
    if (!x->request->upgrade) {
        exchange_error(
            x, "NotFound",
            "there are only Uploadista's WebSockets here, /uploadista/ws/upload/{id} and "
            "/uploadista/ws/flow/{id}; its HTTP requests go to its own server");
        return;
    }
    if (!sockets) {
        turn_away(x, VIEWER_ASTRAY);
        return;
    }
    if (!let_in(x))
        return;
    path = behind(path, "ws/");
    bool flow = part_is(path, "flow");
    if (flow || part_is(path, "upload"))
        view_tail(x, flow, behind(path, flow ? "flow" : "upload"));
    else
        view(x, VIEWER_OF_NOTHING, false, NULL);
}

void route_uploadista_own(struct exchange *x)
{
    if (!x->request->upgrade)
        upgrade_required(x, "open this address as a WebSocket");
    else if (let_in(x))
        view_key(x, uploadista_is_flow(x->route));
}

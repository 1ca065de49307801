/* CORE. What visitors ask and say: every route with good arguments and with every kind of bad one,
 * and frames that stoa.v1 has and has not. In texts %s is a key of the world, %g one of the guests'
 * own, whose events nobody judges, %r a room with a handler, %l a text that is too long. */
#include "sim.h"

#define GET HTTP_M_GET
#define POST HTTP_M_POST
#define ORIGIN_HERE "http://localhost:3000"
#define TEXT_64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

const struct ask asks[] = {
    {GET, "/status", "", "", {{0}}},
    {GET, "/top", "limit=3", "", {{0}}},
    {GET, "/top", "limit=x", "", {{0}}},
    {GET, "/top", "limit=1000", "", {{0}}},
    {GET, "/top", "", "", {{"Origin", ORIGIN_HERE}}},
    {GET, "/keys", "limit=2", "", {{0}}},
    {GET, "/keys", "prefix=k&after=%s&limit=1", "", {{0}}},
    {GET, "/keys", "prefix=room&limit=4", "", {{0}}},
    {GET, "/keys", "prefix=room:1", "", {{0}}},
    {GET, "/keys", "limit=0", "", {{0}}},
    {GET, "/keys", "limit=", "", {{0}}},
    {GET, "/keys", "limit=1234567890123456", "", {{0}}},
    {GET, "/keys", "limit=1&limit=2", "", {{0}}},
    {GET, "/keys", "prefix=%%ff", "", {{0}}},
    {GET, "/keys", "after=%%0", "", {{0}}},
    {GET, "/keys", "after=%l%l%l%l", "", {{0}}},
    {GET, "/connections", "key=%s", "", {{0}}},
    {GET, "/connections", "key=%g", "", {{"Origin", ORIGIN_HERE}}},
    {GET, "/connections", "key=%s&tag=t", "", {{0}}},
    {GET, "/connections", "", "", {{0}}},
    {GET, "/presence", "key=%s", "", {{0}}},
    {GET, "/presence", "key", "", {{0}}},
    {GET, "/log", "key=%s&last=3", "", {{"Origin", ORIGIN_HERE}}},
    {GET, "/log", "key=%s&last=0", "", {{0}}},
    {GET, "/log", "key=%s&last=2&after=0", "", {{0}}},
    {GET, "/log", "key=%s&after=0&limit=2", "", {{"Accept", "text/csv,\tapplication/x-ndjson "}}},
    {GET, "/log", "key=%s&after=0&limit=1000", "", {{0}}},
    {GET, "/log", "key=%s&after=zz-9", "", {{0}}},
    {GET, "/log", "key=%s&after=Z", "", {{0}}},
    {GET, "/log", "key=%s&after=1&after=2", "", {{0}}},
    {GET, "/log", "key=%s&limit=1001", "", {{0}}},
    {GET, "/log", "", "", {{0}}},
    {GET, "/log", "&=x&k%%65y=%s&last=1&%%zz=1", "", {{0}}},
    {GET, "/events", "key=%s&replay=2", "", {{0}}},
    {GET, "/events", "key=%s&replay=none", "", {{0}}},
    {GET, "/events", "key=%s&replay=0", "", {{0}}},
    {GET, "/events", "key=%s&replay=all&conflate=none", "", {{0}}},
    {GET, "/events", "key=%s&replay=all&conflate=some", "", {{0}}},
    {GET, "/events", "key=%s&replay=%%", "", {{0}}},
    {GET, "/events", "key=%s&after=%%f", "", {{0}}},
    {GET, "/events", "key=%s&after=0", "", {{0}}},
    {GET, "/events", "key=%s", "", {{"Accept", "text/html"}}},
    {GET, "/events", "key=%s", "", {{"Accept", "text/html;q=0.9,text/event-stream;q=1"}}},
    {GET, "/events", "key=%g", "", {{"Accept", "*/*"}}},
    {GET, "/events", "key=%g&replay=all", "", {{"Accept", " text/* "}}},
    {GET, "/events", "key=%s&uploadId=%s", "", {{0}}},
    {GET, "/events", "uploadId=%g", "", {{0}}},
    {GET, "/events", "jobId=a+b%%C3%%a9", "", {{0}}},
    {GET, "/events", "key=%s&after=1", "", {{0}}},
    {GET, "/events", "key=%s&replay=-1", "", {{0}}},
    {GET, "/events", "key=%%00", "", {{0}}},
    {GET, "/events", "key=%%0", "", {{0}}},
    {GET, "/events", "key=%%g1", "", {{0}}},
    {GET, "/events", "key=$system", "", {{0}}},
    {GET, "/events", "key=short:x", "", {{0}}},
    {GET, "/events", "key=%l%l%l%l%l", "", {{0}}},
    {GET, "/events", "key=%s", "", {{"Last-Event-ID", "!"}}},
    {GET, "/events", "key=%g", "", {{"Last-Event-ID", "0"}, {"Origin", ORIGIN_HERE}}},
    {GET, "/ws/events/%s", "", "", {{0}}},
    {GET, "/ws/short/%g", "replay=all", "", {{0}}},
    {GET, "/ws/events/a%%2Fb", "replay=1", "", {{0}}},
    {GET, "/ws/events/%s/more", "", "", {{0}}},
    {GET, "/ws/events/", "", "", {{0}}},
    {GET, "/ws/events/%%", "", "", {{0}}},
    {GET, "/ws/%%/x", "", "", {{0}}},
    {GET, "/ws//x", "", "", {{0}}},
    {GET, "/ws/", "", "", {{0}}},
    {GET, "/stoa", "", "", {{0}}},
    {GET, "/stoa", "", "", {{"Sec-WebSocket-Protocol", "mqtt, stoa.v2"}}},
    {GET, "/", "", "", {{0}}},
    {GET, "/nothing", "", "", {{0}}},
    {GET, "/w", "", "", {{0}}},
    {GET, "/api/events/%s/state", "", "", {{0}}},
    {GET, "/api/never/%s/state", "", "", {{0}}},
    {GET, "/api/short/%s/presence", "", "", {{0}}},
    {GET, "/api/events/%s/log", "last=1", "", {{0}}},
    {HTTP_M_HEAD, "/api/events/%s/log", "", "", {{0}}},
    {GET, "/api/events/%s/connections", "", "", {{0}}},
    {GET, "/api/short/%g/events", "", "", {{0}}},
    {HTTP_M_DELETE, "/api/events/%g", "", "", {{0}}},
    {GET, "/api/events/%g", "", "", {{0}}},
    {GET, "/api/events/%g/", "", "", {{0}}},
    {GET, "/api/events/%g/method", "", "", {{0}}},
    {GET, "/api/$x/%g/log", "", "", {{0}}},
    {HTTP_M_DELETE, "/api/$x/%g", "", "", {{0}}},
    {POST, "/api/$x/%g/method", "", "", {{0}}},
    {POST, "/api/$x/%g/send", "", "", {{0}}},
    {POST, "/api/events/%s/send", "", "", {{0}}},
    {POST, "/api/events/%s/broadcast", "", "", {{0}}},
    {POST, "/api/events/%s/alarm", "", "", {{0}}},
    {POST, "/api/events/%s/log", "", "", {{0}}},
    {GET, "/api/events/%s/send", "", "", {{0}}},
    {POST, "/api/events/%s/method", "", "{}", {{0}}},
    {POST, "/api/never/%s/method", "", "", {{0}}},
    {POST, "/api/events/%s/method/more", "", "", {{0}}},
    {POST, "/api/events/%g/close", "code=1001", "", {{0}}},
    {GET, "/api/", "", "", {{0}}},
    {GET, "/api/events", "", "", {{0}}},
    {GET, "/uploadista/x", "", "", {{0}}},
    {POST, "/iterator", "", "", {{0}}},
    {HTTP_M_OPTIONS, "/publish", "", "", {{"Origin", "http://localhost:3000"}}},
    {HTTP_M_OPTIONS, "/log", "", "", {{0}}},
    {HTTP_M_OPTIONS, "/api/events/x", "", "", {{"Origin", "https://app.example"}}},
    {HTTP_M_OPTIONS, "/nothing", "", "", {{0}}},
    {HTTP_M_OPTIONS, "/own/a/b", "", "", {{"Origin", ORIGIN_HERE}}},
    {HTTP_M_HEAD, "/status", "", "", {{0}}},
    {HTTP_M_PUT, "/log", "key=%s", "", {{0}}},
    {HTTP_M_OTHER, "/close", "key=%s", "", {{0}}},
    {GET, "/own/a/b", "", "", {{0}}},
    {GET, "/own/a/b", "replay=all", "", {{0}}},
    {GET, "/own/%%C3%%A9/%g", "", "", {{0}}},
    {GET, "/own/%%/b", "", "", {{0}}},
    {GET, "/own//b", "", "", {{0}}},
    {GET, "/own/a", "", "", {{0}}},
    {GET, "/own/a/b/c", "", "", {{0}}},
    {POST, "/own/a/b", "", "", {{0}}},
    {GET, "/plain", "", "", {{0}}},
    {GET, "/plain/", "", "", {{0}}},
    {GET, "/short/x/feed", "", "", {{0}}},
    {GET, "/short/x/fed", "", "", {{0}}},
    {GET, "/keys", "", "", {{"Origin", "http://elsewhere.example"}}},
    {GET, "/keys", "", "", {{"Host", "elsewhere.example"}}},
    {POST, "/publish", "key=$x", "1", {{0}}},
    {POST, "/publish", "", "1", {{0}}},
    {POST, "/publish", "key=%g", "1", {{"Idempotency-Key", ""}}},
    {POST, "/publish", "key=%g", "1", {{"Idempotency-Key", "%l%l%l%l%l"}}},
    {POST, "/publish", "key=%g", "1", {{"Idempotency-Key", "a"}, {"idempotency-key", "b"}}},
    {POST, "/publish", "key=%g", "1", {{"Stoa-Ephemeral", "maybe"}}},
    {POST, "/publish", "key=%g", "1", {{"Stoa-Format", "2"}}},
    {POST, "/publish", "key=%g", "1", {{"Stoa-Conflate", ""}}},
    {POST, "/publish", "key=%g", "1", {{"Stoa-Conflate", "\xff"}}},
    {POST, "/publish", "key=%g", "1", {{"Stoa-Conflate", "%l%l"}}},
    {POST, "/publish", "key=%g", "1", {{"Idempotency-Key", "once"}, {"Origin", ORIGIN_HERE}}},
    {POST, "/publish", "key=%g", "text\r\n\rmore\n\n", {{"Content-Type", "text/plain"}}},
    {POST, "/publish", "key=%g", "\xff\xfe", {{"Stoa-Conflate", "c"}}},
    {POST, "/publish", "key=%g&tags=a,%%62", "1", {{"Stoa-Ephemeral", "1"}}},
    {POST, "/publish", "key=%g&targets=a&exclude=b", "1", {{"Stoa-Ephemeral", "1"}}},
    {POST, "/publish", "key=%g&to=a&targets=b", "1", {{0}}},
    {POST, "/publish", "key=%g&tags=%%ff", "1", {{0}}},
    {POST,
     "/publish",
     "key=%g",
     "{\"json\":1}",
     {{"Stoa-Format", "orpc"}, {"Stoa-Ephemeral", "1"}}},
    {POST, "/publish", "key=%g", "[1]", {{"Stoa-Format", "orpc"}}},
    {POST, "/publish", "key=%g", "%L", {{0}}},
    {POST,
     "/publish",
     "key=%g",
     "1\n\n2\r\n3",
     {{"Content-Type", "application/x-ndjson ; charset=utf-8"}}},
    {POST, "/publish", "key=%g", "\n\r\n", {{"Content-Type", "application/x-ndjson"}}},
    {POST, "/publish", "key=%g", "1\nno JSON", {{"Content-Type", "application/x-ndjson"}}},
    {POST, "/publish", "key=%g", "%N", {{"Content-Type", "application/x-ndjson"}}},
    {POST, "/publish", "key=%g", "%M", {{"Content-Type", "application/x-ndjson"}}},
    {HTTP_M_DELETE, "/publish", "key=%g", "", {{0}}},
    {POST, "/close", "key=%s&code=1", "", {{0}}},
    {POST, "/close", "key=%s&code=1005", "", {{0}}},
    {POST, "/close", "key=%s&code=1014", "", {{0}}},
    {POST, "/close", "key=%s&code=x", "", {{0}}},
    {POST, "/close", "key=%s", "", {{0}}},
    {POST, "/close", "key=%s&code=4321", "", {{0}}},
    {POST, "/close", "key=%g&code=1008", "", {{0}}},
    {POST, "/close", "key=%g&code=1012", "", {{0}}},
    {POST, "/close", "", "", {{0}}},
    {HTTP_M_DELETE, "/log", "key=", "", {{0}}},
    {GET, "/ws/made/%r", "", "", {{0}}},
    {GET, "/ws/made/%r", "replay=all", "", {{"Origin", ORIGIN_HERE}}},
    {GET, "/ws/made/%r", "replay=2", "", {{"User-Agent", "a"}, {"X-Team", "\"b\\"}}},
    {GET, "/ws/made/%r", "a=1&b&a=2&=x&&c=%%C3%%A9+d", "", {{"X-Team", "t"}, {"x-team", "u"}}},
    {GET, "/ws/made/%r", "a=%%ff", "", {{0}}},
    {GET, "/ws/made/%r", "%%ff=a", "", {{0}}},
    {GET, "/ws/made/%r", "%Q", "", {{0}}},
    {GET, "/ws/made/%r", "stoa_state=%%7B%%7D&state=1", "", {{"X-Team", "\xff"}}},
    {GET, "/ws/made/%r", "%l%l%l%l%l%l%l%l", "", {{"X-Team", "%K"}}},
    {GET, "/api/made/%r/events", "replay=all", "", {{0}}},
    {POST, "/api/made/%r/wild", "", "{\"a\":1}", {{"Idempotency-Key", "one"}}},
    {POST, "/api/made/%r/wild", "", "", {{0}}},
    {POST, "/api/made/%r/wild", "", "no JSON", {{0}}},
    {POST, "/api/made/%r/wild", "", "1", {{"Accept", "application/x-ndjson"}}},
    {POST, "/api/made/%r/never", "", "1", {{0}}},
    {POST, "/api/made/%r/send", "", "{\"made\":2}", {{"Idempotency-Key", "%g"}}},
    {POST, "/api/made/%r/send", "", "text", {{0}}},
    {POST, "/api/made/%r/broadcast", "", "{\"made\":3}", {{0}}},
    {POST, "/api/made/%r/broadcast", "to=a&except=b", "{\"made\":4}", {{0}}},
    {GET, "/api/made/%r/state", "", "", {{0}}},
    {GET, "/api/made/%r/connections", "tag=t", "", {{0}}},
    {GET, "/api/made/%r/connections", "", "", {{0}}},
    {GET, "/api/made/%r/presence", "", "", {{0}}},
    {POST, "/api/made/%r/alarm", "", "", {{0}}},
    {GET, "/api/made/%r/log", "last=9", "", {{0}}},
    {POST, "/api/made/%r/close", "", "", {{0}}},
    {HTTP_M_DELETE, "/api/made/%r", "", "", {{0}}},
    {GET, "/connections", "key=made:%r", "", {{0}}},
    {HTTP_M_DELETE, "/log", "key=%s", "", {{0}}},
    {HTTP_M_DELETE, "/log", "key=%g", "", {{"Origin", ORIGIN_HERE}}},
};
const size_t asks_count = sizeof asks / sizeof *asks;

/* Of any ask, now and then. The first ones are allowed where a browser of this machine is. */
const char *const odd_origins[] = {"http://localhost:3000",
                                   "https://LOCALHOST",
                                   "http://app.localhost:1",
                                   "http://127.0.0.1:99",
                                   "http://[::1]:8080",
                                   "http://[::1]",
                                   "https://app.example",
                                   "HTTPS://App.Example",
                                   "http://127.0.0.1.evil.example",
                                   "http://127.x",
                                   "http://localhost:port",
                                   "http://:80",
                                   "http://",
                                   "null",
                                   "file:///x",
                                   "http://local host",
                                   "http://\xc3\xa9.example",
                                   "",
                                   "http://gateway.example:80"};
const size_t odd_origins_count = sizeof odd_origins / sizeof *odd_origins;
const char *const odd_hosts[] = {"localhost:80",      "LocalHost",          "[::1]:80", "127.0.0.1",
                                 "a.localhost:9",     "localhost:x",        ":80",      "",
                                 "127.0.0.1.example", "gateway.example:80", "127."};
const size_t odd_hosts_count = sizeof odd_hosts / sizeof *odd_hosts;

const char *const frames[] = {
    "no JSON",
    "[]",
    "{}",
    "",
    "{\"sub\":7}",
    "{\"sub\":\"$x\"}",
    "{\"sub\":\"k\",\"after\":\"-\"}",
    "{\"sub\":\"k\",\"after\":\"\\u00e9\"}",
    "{\"sub\":\"k\",\"after\":1}",
    "{\"sub\":\"%g\"}",
    "{\"sub\":\"%g\",\"after\":\"0\"}",
    "{\"sub\":\"%g\",\"replay\":\"none\"}",
    "{\"sub\":\"%g\",\"replay\":\"all\"}",
    "{\"sub\":\"%g\",\"replay\":0}",
    "{\"sub\":\"%g\",\"replay\":3}",
    "{\"sub\":\"%s\",\"replay\":3}",
    "{\"unsub\":\"%g\"}",
    "{\"unsub\":\"never\"}",
    "{\"pub\":\"k\",\"ref\":1}",
    "{\"pub\":\"\",\"data\":1,\"ref\":2}",
    "{\"pub\":\"%g\",\"data\":1,\"ref\":2,\"ephemeral\":true}",
    "{\"pub\":\"%g\",\"data\":[],\"ephemeral\":true,\"conflate\":\"c\"}",
    "{\"pub\":\"%g\",\"data\":1,\"ephemeral\":7,\"ref\":\"x\"}",
    "{\"pub\":\"%g\",\"data\":1,\"ephemeral\":true,\"conflate\":7}",
    "{\"pub\":\"%g\",\"data\":1,\"ephemeral\":true,\"conflate\":\"%l%l\"}",
    "{\"pub\":\"%g\",\"data\":1,\"idempotencyKey\":7,\"ref\":{}}",
    "{\"pub\":\"%g\",\"data\":1,\"idempotencyKey\":\"\"}",
    "{\"pub\":\"%g\",\"data\":1,\"idempotencyKey\":\"%l%l%l%l%l\"}",
    "{\"pub\":\"%g\",\"data\":1,\"idempotencyKey\":\"\\ud800\"}",
    "{\"pub\":\"%g\",\"data\":1,\"idempotencyKey\":\"i\",\"ephemeral\":true}",
    "{\"pub\":\"%g\",\"data\":1,\"tags\":[\"a\",\"\"],\"to\":[],\"ephemeral\":true}",
    "{\"pub\":\"%g\",\"data\":1,\"to\":\"a\",\"ref\":9}",
    "{\"pub\":\"%g\",\"data\":1,\"except\":\"a\"}",
    "{\"pub\":\"%g\",\"data\":1,\"ref\":\"%l%l%l%l%l\"}",
    "{\"send\":\"k\",\"event\":1,\"ref\":3}",
    "{\"send\":\"\",\"event\":1,\"ref\":3}",
    "{\"call\":\"k\",\"method\":\"m\",\"ref\":4}",
    "{\"call\":\"never:k\",\"method\":\"m\",\"ref\":4}",
    "{\"ping\":{\"a\":[1]}}",
    "{\"ping\":\"%K\"}",
    "{\"token\":\"t\"}",
    "{\"sub\":\"k\",\"unsub\":\"k\"}",
    "{\"sub\":\"k\",\"replay\":\"x\"}",
    "{\"sub\":\"k\",\"presence\":true}",
    "{\"sub\":\"made:%r\"}",
    "{\"sub\":\"made:%r\",\"replay\":\"all\"}",
    "{\"unsub\":\"made:%r\"}",
    "{\"send\":\"made:%r\",\"event\":{\"made\":5},\"ref\":3}",
    "{\"send\":\"made:%r\",\"event\":\"ping\"}",
    "{\"send\":\"made:%r\"}",
    "{\"call\":\"made:%r\",\"method\":\"wild\",\"input\":1,\"ref\":4}",
    "{\"call\":\"made:%r\",\"method\":\"wild\",\"ref\":4,\"idempotencyKey\":\"i\"}",
    "{\"call\":\"made:%r\",\"method\":\"never\",\"ref\":4}",
    "{\"call\":\"made:%r\",\"method\":7,\"ref\":4}",
    "{\"sub\":\"k\",\"presence\":false,\"token\":1}"};
const size_t frames_count = sizeof frames / sizeof *frames;

/* %l: 64 bytes; %K: a ping too long; %Q: too many parameters; %L: a payload too large; %N: a batch
 * of too many events, %M: of too many bytes. Elsewhere % is a percent sign where it stands twice.
 */
static bool fill_long(struct strbuf *out, char what)
{
    switch (what) {
    case 'l':
        strbuf_put_text(out, TEXT_64);
        return true;
    case 'Q':
        for (unsigned i = 0; i < 300; i++)
            strbuf_printf(out, "q%u=%u&", i, i);
        return true;
    case 'K':
        for (unsigned i = 0; i < 70; i++)
            strbuf_put_text(out, TEXT_64);
        return true;
    case 'L':
        memset(strbuf_reserve(out, PAYLOAD_MAX_BYTES + 1), 'x', PAYLOAD_MAX_BYTES + 1);
        strbuf_commit(out, PAYLOAD_MAX_BYTES + 1);
        return true;
    case 'N':
        for (unsigned i = 0; i <= BATCH_MAX_EVENTS; i++)
            strbuf_put_text(out, "1\n");
        return true;
    case 'M':
        for (unsigned i = 0; i < 3; i++) {
            strbuf_put_byte(out, '"');
            memset(strbuf_reserve(out, 400 * KIB), 'x', 400 * KIB);
            strbuf_commit(out, 400 * KIB);
            strbuf_put_text(out, "\"\n");
        }
        return true;
    default:
        return false;
    }
}

void ask_fill(struct world *w, struct rng *rng, const char *text, struct strbuf *out)
{
    for (; *text; text++) {
        if (text[0] != '%') {
            strbuf_put_byte(out, (uint8_t)*text);
            continue;
        }
        text++;
        if (*text == 's')
            strbuf_put_text(out, w->truth.keys[rng_below(rng, w->dice.keys)].name);
        else if (*text == 'g')
            strbuf_printf(out, "guest%u", (unsigned)rng_below(rng, GUEST_KEYS));
        else if (*text == 'r')
            strbuf_printf(out, "w%u", (unsigned)rng_below(rng, 4));
        else if (!fill_long(out, *text))
            strbuf_put_byte(out, (uint8_t)*text);
    }
}

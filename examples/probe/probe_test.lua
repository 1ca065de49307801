-- Every call of the host, in Lua and in C: what one promises holds of the other.
--
--   stoa room test examples/probe/probe_test.lua                                the room in Lua
--   PROBE=build/rooms/probe.so stoa room test examples/probe/probe_test.lua     the room in C
--
-- With TRANSCRIPT=FILE everything that was asked and answered is written there, one JSON a line: of both
-- rooms it is the same file.
local test = require "test"
local null, array = test.null, test.array

local PROBE = os.getenv "PROBE" or "probe.lua"
if PROBE:find "%.so$" and PROBE:sub(1, 1) ~= "/" then
  PROBE = os.getenv "PWD" .. "/" .. PROBE
end
local transcript = os.getenv "TRANSCRIPT" and assert(io.open(os.getenv "TRANSCRIPT", "w"))

local function note(...)
  if transcript then
    transcript:write(test.json { ... }, "\n")
  end
  return ...
end

---- what cases say ----

local function begin(config)
  return test.room(PROBE, "one", config)
end

local function or_null(value)
  if value == nil then
    return null
  end
  return value
end

-- Calls an act as a method.
local function ask(t, act, input)
  local ok, result = pcall(t.call, t, act, input)
  if ok then
    note("ask", act, or_null(input), or_null(result))
    return result
  end
  note("ask", act, or_null(input), tostring(result), or_null(result.data))
  error(result, 0)
end

local function refused(t, tag, act, input)
  return test.error(tag, function()
    ask(t, act, input)
  end)
end

local function connect(t, query, more)
  local wish = more or {}
  wish.query = query
  local c = t:connect(wish)
  note("connect", query, c.tag and { c.status, c.tag, c.message } or { c.id, c.tags })
  return c
end

local function heard(c)
  return (note(c:received(), c.id))
end

-- Connected, and what on_connect sent is taken.
local function enter(t, id, tags)
  local c = connect(t, { id = id, tags = tags })
  heard(c)
  return c
end

-- Runs an act by a frame; what it returns.
local function say(c, act, with)
  c:receive { act = act, with = with }
  local all = heard(c)
  local last = all[#all]
  return last and last.did == act and last.result, all
end

local function ids(list)
  local out = array {}
  for i, c in ipairs(list) do
    out[i] = c.id
  end
  return out
end

local function open(c)
  return (note({ c:is_open() }))
end

---- state ----

test.case("state: none, saved, updated, purged", function()
  local t = begin()
  test.equal(ask(t, "recall"), nil)
  test.equal(ask(t, "update", { by = 1 }), false)
  ask(t, "save", { state = { n = 1 } })
  test.equal(ask(t, "update", { by = 41 }), true)
  test.equal(ask(t, "recall"), { n = 42 })
  test.equal(t:state(), { n = 42 })
  ask(t, "wake_in", { ms = 1000 })
  ask(t, "publish", { message = "kept" })
  ask(t, "steps", { { act = "save", with = { state = { n = 2 } } }, { act = "purge" } })
  test.equal(ask(t, "recall"), nil)
  test.equal(t:next_alarm(), nil)
  test.equal(t:log(), array {})
end)

test.case("state outlives the shard, memory does not", function()
  local t = begin()
  ask(t, "save", { state = { kept = true } })
  ask(t, "remember", { text = "in memory" })
  test.equal(ask(t, "memory"), "in memory")
  t:restart()
  test.equal(ask(t, "recall"), { kept = true })
  test.equal(ask(t, "memory"), nil)
end)

test.case("a state of 2 MiB is kept, one byte more is refused and changes nothing", function()
  local t = begin()
  ask(t, "save_bytes", { bytes = 2097152 })
  test.equal(#ask(t, "recall").text, 2097152 - #'{"text":""}')
  refused(t, "RoomError", "save_bytes", { bytes = 2097153 })
  test.equal(#t:state().text, 2097152 - #'{"text":""}')
end)

test.case("a state that is not the room's is not saved", function()
  local t = begin()
  local err = refused(t, "RoomError", "save", { state = { bad = true } })
  test.equal(err.message, "the state is bad")
  test.error("RoomError", function()
    t:call("save", {})
  end)
  test.equal(t:state(), nil)
  ask(t, "save", { state = null })
  test.equal(ask(t, "recall"), nil)
end)

test.case("a full disk: nothing has happened, and it goes on when there is space", function()
  local t = begin()
  local a = enter(t, "a")
  ask(t, "save", { state = { n = 1 } })
  t:fail_commits(1)
  refused(t, "DiskFull", "update", { by = 1 })
  a:receive { act = "update", with = { by = 10 } }
  test.equal(heard(a), array {})
  t:fail_commits(0)
  t:tick(5000)
  test.equal(heard(a), { { did = "update", result = true } })
  test.equal(t:state(), { n = 11 })
end)

---- connections ----

test.case("identify decides id, tags, state; meta is for on_connect", function()
  local t = begin()
  local a = connect(t, { id = "ann", tags = "x,y", state = '{"n":1}', ask = "nothing" }, {
    ip = "10.0.0.9",
    headers = { origin = "https://a.example" },
    claims = { sub = "ann" },
    client_state = { seen = 3 },
  })
  test.equal({ a.id, a.tags }, { "ann", { "x", "y" } })
  test.equal(heard(a), {
    {
      hello = "ann",
      meta = {
        ask = "nothing",
        ip = "10.0.0.9",
        origin = "https://a.example",
        claims = { sub = "ann" },
        client_state = { seen = 3 },
      },
    },
  })
  local me = say(a, "me")
  test.equal(me.connection, { id = "ann", tags = { "x", "y" }, state = { n = 1 }, open = true })
  test.equal({ me.type, me.id, me.now }, { "probe", "one", t:now() })
  test.equal(t:connections(), { { id = "ann", tags = { "x", "y" }, state = { n = 1 } } })
  test.equal(ask(t, "me").connection, null)
end)

test.case("who names no id gets one; an id has 256 bytes at most", function()
  local t = begin()
  local a = t:connect {}
  assert(#a.id > 0)
  test.equal(a.tags, array {})
  assert(#t:connect({ query = { id = "" } }).id > 0)
  test.equal(#connect(t, { id = ("é"):rep(128) }).id, 256)
  local r = connect(t, { id = ("x"):rep(257) })
  test.equal({ r.status, r.tag }, { 400, "RoomValidationError" })
end)

test.case("refusals: by identify, by on_connect, by failing; and a failure that is handled", function()
  local t = begin()
  local function refusal(query)
    local r = connect(t, query)
    return { r.status, r.tag, r.message }
  end
  local unknown = { 500, "UpgradeError", "the room could not tell who this is" }
  test.equal(refusal { refuse = "451" }, { 451, "UpgradeError", "not you" })
  test.equal(refusal { broken = "1" }, unknown)
  test.equal(refusal { ask = "refuse" }, { 403, "UpgradeError", "not here" })
  test.equal(refusal { ask = "fail" }, { 500, "RoomExecutionError", "the room's handler failed" })
  test.equal(refusal { state = '{"bad":true}' }, unknown)
  test.equal(t:connections(), array {})
  local a = connect(t, { id = "a", ask = "handled" })
  test.equal(heard(a), { { handled = "connect", message = "as asked" } })
end)

test.case("tags: ten of 256 characters, not more", function()
  local t = begin()
  local tags = {}
  for i = 1, 10 do
    tags[i] = ("é"):rep(255) .. string.char(64 + i)
  end
  test.equal(#connect(t, { tags = table.concat(tags, ",") }).tags, 10)
  tags[11] = "one more"
  test.equal(connect(t, { tags = table.concat(tags, ",") }).status, 400)
  test.equal(connect(t, { tags = ("x"):rep(257) }).status, 400)
  test.equal(connect(t, { tags = "same,same" }).status, 400)
end)

test.case("connections: all, by tag, by id, filtered, counted; the oldest comes first", function()
  local t = begin()
  local a = enter(t, "ann", "red")
  enter(t, "bob", "blue")
  enter(t, "amy", "red,blue")
  enter(t, "bob", "green")
  test.equal(ids(ask(t, "all")), { "ann", "bob", "amy", "bob" })
  test.equal(ids(ask(t, "by_tag", { tag = "blue" })), { "bob", "amy" })
  test.equal(ask(t, "by_tag", { tag = "none" }), array {})
  test.equal(ask(t, "by_id", { id = "bob" }).tags, { "blue" })
  test.equal(ask(t, "by_id", { id = "eve" }), nil)
  test.equal(ids(ask(t, "filter", { prefix = "a" })), { "ann", "amy" })
  test.equal({ ask(t, "count"), ask(t, "count", { tag = "red" }), ask(t, "count", { tag = "none" }) }, { 4, 2, 0 })
  a:close()
  test.equal(ids(ask(t, "all")), { "bob", "amy", "bob" })
  test.equal(ask(t, "count"), 3)
end)

test.case("a connection's own state: kept, capped, and refused if it is not the room's", function()
  local t = begin { max_connection_state = 2048 }
  local a = enter(t, "a")
  test.equal(say(a, "set_state", { state = { n = 1 } }), null)
  t:restart()
  test.equal(say(a, "me").connection.state, { n = 1 })
  ask(t, "set_bytes", { id = "a", bytes = 2048 })
  local err = refused(t, "AttachmentTooLargeError", "set_bytes", { id = "a", bytes = 2049 })
  test.equal(err.status, 413)
  test.equal(#t:connections()[1].state.text, 2048 - #'{"text":""}')
  refused(t, "RoomError", "set_state", { id = "a", state = { bad = true } })
  err = refused(t, "NoConnection", "set_state", { id = "b", state = 1 })
  test.equal({ err.status, err.message, err.data }, { 404, "nobody has this id", { id = "b" } })
end)

test.case("the room closes a connection with code and reason", function()
  local t = begin()
  local a, b = enter(t, "a"), enter(t, "b")
  say(a, "shut", { code = 4001, reason = "out" })
  test.equal(open(a), { false, 4001, "out" })
  test.equal(heard(b), { { left = "a", code = 4001, reason = "out", clean = true, replaced = false, recovered = false } })
  test.equal(ids(ask(t, "all")), { "b" })
  for _, code in ipairs { 999, 1002, 1005, 1006, 2000, 5000 } do
    refused(t, "RoomError", "shut", { id = "b", code = code, reason = "" })
  end
  refused(t, "RoomError", "shut", { id = "b", code = 4000, reason = ("x"):rep(124) })
  local steps = { { act = "shut", with = { id = "b", code = 4000, reason = ("x"):rep(123) } }, { act = "count" } }
  test.equal(ask(t, "steps", steps), { null, 0 }) -- it is gone for the rest of the segment, too
  test.equal(open(b), { false, 4000, ("x"):rep(123) })
end)

test.case("who is closing cannot be sent to", function()
  local t = begin()
  local a = enter(t, "a")
  local shut = { act = "shut", with = { code = 1000, reason = "" } }
  local try = { act = "try", with = { act = "send_to", with = { message = 1 } } }
  ask(t, "remember", { text = "nothing" })
  a:receive { act = "steps", with = { { act = "tell", with = { message = "before" } }, shut, { act = "tell", with = { message = "after" } }, try } }
  test.equal(heard(a), { "before" })
  test.equal(open(a), { false, 1000, "" })
end)

test.case("who leaves, how, and who is lost", function()
  local t = begin()
  local a, b, c, d = enter(t, "a"), enter(t, "b"), enter(t, "c"), enter(t, "d")
  b:close()
  c:close(4010, "bye")
  d:close(1006)
  local function left(id, code, reason, clean, recovered)
    return { left = id, code = code, reason = reason, clean = clean, replaced = false, recovered = recovered }
  end
  test.equal(heard(a), { left("b", 1000, "", true, false), left("c", 4010, "bye", true, false), left("d", 1006, "", false, false) })
  t:restart { gateways = true }
  local e = enter(t, "e")
  t:tick(20000)
  test.equal(heard(e), { left("a", 1006, "", false, true) })
end)

test.case("the same id again: both, instead, or not at all", function()
  local t = begin()
  enter(t, "a")
  enter(t, "a")
  test.equal(ids(ask(t, "all")), { "a", "a" })

  t = begin { on_duplicate = "replace" }
  local old, other = enter(t, "a"), enter(t, "b")
  local new = enter(t, "a")
  test.equal(open(old)[2], 1012)
  test.equal(open(new), { true })
  local left = heard(other)[1]
  test.equal({ left.left, left.replaced }, { "a", true })
  test.equal(ids(ask(t, "all")), { "b", "a" })

  t = begin { on_duplicate = "reject" }
  enter(t, "a")
  local r = connect(t, { id = "a" })
  test.equal({ r.status, r.tag }, { 409, "Duplicate" })
end)

test.case("a room that is full says so", function()
  local t = begin { max_connections = 2 }
  enter(t, "a")
  enter(t, "b")
  local r = connect(t, { id = "c" })
  test.equal({ r.status, r.tag }, { 409, "RoomFull" })
end)

---- to many ----

-- Who of a, b and c hears what `act` sends.
local function reached(act, with, from)
  local t = begin()
  local cs = { enter(t, "a", "red"), enter(t, "b", "blue"), enter(t, "c", "red,blue") }
  with.message = "m"
  if from then
    cs[from]:receive { act = act, with = with }
  else
    ask(t, act, with)
  end
  local out = ""
  for _, c in ipairs(cs) do
    for _, m in ipairs(heard(c)) do
      out = out .. (m == "m" and c.id or "")
    end
  end
  return out
end

test.case("recipients are those that the room means", function()
  for _, act in ipairs { "tell", "publish" } do
    test.equal(reached(act, {}), "abc", act)
    test.equal(reached(act, { tags = "red" }), "ac", act)
    test.equal(reached(act, { tags = { "red", "blue" } }), "abc", act)
    test.equal(reached(act, { tags = array {} }), "", act)
    test.equal(reached(act, { to = { "b", "c" } }), "bc", act)
    test.equal(reached(act, { to = "b", tags = "red" }), "b", act)
    test.equal(reached(act, { to = array {} }), "", act)
    test.equal(reached(act, { except = "a" }), "bc", act)
    test.equal(reached(act, { tags = "red", except = { "a", "b" } }), "c", act)
    test.equal(reached(act, { to = "nobody" }), "", act)
    test.equal(reached(act, { not_me = true }, 2), "ac", act)
  end
end)

test.case("one connection of two with the same id", function()
  local t = begin()
  local a, b, again = enter(t, "a"), enter(t, "b"), enter(t, "a")
  again:receive { act = "tell", with = { message = "others", not_me = true } }
  ask(t, "tell", { message = "both", to = "a" })
  ask(t, "send_to", { message = "oldest", id = "a" })
  test.equal(heard(a), { "others", "both", "oldest" })
  test.equal(heard(b), { "others" })
  test.equal(heard(again), { { did = "tell", result = null }, "both" })
end)

test.case("messages that are not the room's, or too large, go nowhere", function()
  local t = begin()
  local a = enter(t, "a")
  test.equal(refused(t, "BroadcastError", "tell", { message = { bad = true } }).message, "the message is bad")
  test.equal(refused(t, "BroadcastError", "publish", { message = { bad = true } }).message, "the message is bad")
  test.equal(refused(t, "SendError", "send_to", { id = "a", message = { bad = true } }).message, "the message is bad")
  ask(t, "tell_bytes", { bytes = 524288 })
  refused(t, "BroadcastError", "tell_bytes", { bytes = 524289 })
  refused(t, "BroadcastError", "publish", { message = 1, conflate = ("k"):rep(1025) })
  test.equal(#heard(a), 1)
end)

test.case("published is retained, the newest of what is conflated; broadcast and ephemeral are not", function()
  local t = begin()
  local a = enter(t, "a")
  ask(t, "publish", { message = { n = 1 } })
  ask(t, "publish", { message = "x1", conflate = "x" })
  ask(t, "publish", { message = { n = 2 }, ephemeral = true })
  ask(t, "tell", { message = { n = 3 } })
  ask(t, "publish", { message = "x2", conflate = "x" })
  test.equal(heard(a), { { n = 1 }, "x1", { n = 2 }, { n = 3 }, "x2" })
  t:restart()
  local events, data = ask(t, "events"), {}
  for i, e in ipairs(events) do
    data[i] = e.data
    test.equal(e.ts, t:now())
  end
  test.equal(data[1], { n = 1 })
  test.equal(data[#data], "x2")
  test.equal(events[#events].conflate, "x")
  local behind = ask(t, "events", { after = events[1].id })
  test.equal(#behind, #events - 1)
  test.equal(#ask(t, "events", { limit = 1 }), 1)
  test.equal(refused(t, "BadId", "events", { after = "no id" }).status, 400)
  test.equal(#ask(t, "events", { limit = 1000 }), #events)
  refused(t, "RoomError", "events", { limit = 1001 })
  refused(t, "RoomError", "events", { limit = -1 })
end)

test.case("sibling sends to all: from outside and from other rooms", function()
  local t = begin()
  local a = enter(t, "a")
  t:broadcast { from = "outside" }
  t:room(PROBE, "two"):call("room_tell", { type = "probe", id = "one", message = { from = "two" } })
  test.equal(heard(a), { { from = "outside" }, { from = "two" } })
end)

---- alarms and time ----

test.case("an alarm: in, at, replaced, cancelled, past", function()
  local t = begin()
  local a = enter(t, "a")
  test.equal(ask(t, "next_wake"), nil)
  ask(t, "wake_in", { ms = 5000 })
  test.equal(ask(t, "next_wake"), t:now() + 5000)
  ask(t, "wake_at", { at = t:now() + 1000 })
  test.equal(t:next_alarm(), t:now() + 1000)
  test.equal(ask(t, "steps", { { act = "unwake" }, { act = "next_wake" }, { act = "wake_in", with = { ms = 7 } }, { act = "next_wake" } }), {
    null,
    null,
    null,
    t:now() + 7,
  })
  t:tick(7)
  test.equal(heard(a), { { alarm = t:now(), failure = null, next = null } })
  ask(t, "wake_at", { at = 1 })
  test.equal(heard(a), { { alarm = t:now(), failure = null, next = null } })
  ask(t, "wake_in", { ms = -5 })
  test.equal(heard(a), { { alarm = t:now(), failure = null, next = null } })
  ask(t, "wake_in", { ms = 1000 })
  ask(t, "unwake")
  t:tick(2000)
  test.equal(heard(a), array {})
  refused(t, "RoomError", "wake_at", { at = 8640000000000001 })
end)

test.case("an alarm that fails comes again and says why", function()
  local t = begin()
  local a = enter(t, "a")
  ask(t, "save", { state = { fails = 2 } })
  ask(t, "wake_in", { ms = 10 })
  t:tick(10)
  test.equal(heard(a), { { alarm = t:now(), failure = null, next = null } })
  for i, least in ipairs { 2000, 4000 } do
    local wait = t:next_alarm() - t:now()
    assert(wait >= least and wait <= least * 5 // 4, i .. ": " .. wait)
    t:tick(wait)
    test.equal(heard(a), { { alarm = t:now(), failure = "the alarm fails", next = null } })
  end
  test.equal(t:next_alarm(), nil)
  test.equal(t:state(), { fails = 0 }) -- what it did before it failed stays
end)

test.case("an alarm that keeps failing: six more times", function()
  local t = begin()
  local a = enter(t, "a")
  ask(t, "save", { state = { fails = 100 } })
  local err = test.error("Tired", function()
    t:fire_alarm() -- by hand: whoever fired it is told, and nothing is tried again
  end)
  test.equal({ err.status, err.message }, { 500, "the alarm fails" })
  test.equal(t:next_alarm(), nil)
  ask(t, "wake_in", { ms = 0 })
  local tries = 1
  while t:next_alarm() do
    t:tick(t:next_alarm() - t:now())
    tries = tries + 1
    assert(tries < 20)
  end
  test.equal(#heard(a), 1 + 7)
  ask(t, "wake_in", { ms = 5 }) -- a new one is not dead
  t:tick(5)
  test.equal(heard(a), { { alarm = t:now(), failure = null, next = null } })
end)

test.case("sleep: others run meanwhile, frames of one socket keep their order", function()
  local t = begin()
  local a = enter(t, "a")
  test.equal(ask(t, "sleep", { ms = 1500 }), { slept = 1500 })
  a:receive { act = "sleep", with = { ms = 1000 } }
  a:receive { act = "count" }
  t:tick(1000)
  local did = {}
  for i, m in ipairs(heard(a)) do
    did[i] = m.did
  end
  test.equal(did, { "count", "sleep" })
  refused(t, "RoomError", "sleep", { ms = 30001 })
  refused(t, "RoomError", "sleep", { ms = -1 })
  test.equal(ask(t, "sleep", { ms = 30000 }), { slept = 30000 })
end)

test.case("a sleep ends with its shard, and its frame is not run again", function()
  local t = begin()
  local a = enter(t, "a")
  a:receive { act = "sleep", with = { ms = 10000 } }
  t:restart()
  t:tick(20000)
  test.equal(heard(a), array {})
  test.equal(say(a, "count"), 1)
end)

---- other rooms ----

test.case("other rooms: send, state, call, and their errors", function()
  local t = begin()
  local two = t:room(PROBE, "two")
  local b = enter(two, "b")
  local function other(more)
    more.type, more.id = more.type or "probe", more.id or "two"
    return more
  end
  test.equal(ask(t, "room_state", other {}), nil)
  test.equal(ask(t, "room_send", other { event = { act = "save", with = { state = { n = 5 } } } }), nil)
  test.equal(ask(t, "room_state", other {}), { n = 5 })
  test.equal(ask(t, "room_call", other { method = "recall" }), { n = 5 })
  test.equal(ask(t, "room_call", other { method = "echo", input = { "x", 1 } }), { "x", 1 })
  test.equal(ask(t, "room_call", other { method = "router.ping" }), "pong")
  test.equal(ask(t, "room_call", other { method = "count_to", input = { n = 2 } }), { { i = 1 }, { i = 2 } })
  test.equal(ask(t, "room_call", { type = "probe", id = "one", method = "count" }), 0) -- itself
  ask(t, "room_tell", other { message = "hi" })
  test.equal(heard(b), { "hi" })
  refused(t, "NoSuchMethod", "room_call", other { method = "fly" })
  refused(t, "RoomExecutionError", "room_call", other { method = "fail" })
  local err = refused(t, "Taken", "room_call", other { method = "fail_with", input = { code = "Taken", status = 409, message = "a seat", data = { seat = 7 } } })
  test.equal({ err.status, err.message, err.data }, { 409, "a seat", { seat = 7 } })
  refused(t, "RoomValidationError", "room_send", other { event = { wrong = 1 } })
  test.equal(refused(t, "RoomNotFoundError", "room_state", other { type = "nowhere" }).status, 404)
  refused(t, "RoomError", "room_state", other { id = "" })
  refused(t, "RoomError", "room_call", other { method = "" })
  test.equal(ask(t, "try", { act = "room_call", with = other { method = "fail_with", input = { code = "Taken" } } }).tag, "Taken")
  test.equal(ask(t, "try", { act = "room_call", with = other { method = "echo", input = 1 } }), { result = 1 })
end)

test.case("a chain of rooms ends at the eighth", function()
  local t = begin()
  local function chain(n)
    local input = { type = "probe", id = "last", method = "echo", input = "there" }
    for i = n - 1, 1, -1 do
      input = { type = "probe", id = "r" .. i, method = "room_call", input = input }
    end
    return input
  end
  test.equal(ask(t, "room_call", chain(3)), "there")
  test.equal(pcall(ask, t, "room_call", chain(12)), false)
end)

---- values ----

test.case("values pass as they are", function()
  local t = begin()
  local value = {
    most = math.maxinteger,
    least = math.mininteger,
    exact = 9007199254740993,
    half = 0.5,
    float = 2.0,
    tiny = 1e-300,
    none = null,
    list = array {},
    object = {},
    nested = { array {}, {}, null, { { true, false } } },
    text = 'a\0"\\\n\u{1F600}\u{2028}é',
    [""] = "no name",
  }
  local back = ask(t, "echo", value)
  test.equal(back, value)
  test.equal({ math.type(back.exact), math.type(back.float) }, { "integer", "float" })
  ask(t, "save", { state = value })
  t:restart()
  test.equal(ask(t, "recall"), value)
  local a = enter(t, "a")
  ask(t, "tell", { message = value })
  ask(t, "tell", { message = null })
  test.equal(heard(a), { value, null })
  test.equal(ask(t, "echo"), nil)
  test.equal(ask(t, "echo", null), nil)
  test.equal(ask(t, "echo", array {}), array {})
  test.equal(ask(t, "size", { text = "a\0é\u{1F600}" }), 8)
end)

test.case("what is not UTF-8 becomes U+FFFD", function()
  local t = begin()
  test.equal(ask(t, "bytes", { hex = "61c3a962" }), "aéb")
  test.equal(ask(t, "bytes", { hex = "61ff62" }), "a\u{FFFD}b")
  test.equal(ask(t, "bytes", { hex = "6100" }), "a\0")
end)

test.case("streams: an array of what was yielded, and what was returned", function()
  local t = begin()
  test.equal(ask(t, "count_to", { n = 3, last = "end" }), { { i = 1 }, { i = 2 }, { i = 3 }, "end" })
  test.equal(ask(t, "count_to", { n = 2 }), { { i = 1 }, { i = 2 } })
  test.equal(ask(t, "count_to", { n = 1, last = null }), { { i = 1 }, null })
end)

test.case("chance and the log", function()
  local t = begin()
  test.equal(ask(t, "random"), true)
  test.equal(ask(t, "print", { text = "a line" }), nil)
end)

---- failures ----

test.case("the taxonomy: tag, status and text as their caller sees them", function()
  local t = begin()
  local statuses = {
    RoomError = 500,
    UpgradeError = 500,
    SendError = 500,
    BroadcastError = 500,
    AttachmentTooLargeError = 413,
    RoomValidationError = 400,
    RoomExecutionError = 500,
    RoomNotFoundError = 404,
  }
  for tag, status in pairs(statuses) do
    local err = test.error(tag, function()
      t:call("raise", { tag = tag, message = "said so" })
    end)
    test.equal(err.status, status, tag)
    test.equal(err.message, tag == "RoomExecutionError" and "the room's handler failed" or "said so", tag)
  end
  local err = refused(t, "Own", "fail_with", { code = "Own", status = 418, message = "tea", data = { pot = array {} } })
  test.equal({ err.status, err.message, err.data }, { 418, "tea", { pot = array {} } })
  err = refused(t, "Own", "fail_with", { code = "Own" })
  test.equal({ err.status, err.message, err.data }, { 500, "Own", nil })
  test.equal(refused(t, "NoSuchMethod", "fly").status, 404)
  test.equal(ask(t, "try", { act = "fail" }), { tag = "RoomExecutionError" })
  test.equal(ask(t, "try", { act = "send_to", with = { id = "x" } }), {
    tag = "NoConnection",
    status = 404,
    message = "nobody has this id",
    data = { id = "x" },
  })
end)

test.case("a failure keeps what went before it; the socket stays", function()
  local t = begin()
  local a = enter(t, "a")
  local steps = { { act = "save", with = { state = 1 } }, { act = "tell", with = { message = "told" } }, { act = "fail" } }
  refused(t, "RoomExecutionError", "steps", steps)
  a:receive { act = "steps", with = steps }
  test.equal(heard(a), { "told", "told" })
  test.equal(t:state(), 1)
  test.equal(open(a), { true })
end)

test.case("on_error: what it handles did not fail", function()
  local t = begin()
  local a = enter(t, "a")
  local handled = { act = "fail_with", with = { code = "Handled", message = "m" } }
  a:receive(handled)
  t:send(handled)
  test.equal(heard(a), { { handled = "event", message = "m" }, { handled = "event", message = "m" } })
  handled.with.code = "Else"
  local err = test.error("Else", function()
    t:send(handled)
  end)
  test.equal({ err.status, err.message }, { 500, "m" })
  enter(t, "b"):close(1000, "fail")
  test.equal(heard(a), { { handled = "close", message = "on_close fails" } })
  ask(t, "save", { state = { handled = true } })
  ask(t, "wake_in", { ms = 1 })
  t:tick(1)
  test.equal(heard(a)[2], { handled = "alarm", message = "on_alarm fails" })
  test.equal(t:next_alarm(), nil) -- it did not fail
  refused(t, "Handled", "fail_with", { code = "Handled" }) -- a method's own answer is no failure of the room
  test.equal(heard(a), array {})
end)

test.case("frames that do not decode", function()
  local t = begin()
  local a = enter(t, "a")
  for _, frame in ipairs { "no JSON", '{"act":1}', "{}", "null", "[]", '{"act":"x"', "" } do
    a:receive_raw(frame)
    local told = heard(a)
    test.equal(#told, 1, frame)
    test.equal({ told[1].undecoded, told[1].tag }, { frame, "RoomValidationError" }, frame)
  end
  a:receive_raw("\xff\xfe", true)
  heard(a)
  a:receive_raw "fail"
  test.equal(heard(a), { { handled = "decode_error", message = "on_decode_error fails" } })
  local err = test.error("RoomValidationError", function()
    t:send { wrong = 1 }
  end)
  test.equal({ err.status, err.message }, { 400, "an event is {act, with}" })
  test.equal(open(a), { true })
end)

test.case("what the gateway answers itself, the room does not see", function()
  local t = begin()
  local a = enter(t, "a")
  a:receive_raw "ping"
  test.equal(heard(a), { "pong" })
end)

---- what a room must ask for ----

local function begin_strict()
  return test.room(PROBE:gsub("probe(%.%w+)$", "strict%1"), "one")
end

test.case("rollback: a segment that fails leaves nothing", function()
  local t = begin_strict()
  local a = enter(t)
  refused(t, "RoomExecutionError", "fail")
  test.equal({ heard(a), t:state(), t:next_alarm() }, { array {} })
  refused(t, "RoomExecutionError", "fail_later")
  test.equal(heard(a), { "a trace" })
  test.equal(t:state(), { n = 1 })
end)

test.case("exclusive: nothing else runs while one waits", function()
  local t = begin_strict()
  local a, b = enter(t), enter(t)
  a:receive { ms = 1000 }
  b:receive { ms = 1000 }
  t:tick(1000)
  test.equal(heard(a), { 1 })
  t:tick(1000)
  test.equal(heard(b), { 1, 2 })
  test.equal(t:state(), { n = 2 })
end)

test.case("retries: as many as it wants", function()
  local t = begin_strict()
  ask(t, "wake")
  local tries = 0
  while t:next_alarm() do
    t:tick(t:next_alarm() - t:now())
    tries = tries + 1
    assert(tries < 5)
  end
  test.equal(tries, 2)
end)

test.case("without identify it is who the token says, and the query says nothing", function()
  local t = begin_strict()
  local a = t:connect { query = { id = "x" }, claims = { id = "ann", tags = { "t" }, att = { n = 1 }, sub = "s" } }
  test.equal({ a.id, a.tags }, { "ann", { "t" } })
  test.equal(t:connections(), { { id = "ann", tags = { "t" }, state = { n = 1 } } })
  a:receive_raw "no JSON" -- without on_decode_error: nobody is told
  test.equal({ heard(a), open(a) }, { array {}, { true } })
end)

-- What the runner promises to authors, by a room that does what it is told.
local test = require "test"

local function begin(config)
  return test.room("probe.lua", "one", config)
end

local function enter(t, id, tag)
  local c = t:connect { query = { id = id, tag = tag } }
  c:received()
  return c
end

test.case("identify sees query, ip and headers", function()
  local t = begin()
  local c = t:connect { query = { id = "ann", tag = "x" }, ip = "10.0.0.9", headers = { origin = "https://a.example" } }
  test.equal({ c.id, c.tags }, { "ann", { "x" } })
  test.equal(c:received(), { { hello = "ann" } })
  test.equal(t:connections("x")[1].state, { ip = "10.0.0.9", origin = "https://a.example" })
end)

test.case("a refusal has status, tag and message, and is no connection", function()
  local t = begin()
  local r = t:connect { query = { banned = "1" } }
  test.equal({ r.status, r.tag, r.message }, { 451, "UpgradeError", "not you" })
  test.equal(t:connect({ query = { id = "broken" } }).status, 500)
  test.equal(t:connections(), test.array {})
end)

test.case("recipients are those that the room means", function()
  local t = begin()
  local a, b, c = enter(t, "a", "red"), enter(t, "b", "blue"), enter(t, "c", "red")
  local function reached(e)
    e.act, e.what = "tell", 1
    a:receive(e)
    return { #a:received(), #b:received(), #c:received() }
  end
  test.equal(reached {}, { 1, 1, 1 })
  test.equal(reached { tags = { "red" } }, { 1, 0, 1 })
  test.equal(reached { to = { "b" } }, { 0, 1, 0 })
  test.equal(reached { except = { "a", "b" } }, { 0, 0, 1 })
end)

test.case("values pass as they are", function()
  local t = begin()
  local value = {
    whole = 9007199254740993,
    half = 0.5,
    float = 2.0,
    none = test.null,
    list = test.array {},
    object = {},
    text = 'a\0"\u{1F600}',
    deep = { { { true, false } } },
  }
  local back = t:call("echo", value)
  test.equal(back, value)
  test.equal(math.type(back.whole), "integer")
  test.equal(math.type(back.float), "float")
  test.equal(t:call "echo", nil)
  local a = enter(t, "a")
  a:receive { act = "null" }
  test.equal(a:received(), { test.null })
end)

test.case("an alarm fires when its time has come, and not before", function()
  local t = begin()
  local a = enter(t, "a")
  test.equal(t:next_alarm(), nil)
  local due = t:now() + 12345
  a:receive { act = "alarm", ms = 12345 }
  test.equal(t:next_alarm(), due)
  t:tick(12344)
  test.equal(a:received(), test.array {})
  t:tick(1)
  test.equal(a:received(), { { alarm = due } })
  test.equal(t:next_alarm(), nil)
end)

test.case("an alarm is fired by hand, once", function()
  local t = begin()
  local a = enter(t, "a")
  a:receive { act = "alarm", ms = 60000 }
  t:fire_alarm()
  test.equal(a:received(), { { alarm = t:now() } })
  t:tick(120000)
  test.equal(a:received(), test.array {})
end)

test.case("an alarm that fails is tried again, six times", function()
  local t = begin()
  local a = enter(t, "a")
  a:receive { act = "save", state = { fails = 1 } }
  a:receive { act = "alarm", ms = 0 }
  local tries = 0
  while t:next_alarm() do
    tries = tries + 1
    t:tick(t:next_alarm() - t:now() + 1)
    assert(tries < 10)
  end
  test.equal(tries, 6)
  test.equal(a:received(), test.array {})
end)

test.case("alarms outlive the shard", function()
  local t = begin()
  local a = enter(t, "a")
  local due = t:now() + 5000
  a:receive { act = "alarm", ms = 5000 }
  t:restart()
  test.equal(t:next_alarm(), due)
  t:tick(5000)
  test.equal(a:received(), { { alarm = due } })
end)

test.case("who sleeps is waited for, on the test's clock", function()
  local t = begin()
  local before = t:now()
  test.equal(t:call("nap", { ms = 1500 }), { now = before + 1500 })
  test.equal(t:now(), before + 1500)
end)

test.case("a stream comes as one array", function()
  test.equal(begin():call("count", { to = 3 }), { { i = 1 }, { i = 2 }, { i = 3 }, "end" })
end)

test.case("errors have tag, status, message and data", function()
  local t = begin()
  local err = test.error("Nope", function()
    t:call "refuse"
  end)
  test.equal({ err.tag, err.status, err.message, err.data }, { "Nope", 418, "no", { why = "tea" } })
  err = test.error("RoomExecutionError", function()
    t:send { act = "fail" }
  end)
  test.equal(err.status, 500) -- how it failed is for its author: see failing.lua
end)

test.case("rooms reach each other in one shard, and other types", function()
  local t = begin()
  local two = t:room("probe.lua", "two")
  enter(two, "a")
  test.equal(t:call("other", { type = "probe", id = "two", method = "echo", input = 5 }), 5)
  local chat = t:room("../../examples/chat/chat.lua", "lobby")
  local alice = chat:connect { query = { userId = "alice" } }
  t:call("other", { type = "chat", id = "lobby", method = "say", input = { text = "hi" } })
  test.equal(alice:received()[1].text, "hi")
  test.error("RoomNotFoundError", function()
    t:call("other", { type = "nowhere", id = "x", method = "y" })
  end)
end)

test.case("the room closes with code and reason", function()
  local t = begin()
  local a, b = enter(t, "a"), enter(t, "b")
  a:receive { act = "close", code = 4001, reason = "out" }
  local open, code, reason = a:is_open()
  test.equal({ open, code, reason }, { false, 4001, "out" })
  test.equal(b:received(), { { left = "a", code = 4001, reason = "out", clean = true, recovered = false } })
end)

test.case("who is lost leaves with 1006", function()
  local t = begin()
  local a, b = enter(t, "a"), enter(t, "b")
  a:close(1006)
  test.equal(b:received(), { { left = "a", code = 1006, reason = "", clean = false, recovered = false } })
end)

test.case("who is lost with its gateway leaves recovered", function()
  local t = begin()
  enter(t, "a")
  t:restart { gateways = true }
  local b = enter(t, "b")
  t:tick(20000)
  test.equal(b:received(), { { left = "a", code = 1006, reason = "", clean = false, recovered = true } })
end)

test.case("a closed connection says nothing and hears nothing", function()
  local t = begin()
  local a, b = enter(t, "a"), enter(t, "b")
  a:close()
  b:receive { act = "tell", what = 1 }
  test.equal(a:received(), test.array {})
  local ok, why = pcall(a.receive, a, { act = "runs" })
  test.equal({ ok, tostring(why) }, { false, "the connection a is closed" })
end)

test.case("a file's own variables go with the shard", function()
  local t = begin()
  local a = enter(t, "a")
  a:receive { act = "runs" }
  a:receive { act = "runs" }
  test.equal(a:received(), { { runs = 1 }, { runs = 2 } })
  t:restart()
  a:receive { act = "runs" }
  test.equal(a:received(), { { runs = 1 } })
end)

test.case("published events are in the log, broadcasts are not", function()
  local t = begin()
  local a = enter(t, "a")
  for i = 1, 2000 do
    a:receive { act = "publish", what = { i = i } }
  end
  a:receive { act = "tell", what = "now" }
  t:broadcast { from = "outside" }
  test.equal(#a:received(), 2002)
  local log = t:log()
  test.equal(#log, 2000)
  test.equal(log[2000], { i = 2000 })
  t:purge()
  test.equal(t:log(), test.array {})
end)

test.case("more than a link's credit arrives", function()
  local t = begin()
  local a, b = enter(t, "a"), enter(t, "b")
  local big = string.rep("x", 100000)
  for _ = 1, 400 do
    a:receive { act = "tell", what = big }
  end
  test.equal(#b:received(), 400)
end)

test.case("an automatic response runs nothing", function()
  local t = begin()
  local a = enter(t, "a")
  a:receive_raw "ping"
  test.equal(a:received(), { "pong" })
  a:receive { act = "runs" }
  test.equal(a:received(), { { runs = 1 } })
end)

test.case("the n-th commit from now finds the disk full", function()
  local t = begin()
  local a = enter(t, "a")
  t:fail_commits(2)
  a:receive { act = "save", state = 1 }
  test.equal(t:state(), 1)
  a:receive { act = "save", state = 2 }
  test.equal(t:state(), 1)
  t:fail_commits(0)
  t:tick(1000)
  test.equal(t:state(), 2)
end)

test.case("two tests are as alike as two runs of one", function()
  local function run()
    local t = begin()
    local c = t:connect()
    c:close(1006)
    return { c.id, c.session, t:now() }
  end
  test.equal(run(), run())
end)

test.case("configuration wins, and what it cannot say is refused", function()
  local t = begin { max_connections = 1 }
  enter(t, "a")
  test.equal(t:connect().tag, "RoomFull")
  for _, config in ipairs { { handler = "x" }, { max_connections = 0 }, { on_duplicate = "maybe" } } do
    assert(not pcall(begin, config))
  end
end)

-- stoa room test examples/chat/chat_test.lua
local test = require "test"

local LONG = string.rep("0123456789", 20000) -- 200 kB

local function lobby(config)
  return test.room("chat.lua", "lobby", config)
end

local function enter(t, user)
  return t:connect { query = { userId = user } }
end

-- The messages' tags, and of each: of whom.
local function heard(c)
  local list = {}
  for i, m in ipairs(c:received()) do
    list[i] = m._tag .. ":" .. m.userId
  end
  return list
end

test.case("who enters is told from the query, and anon without one", function()
  local t = lobby()
  local alice = enter(t, "alice")
  test.equal(alice.id, "alice")
  test.equal(alice.tags, { "user:alice" })
  test.equal(t:connect().id, "anon")
  test.equal(t:connections("user:alice"), {
    { id = "alice", tags = { "user:alice" }, state = { userId = "alice", joinedAt = t:now() } },
  })
  test.equal(#t:connections(), 2)
  test.equal(t:connections("user:bob"), test.array {})
end)

test.case("a token wins over the query", function()
  local t = lobby()
  test.equal(t:connect({ claims = { sub = "ann" }, query = { userId = "root" } }).id, "ann")
  test.equal(t:connect({ claims = {}, query = { userId = "root" } }).id, "anon")
end)

test.case("others hear who joins; who joins hears nothing", function()
  local t = lobby()
  local alice = enter(t, "alice")
  local bob = enter(t, "bob")
  test.equal(alice:received(), { { _tag = "UserJoined", userId = "bob" } })
  test.equal(bob:received(), test.array {})
end)

test.case("the first who joins makes the state, once", function()
  local t = lobby()
  test.equal(t:state(), nil)
  local begun = t:now()
  enter(t, "alice")
  test.equal(t:state(), { createdAt = begun, messageCount = 0 })
  t:tick(1000)
  enter(t, "bob")
  test.equal(t:state().createdAt, begun)
end)

test.case("what is said reaches everybody, in order, and is counted", function()
  local t = lobby()
  local alice, bob = enter(t, "alice"), enter(t, "bob")
  alice:received()
  alice:receive { _tag = "Say", text = "hello" }
  t:tick(5)
  bob:receive { _tag = "Say", text = "hi" }
  local wanted = {
    { _tag = "Message", text = "hello", userId = "alice", ts = t:now() - 5 },
    { _tag = "Message", text = "hi", userId = "bob", ts = t:now() },
  }
  test.equal(alice:received(), wanted)
  test.equal(bob:received(), wanted)
  test.equal(t:state().messageCount, 2)
end)

test.case("typing reaches the others and is not counted", function()
  local t = lobby()
  local alice, bob = enter(t, "alice"), enter(t, "bob")
  alice:received()
  bob:receive { _tag = "Typing" }
  test.equal(alice:received(), { { _tag = "Typing", userId = "bob" } })
  test.equal(bob:received(), test.array {})
  test.equal(t:state().messageCount, 0)
end)

test.case("texts survive as they are: long ones, emoji, U+0000", function()
  local t = lobby()
  local alice = enter(t, "alice")
  for _, text in ipairs { LONG, "\u{1F600} \u{1F469}\u{200D}\u{1F680}", "a\0b", "", '"\\\n\u{7f}' } do
    alice:receive { _tag = "Say", text = text }
    test.equal(alice:received()[1].text, text)
  end
  test.equal(t:state().messageCount, 5)
end)

test.case("frames that are no event change nothing and close nothing", function()
  local t = lobby()
  local alice = enter(t, "alice")
  alice:receive_raw "no JSON"
  alice:receive_raw('{"_tag":"Say"', false)
  alice:receive_raw('{"_tag":"Typing"', true)
  alice:receive { _tag = "Shout", text = "x" }
  alice:receive { _tag = "Say", text = 5 }
  alice:receive { "Say" }
  test.equal(alice:received(), test.array {})
  assert(alice:is_open())
  test.equal(t:state().messageCount, 0)
  alice:receive { _tag = "Say", text = "still here" }
  test.equal(t:state().messageCount, 1)
end)

test.case("a room has no history for who comes later", function()
  local t = lobby()
  enter(t, "alice"):receive { _tag = "Say", text = "before" }
  test.equal(enter(t, "bob"):received(), test.array {})
  test.equal(t:log(), test.array {})
end)

test.case("one user twice: both stay, both hear, each leaves", function()
  local t = lobby()
  local one = enter(t, "alice")
  local two = enter(t, "alice")
  assert(one.session ~= two.session)
  test.equal(#t:connections("user:alice"), 2)
  test.equal(heard(one), { "UserJoined:alice" })
  two:receive { _tag = "Say", text = "x" }
  test.equal(heard(one), { "Message:alice" })
  two:close()
  test.equal(heard(one), { "UserLeft:alice" })
  test.equal(heard(two), { "Message:alice" })
  assert(one:is_open())
end)

test.case("a configuration may replace or reject who comes twice", function()
  local t = lobby { on_duplicate = "reject" }
  enter(t, "alice")
  local refusal = enter(t, "alice")
  test.equal(refusal.status, 409)
  test.equal(refusal.tag, "Duplicate")
  t = lobby { on_duplicate = "replace" }
  local one = enter(t, "alice")
  local two = enter(t, "alice")
  local open, code = one:is_open()
  test.equal({ open, code }, { false, 1012 })
  assert(two:is_open())
  test.equal(heard(two), { "UserLeft:alice" })
end)

test.case("a full room refuses", function()
  local t = lobby { max_connections = 1 }
  local alice = enter(t, "alice")
  test.equal(enter(t, "bob").tag, "RoomFull")
  test.equal(alice:received(), test.array {})
  test.equal(#t:connections(), 1)
end)

test.case("others hear who leaves, whatever the close code, once", function()
  local t = lobby()
  local alice = enter(t, "alice")
  for _, code in ipairs { 1000, 1001, 1006, 4321 } do
    local bob = enter(t, "bob")
    alice:received()
    bob:close(code, "gone")
    test.equal(heard(alice), { "UserLeft:bob" })
    test.equal(bob:received(), test.array {})
    bob:close(code)
    test.equal(heard(alice), {})
    local open, closed_with, reason = bob:is_open()
    test.equal({ open, closed_with, reason }, { false, code, "gone" })
  end
  test.equal(#t:connections(), 1)
end)

test.case("say by HTTP is a message of the system", function()
  local t = lobby()
  local alice = enter(t, "alice")
  test.equal(t:call("say", { text = "maintenance" }), { status = "ok" })
  test.equal(alice:received(), {
    { _tag = "Message", text = "maintenance", userId = "system", ts = t:now() },
  })
  test.equal(t:state().messageCount, 1)
end)

test.case("say by HTTP in a room that nobody has joined: ok, and no state", function()
  local t = lobby()
  test.equal(t:call("say", { text = "anybody?" }), { status = "ok" })
  test.equal(t:state(), nil)
  enter(t, "alice")
  test.equal(t:state().messageCount, 0)
end)

test.case("say without a text is refused and changes nothing", function()
  local t = lobby()
  local alice = enter(t, "alice")
  for _, input in ipairs { {}, { text = 1 }, "text", test.null } do
    local err = test.error("BadRequest", function()
      t:call("say", input)
    end)
    test.equal(err.status, 400)
  end
  test.equal(alice:received(), test.array {})
  test.equal(t:state().messageCount, 0)
end)

test.case("there is no other method", function()
  local t = lobby()
  local err = test.error("NoSuchMethod", function()
    t:call("shout", { text = "x" })
  end)
  test.equal(err.status, 404)
end)

test.case("events by HTTP are as frames, of the system", function()
  local t = lobby()
  local alice = enter(t, "alice")
  t:send { _tag = "Say", text = "x" }
  t:send { _tag = "Typing" }
  test.equal(heard(alice), { "Message:system" })
  test.error("RoomValidationError", function()
    t:send { _tag = "Shout" }
  end)
end)

test.case("rooms know nothing of each other", function()
  local t = lobby()
  local alice = enter(t, "alice")
  local attic = t:room("chat.lua", "attic")
  local bob = enter(attic, "bob")
  bob:receive { _tag = "Say", text = "x" }
  test.equal(alice:received(), test.array {})
  test.equal(attic:state().messageCount, 1)
  test.equal(t:state().messageCount, 0)
end)

test.case("a room that was left alone is back as it was", function()
  local t = lobby()
  local alice = enter(t, "alice")
  alice:receive { _tag = "Say", text = "one" }
  t:tick(60000)
  alice:receive { _tag = "Say", text = "two" }
  test.equal(heard(alice), { "Message:alice", "Message:alice" })
  test.equal(t:state().messageCount, 2)
end)

test.case("a crash of the shard closes nothing and loses nothing", function()
  local t = lobby()
  local alice, bob = enter(t, "alice"), enter(t, "bob")
  alice:receive { _tag = "Say", text = "before" }
  t:restart()
  bob:receive { _tag = "Say", text = "behind" }
  test.equal(heard(alice), { "UserJoined:bob", "Message:alice", "Message:bob" })
  assert(alice:is_open() and bob:is_open())
  test.equal(t:state().messageCount, 2)
  t:tick(60000)
  test.equal(#t:connections(), 2)
  test.equal(alice:received(), test.array {})
end)

test.case("when a gateway dies, those that it held have left", function()
  local t = lobby()
  enter(t, "alice")
  t:restart { gateways = true }
  local bob = enter(t, "bob")
  t:tick(30000)
  test.equal(heard(bob), { "UserLeft:alice" })
  test.equal(#t:connections(), 1)
end)

test.case("on a full disk nothing is half done, and frames wait", function()
  local t = lobby()
  local alice = enter(t, "alice")
  t:fail_commits(1)
  alice:receive { _tag = "Say", text = "later" }
  test.equal(alice:received(), test.array {})
  test.equal(t:state().messageCount, 0)
  test.error("DiskFull", function()
    t:call("say", { text = "x" })
  end)
  test.equal(enter(t, "bob").status, 503)
  t:fail_commits(0)
  t:tick(1000)
  test.equal(heard(alice), { "Message:alice" })
  test.equal(t:state().messageCount, 1)
end)

test.case("a purge forgets the state; who is there stays", function()
  local t = lobby()
  local alice = enter(t, "alice")
  t:purge()
  test.equal(t:state(), nil)
  assert(alice:is_open())
  alice:receive { _tag = "Say", text = "x" }
  test.equal(heard(alice), { "Message:alice" })
  test.equal(t:state(), nil)
end)

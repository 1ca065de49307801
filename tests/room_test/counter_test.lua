-- A room in C through the same runner: examples/counter, from where it was built.
local test = require "test"

local function counter(id)
  return test.room(os.getenv "ROOMS" .. "/counter.so", id or "one")
end

test.case("adds, and everybody sees it", function()
  local t = counter()
  local ann, bob = t:connect { query = { name = "ann" } }, t:connect { query = { name = "bob" } }
  test.equal(ann.id, "ann")
  test.equal(ann:received(), { { count = 0 } })
  bob:received()
  ann:receive { add = 2 }
  bob:receive { add = 3 }
  test.equal(bob:received(), { { count = 2 }, { count = 5 } })
  test.equal(t:state(), { count = 5 })
  test.equal(t:call "get", 5)
end)

test.case("a method that waits is waited for; a crash leaves the count", function()
  local t = counter()
  local before = t:now()
  test.equal(t:call("add_later", { by = 4, ms = 50 }), 4)
  test.equal(t:now(), before + 50)
  t:restart()
  test.equal(t:call "get", 4)
end)

test.case("copies from another room", function()
  local t = counter()
  t:room(os.getenv "ROOMS" .. "/counter.so", "two"):call("add", { by = 7 })
  t:call("copy", { from = "two" })
  test.equal(t:call "get", 7)
end)

test.case("nobody touches it for an hour: back to 0", function()
  local t = counter()
  t:call("add", { by = 1 })
  test.equal(t:next_alarm(), t:now() + 3600000)
  t:tick(3600000)
  test.equal(t:call "get", 0)
end)

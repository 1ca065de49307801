-- Cases that must fail, and how: check.py knows the lines.
local test = require "test"

test.case("compares", function()
  test.equal({ a = 1 }, { a = 2, b = test.null }, "values")
end)

local function helper(t)
  t:call "refuse"
end

test.case("a room's error", function()
  helper(test.room("probe.lua", "x"))
end)

test.case("an assertion", function()
  assert(1 == 2, "no")
end)

test.case("no error", function()
  test.error("RoomError", function() end)
end)

test.case("another error", function()
  local t = test.room("probe.lua", "x")
  test.error("RoomError", function()
    t:send { act = "fail" }
  end)
end)

test.case("a file that does not load", function()
  test.room("broken.lua", "x")
end)

test.case("a wish that nobody sees", function()
  test.room("probe.lua", "x"):connect { id = "ann" }
end)

test.case("a type that the file is not", function()
  test.room("probe.lua", "x", { handler = "y" })
end)

test.case("what is fine", function() end)

error "behind the cases"

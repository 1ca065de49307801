-- Say/s of a room in the test runner: no socket, no disk. The room's file is in STOA_BENCH_ROOM. Prints one figure.
local test = require "test"
local file = os.getenv "STOA_BENCH_ROOM"
local FRAME = '{"_tag":"Say","text":"' .. string.rep("x", 200) .. '"}'
local SECONDS = 0.5

test.case(file, function()
  local t = test.room(file, "lobby")
  local c = t:connect { query = { userId = "ann" } }
  local said, took = 0, 0
  repeat
    local begun = os.clock()
    for _ = 1, 100 do
      c:receive_raw(FRAME)
    end
    took, said = took + os.clock() - begun, said + 100
    test.equal(#c:received(), 100)
  until took >= SECONDS
  print(string.format("%.0f Say/s", said / took))
end)

-- Say/s of a room in the test runner: no socket, no disk. The room's file is in STOA_BENCH_ROOM. Prints one figure: of
-- many short stretches the median, as other work on the machine makes some of them longer.
local test = require "test"
local file = os.getenv "STOA_BENCH_ROOM"
local FRAME = '{"_tag":"Say","text":"' .. string.rep("x", 200) .. '"}'
local STRETCHES, SAYS = 1000, 100

test.case(file, function()
  local t = test.room(file, "lobby")
  local c = t:connect { query = { userId = "ann" } }
  local took = {}
  for i = 1, STRETCHES do
    local begun = os.clock()
    for _ = 1, SAYS do
      c:receive_raw(FRAME)
    end
    took[i] = os.clock() - begun
    test.equal(#c:received(), SAYS)
  end
  table.sort(took)
  print(string.format("%.0f Say/s", SAYS / took[STRETCHES // 2]))
end)

local test = require "test"

test.case("votes are seen by everybody, and the end closes the poll", function()
  local t = test.room("poll.lua", "lunch") -- a shard in memory, and the room poll:lunch in it
  local ann = t:connect { query = { user = "ann" } }
  local bob = t:connect { query = { user = "bob" } }
  ann:received() -- what on_connect sent is of no interest here

  bob:receive { choice = "soup" } -- as if bob's socket had sent {"choice":"soup"}
  test.equal(ann:received(), { { votes = { bob = "soup" } } })
  test.equal(t:state(), { votes = { bob = "soup" } })

  local due = t:now() + 60000
  test.equal(t:call("close_in", { seconds = 60 }), { closes = due }) -- POST /api/poll/lunch/close_in
  t:restart() -- kill -9 of the shard: nobody notices
  t:tick(60000) -- the clock stands until it is moved
  test.equal({ ann:is_open() }, { false, 1000, "the poll is over" })
  test.equal(t:log(), { { result = { bob = "soup" } } }) -- what was published
end)

local test = require "test"

test.case("votes are seen by everybody, and the end closes the poll", function()
  local t = test.room("poll.lua", "lunch") -- a shard in memory, and the room poll:lunch in it
  local ann = t:connect { query = { user = "ann" } }
  local bob = t:connect { query = { user = "bob" } }
  ann:received() -- what on_connect sent is of no interest here

  bob:receive { choice = "soup" } -- as if bob's socket had sent {"choice":"soup"}
  test.equal(ann:received(), { { votes = { bob = "soup" } } })
  t:send { choice = "pie" } -- POST /api/poll/lunch/send: without a connection
  test.equal(t:state(), { votes = { bob = "soup", ["by post"] = "pie" } })

  local due = t:now() + 3600000
  test.equal(t:call("close_in", { seconds = 3600 }), { closes = due }) -- POST /api/poll/lunch/close_in
  t:restart() -- kill -9 of the shard: nobody notices
  t:tick(3600000) -- the clock stands until it is moved
  test.equal({ ann:is_open() }, { false, 1000, "the poll is over" })
  test.equal(t:log(), { { result = { bob = "soup", ["by post"] = "pie" } } }) -- what was published
  test.equal(t:connect({}).status, 410) -- a connection, or how it was refused
end)

test.case("close_in says what it wants", function()
  local t = test.room("poll.lua", "lunch")
  local err = test.error("BadInput", function()
    t:call("close_in", { seconds = "soon" })
  end)
  test.equal({ err.status, err.message }, { 400, "seconds is a whole number" })
end)

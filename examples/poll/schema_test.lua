-- The poll with the schema that stoa.yaml names: what is no vote does not reach on_event.
local test = require "test"

local config = { schemas = { event = "poll-event.json" } }

test.case("only votes are counted", function()
  local t = test.room("poll.lua", "lunch", config)
  local ann = t:connect { query = { user = "ann" } }
  ann:received()
  for _, frame in ipairs { { choice = "" }, { choice = 7 }, { vote = "soup" }, { choice = "soup", twice = true } } do
    ann:receive(frame) -- counted and ignored, as poll.lua has no on_decode_error
  end
  test.equal(ann:received(), {})
  ann:receive { choice = "soup" }
  test.equal(ann:received(), { { votes = { ann = "soup" } } })
end)

test.case("who sends directly is told why not", function()
  local t = test.room("poll.lua", "lunch", config)
  local err = test.error("RoomValidationError", function()
    t:send { choice = string.rep("soup ", 10) }
  end)
  test.equal(err.status, 400)
  test.equal(err.message:match "at /choice", "at /choice")
end)

#!room name=poll api=1
local room = require "room"
local M = {}

-- Who is it? A pure function of the request: the room is not touched yet.
function M.identify(req)
  return { id = req.query.user or "guest" }
end

-- The client's 101 waits until what this did is on disk.
function M.on_connect(ctx)
  local state = ctx:recall() or { votes = {} }
  if state.over then
    room.refuse(410, "the poll is over") -- raises: nothing below runs
  end
  ctx.connection:send(state)
end

-- A frame of a socket, {"choice":"soup"}; or a direct send, which has no connection.
function M.on_event(ctx, e)
  local state = ctx:recall() or { votes = {} }
  local voter = ctx.connection and ctx.connection.id or "by post"
  state.votes[voter] = e.choice
  ctx:save(state)
  ctx:broadcast(state)
end

M.rpc = {
  -- POST /api/poll/ID/close_in {"seconds":60}
  close_in = function(ctx, input)
    if math.type(input.seconds) ~= "integer" then
      room.error("BadInput", { status = 400, message = "seconds is a whole number" })
    end
    ctx:schedule_in(input.seconds * 1000)
    return { closes = ctx:next_alarm() }
  end,
}

function M.on_alarm(ctx)
  local state = ctx:recall() or { votes = {} }
  state.over = true
  ctx:save(state)
  ctx:publish { result = state.votes } -- an event: whoever comes later can read it
  for _, c in ipairs(ctx.connections:all()) do
    c:close(1000, "the poll is over")
  end
end

return M

#!room name=poll api=1
local room = require "room"
local M = {}

function M.identify(req)
  return { id = req.query.user or "guest" }
end

function M.on_connect(ctx)
  if ctx:recall() == nil then ctx:save { votes = {} } end
  ctx.connection:send { votes = ctx:recall().votes }
end

function M.on_event(ctx, e)
  ctx:update(function(s)
    s.votes[ctx.connection.id] = e.choice
    return s
  end)
  ctx:broadcast { votes = ctx:recall().votes }
end

M.rpc = {
  close_in = function(ctx, input)
    ctx:schedule_in(input.seconds * 1000)
    return { closes = ctx:next_alarm() }
  end,
}

function M.on_alarm(ctx)
  ctx:publish { result = ctx:recall().votes }
  for _, c in ipairs(ctx.connections:all()) do c:close(1000, "the poll is over") end
end

return M

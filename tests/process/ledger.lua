#!room name=ledger api=1
-- A room that counts what is put in, for the tests of who asks rooms.
local room = require "room"
local M = {}

function M.identify(req)
  return { id = req.query.user or "guest", tags = { "user:" .. (req.query.user or "guest") } }
end

function M.on_connect(ctx)
  if ctx:recall() == nil then ctx:save { count = 0, sent = {} } end
end

function M.on_event(ctx, e)
  local s = ctx:recall() or { count = 0, sent = {} }
  s.sent[#s.sent + 1] = e
  ctx:save(s)
end

function M.on_alarm(ctx)
  ctx:publish { alarm = (ctx:recall() or { count = 0 }).count }
end

M.rpc = {
  put = function(ctx)
    local s = ctx:recall() or { count = 0, sent = {} }
    s.count = s.count + 1
    ctx:save(s)
    return s.count
  end,
  list = function(ctx, input, yield)
    for n = 1, input.n do
      if input.ms then ctx:sleep(input.ms) end
      yield { n = n, pad = string.rep("x", input.pad or 0) }
    end
    return "end"
  end,
  wait = function(ctx, input)
    ctx:sleep(input.ms)
    return input.ms
  end,
  nothing = function() end,
  fail = function(_, input)
    room.error("SoldOut", { status = 410, message = "no seat is left", data = { row = input.row } })
  end,
  raise = function() error("a secret") end,
}

return M

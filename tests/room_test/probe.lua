#!room name=probe api=1
-- Does what its tests ask of it, so that they see whether the runner carries it.
local room = require "room"
local M = { auto_response = { "ping", "pong" } }
local runs = 0 -- a file's own variable: gone with the shard

function M.identify(req)
  if req.query.banned then
    room.refuse(451, "not you")
  end
  return { id = req.query.id, tags = { req.query.tag or "none" }, state = { ip = req.ip, origin = req.headers.origin } }
end

function M.on_connect(ctx)
  if ctx.connection.id == "broken" then
    error "on_connect is broken"
  end
  ctx.connection:send { hello = ctx.connection.id }
end

local acts = {}

function M.on_event(ctx, e)
  runs = runs + 1
  acts[e.act](ctx, e)
end

function acts.runs(ctx)
  ctx.connection:send { runs = runs }
end

function acts.tell(ctx, e)
  ctx:broadcast(e.what, { tags = e.tags, to = e.to, except = e.except })
end

function acts.publish(ctx, e)
  ctx:publish(e.what)
end

function acts.null(ctx)
  ctx:broadcast(room.null)
end

function acts.save(ctx, e)
  ctx:save(e.state)
end

function acts.alarm(ctx, e)
  ctx:schedule_in(e.ms)
end

function acts.close(ctx, e)
  ctx.connection:close(e.code, e.reason)
end

function acts.fail(ctx)
  print "about to fail"
  error "as asked"
end

function M.on_close(ctx, info)
  ctx:broadcast({
    left = ctx.connection.id,
    code = info.code,
    reason = info.reason,
    clean = info.clean,
    recovered = info.recovered,
  }, { except = ctx.connection })
end

function M.on_alarm(ctx)
  local s = ctx:recall()
  if s and s.fails > 0 then
    ctx:save { fails = s.fails }
    error "the alarm fails"
  end
  ctx:broadcast { alarm = room.now_ms() }
end

M.rpc = {
  nap = function(ctx, input)
    ctx:sleep(input.ms)
    return { now = room.now_ms() }
  end,
  count = function(ctx, input, yield)
    for i = 1, input.to do
      yield { i = i }
    end
    return "end"
  end,
  other = function(ctx, input)
    return ctx:room(input.type):call(input.id, input.method, input.input)
  end,
  echo = function(ctx, input)
    return input
  end,
  refuse = function()
    room.error("Nope", { status = 418, message = "no", data = { why = "tea" } })
  end,
}

return M

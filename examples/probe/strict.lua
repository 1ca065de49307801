#!room name=strict api=1
-- What a room must ask for: rollback, exclusive, its number of retries. In C: strict.c.
local M = { rollback = true, exclusive = true, alarm_retries = 1 }

local function count_after(ctx, ms)
  local state = ctx:recall() or { n = 0 }
  ctx:sleep(ms)
  ctx:save { n = state.n + 1 }
  ctx:broadcast(state.n + 1)
end

local function leave_traces(ctx, n)
  ctx:save { n = n }
  ctx:broadcast "a trace"
  ctx:schedule_in(1000)
end

function M.on_event(ctx, e)
  count_after(ctx, e.ms)
end

function M.on_alarm()
  error "as asked"
end

M.rpc = {
  fail = function(ctx)
    leave_traces(ctx, 1)
    error "as asked"
  end,
  fail_later = function(ctx) -- what was committed before it waited stays
    leave_traces(ctx, 1)
    ctx:sleep(10)
    leave_traces(ctx, 2)
    error "as asked"
  end,
  wake = function(ctx)
    ctx:schedule_in(5)
  end,
}

return M

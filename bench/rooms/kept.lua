#!room name=kept api=1
-- A room that keeps what it was told: for what rooms cost that sleep, and for waking them.
local M = {}

function M.on_event(ctx, e)
  ctx:save { text = e.text }
end

M.rpc = {
  get = function(ctx)
    return ctx:recall()
  end,
}

return M

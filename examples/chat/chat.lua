#!room name=chat api=1
-- A chat room. Frames in: {"_tag":"Say","text"} and {"_tag":"Typing"}; frames out: Message, UserJoined,
-- UserLeft, Typing. A backend speaks by POST /api/chat/ID/say {"text"}.
local room = require "room"
local M = { on_duplicate = "allow" }

local function is_text(value)
  return type(value) == "string"
end

function M.decode_event(e)
  if type(e) == "table" and (e._tag == "Typing" or (e._tag == "Say" and is_text(e.text))) then
    return e
  end
  error("neither Say nor Typing")
end

-- The query is believed here, so anybody may call himself anything; with a token it is not asked.
function M.identify(req)
  local user = req.claims and req.claims.sub or (not req.claims and req.query.userId) or "anon"
  return { id = user, tags = { "user:" .. user }, state = { userId = user, joinedAt = room.now_ms() } }
end

function M.on_connect(ctx)
  if ctx:recall() == nil then
    ctx:save { createdAt = room.now_ms(), messageCount = 0 }
  end
  ctx:broadcast({ _tag = "UserJoined", userId = ctx.connection.state.userId }, { except = ctx.connection })
end

local function say(ctx, text)
  local c = ctx.connection
  ctx:update(function(s)
    s.messageCount = s.messageCount + 1
    return s
  end)
  ctx:broadcast { _tag = "Message", text = text, userId = c and c.state.userId or "system", ts = room.now_ms() }
end

function M.on_event(ctx, e)
  if e._tag == "Say" then
    say(ctx, e.text)
  elseif ctx.connection then
    ctx:broadcast({ _tag = "Typing", userId = ctx.connection.state.userId }, { except = ctx.connection })
  end
end

function M.on_close(ctx)
  ctx:broadcast({ _tag = "UserLeft", userId = ctx.connection.state.userId }, { except = ctx.connection })
end

M.rpc = {
  say = function(ctx, input)
    if type(input) ~= "table" or not is_text(input.text) then
      room.error("BadRequest", { status = 400, message = 'say {"text": "..."}' })
    end
    say(ctx, input.text)
    return { status = "ok" }
  end,
}

return M

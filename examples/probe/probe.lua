#!room name=probe api=1
-- Does what it is told, so that its tests see what every call of the host does. There is the same room
-- in C, probe.c: probe_test.lua speaks to both and sees no difference.
--
-- An act is a function of ctx and an input. Each is a method; a frame {"act":"save","with":{...}} runs it
-- too, and what it returns comes back to the connection as {"did":"save","result":...}.
local room = require "room"
local json, null = room.json, room.null
local acts = {}

---- who is it ----

local function identify(req)
  local q, tags = req.query, json.array {}
  if q.refuse then
    room.refuse(math.tointeger(tonumber(q.refuse)), "not you")
  elseif q.broken then
    error "identify is broken"
  end
  for tag in (q.tags or ""):gmatch "[^,]+" do
    tags[#tags + 1] = tag
  end
  return {
    id = q.id,
    tags = tags,
    state = q.state and json.decode(q.state),
    meta = {
      ask = q.ask,
      claims = req.claims,
      origin = req.headers.origin,
      ip = req.ip,
      client_state = req.client_state,
    },
  }
end

---- what is not the room's ----

local function refuse_bad(what)
  return function(value)
    if type(value) == "table" and value.bad then
      error(what .. " is bad", 0)
    end
    return value
  end
end

local function decode_event(e)
  if type(e) ~= "table" or type(e.act) ~= "string" then
    error("an event is {act, with}", 0)
  end
  return e
end

---- state ----

function acts.recall(ctx)
  return ctx:recall()
end

function acts.save(ctx, input)
  ctx:save(input.state)
end

function acts.update(ctx, input)
  return ctx:update(function(state)
    return { n = state.n + input.by }
  end)
end

-- A state of so many bytes.
function acts.save_bytes(ctx, input)
  ctx:save { text = ("x"):rep(input.bytes - #'{"text":""}') }
end

function acts.purge(ctx)
  ctx:purge()
end

-- ctx.mem is gone whenever the room has left memory.
function acts.remember(ctx, input)
  ctx.mem.kept = input.text
end

function acts.memory(ctx)
  return ctx.mem.kept
end

---- connections ----

local function shown(c)
  return { id = c.id, tags = c.tags, state = c.state == nil and null or c.state, open = c:is_open() }
end

local function shown_all(connections)
  local list = json.array {}
  for i, c in ipairs(connections) do
    list[i] = shown(c)
  end
  return list
end

local function named(ctx, id)
  local c = ctx.connection
  if id then
    c = ctx.connections:by_id(id)
  end
  return c or room.error("NoConnection", { status = 404, message = "nobody has this id", data = { id = id } })
end

function acts.me(ctx)
  local c = ctx.connection
  return { type = ctx.name, id = ctx.id, connection = c and shown(c) or null, now = room.now_ms() }
end

function acts.all(ctx)
  return shown_all(ctx.connections:all())
end

function acts.by_tag(ctx, input)
  return shown_all(ctx.connections:by_tag(input.tag))
end

function acts.by_id(ctx, input)
  local c = ctx.connections:by_id(input.id)
  return c and shown(c)
end

-- Those whose id begins with `prefix`.
function acts.filter(ctx, input)
  return shown_all(ctx.connections:filter(function(c)
    return c.id:sub(1, #input.prefix) == input.prefix
  end))
end

function acts.count(ctx, input)
  return ctx.connections:count(input and input.tag)
end

function acts.send_to(ctx, input)
  named(ctx, input.id):send(input.message)
end

function acts.set_state(ctx, input)
  named(ctx, input.id):set_state(input.state)
end

function acts.set_bytes(ctx, input)
  named(ctx, input.id):set_state { text = ("x"):rep(input.bytes - #'{"text":""}') }
end

function acts.shut(ctx, input)
  named(ctx, input.id):close(input.code, input.reason)
end

---- to many ----

local function recipients(ctx, input)
  return { tags = input.tags, to = input.to, except = input.not_me and ctx.connection or input.except }
end

function acts.tell(ctx, input)
  ctx:broadcast(input.message, recipients(ctx, input))
end

function acts.tell_bytes(ctx, input)
  ctx:broadcast(("x"):rep(input.bytes - 2))
end

function acts.publish(ctx, input)
  local options = recipients(ctx, input)
  options.conflate, options.ephemeral = input.conflate, input.ephemeral
  ctx:publish(input.message, options)
end

function acts.events(ctx, input)
  return ctx:log(input)
end

---- time ----

function acts.wake_in(ctx, input)
  ctx:schedule_in(input.ms)
end

function acts.wake_at(ctx, input)
  ctx:schedule_at(input.at)
end

function acts.unwake(ctx)
  ctx:cancel_schedule()
end

function acts.next_wake(ctx)
  return ctx:next_alarm()
end

function acts.sleep(ctx, input)
  local before = room.now_ms()
  ctx:sleep(input.ms)
  return { slept = room.now_ms() - before }
end

---- other rooms ----

function acts.room_send(ctx, input)
  ctx:room(input.type):send(input.id, input.event)
end

function acts.room_state(ctx, input)
  return ctx:room(input.type):get_state(input.id)
end

function acts.room_tell(ctx, input)
  ctx:room(input.type):broadcast(input.id, input.message)
end

function acts.room_call(ctx, input)
  return ctx:room(input.type):call(input.id, input.method, input.input)
end

---- values ----

function acts.echo(_, input)
  return input
end

function acts.size(_, input)
  return #input.text
end

-- A text of any bytes.
function acts.bytes(_, input)
  return (input.hex:gsub("%x%x", function(digits)
    return string.char(tonumber(digits, 16))
  end))
end

function acts.count_to(_, input, yield)
  for i = 1, input.n do
    yield { i = i }
  end
  return input.last
end

function acts.random()
  return room.uuid() ~= room.uuid()
end

function acts.print(_, input)
  room.log(input.text)
end

---- failures ----

function acts.fail(_, input)
  error(input and input.message or "as asked")
end

function acts.fail_with(_, input)
  room.error(input.code, { status = input.status, message = input.message, data = input.data })
end

function acts.raise(_, input)
  room.error(input.tag, { message = input.message })
end

-- What an act raises, as a value.
function acts.try(ctx, input)
  local ok, result = pcall(acts[input.act], ctx, input.with)
  if ok then
    return { result = result == nil and null or result }
  elseif type(result) ~= "table" then
    return { tag = "RoomExecutionError" }
  end
  local message = result.tag ~= "RoomExecutionError" and result.message or nil
  return { tag = result.tag, message = message, status = result.status, data = result.data }
end

-- One after the other, in one segment.
function acts.steps(ctx, input)
  local results = json.array {}
  for i, step in ipairs(input) do
    local result = acts[step.act](ctx, step.with)
    results[i] = result == nil and null or result
  end
  return results
end

---- the room ----

local M = { auto_response = { "ping", "pong" } }
M.identify = identify
M.decode_event = decode_event
M.decode_state = refuse_bad "the state"
M.decode_connection = refuse_bad "the connection's state"
M.encode_broadcast = refuse_bad "the message"

function M.on_connect(ctx)
  local c = ctx.connection
  local ask = c.meta.ask
  if ask == "refuse" then
    room.refuse(403, "not here")
  elseif ask == "fail" then
    error "as asked"
  elseif ask == "handled" then
    room.error("Handled", { message = "as asked" })
  end
  c:send { hello = c.id, meta = c.meta }
end

function M.on_event(ctx, e)
  local act = acts[e.act] or room.error("NoAct", { status = 404, message = "there is no such act" })
  local result = act(ctx, e.with)
  if ctx.connection then
    ctx.connection:send { did = e.act, result = result == nil and null or result }
  end
end

function M.on_close(ctx, info)
  if info.reason == "fail" then
    room.error("Handled", { message = "on_close fails" })
  end
  info.left = ctx.connection.id
  ctx:broadcast(info, { except = ctx.connection })
end

-- Fails as often as the state's `fails` says.
function M.on_alarm(ctx)
  ctx:broadcast { alarm = room.now_ms(), failure = ctx.system_failure or null, next = ctx:next_alarm() or null }
  local state = ctx:recall()
  if state and state.handled then
    room.error("Handled", { message = "on_alarm fails" })
  elseif state and state.fails > 0 then
    ctx:save { fails = state.fails - 1 }
    room.error("Tired", { message = "the alarm fails" })
  end
end

function M.on_decode_error(ctx, raw, err)
  if raw == "fail" then
    room.error("Handled", { message = "on_decode_error fails" })
  end
  ctx.connection:send { undecoded = raw, tag = err.tag, message = err.message }
end

-- What is tagged "Handled" is.
function M.on_error(ctx, phase, err)
  if err.tag ~= "Handled" then
    error(err)
  end
  ctx:broadcast { handled = phase, message = err.message }
end

M.rpc = { router = { ping = function() return "pong" end } }
for name, act in pairs(acts) do
  M.rpc[name] = act
end

return M

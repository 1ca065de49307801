-- What test files see as `test`: cases, comparisons, rooms and their connections. `native` is
-- script.c's; each function here says what it wants of its arguments and names what went wrong.
local native = ...
local test = { null = native.null, array = native.array, json = native.encode }

---- errors ----

-- What a room, or the way to it, answers.
local Fault = { __name = "error" }
Fault.__index = Fault
function Fault.__tostring(e)
  return string.format("%s (%d): %s", e.tag, e.status, e.message)
end

-- What a comparison found.
local Failure = {}
function Failure.__tostring(f)
  return f.text
end

local function fail(text, ...)
  error(setmetatable({ text = string.format(text, ...) }, Failure), 0)
end

local function value_of(ok, value)
  if not ok then
    error(setmetatable(value, Fault), 0)
  end
  return value
end

---- comparing ----

local function show(value)
  local ok, text = pcall(native.encode, value)
  if value == nil or not ok then
    return tostring(value)
  end
  return text
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  for k, v in pairs(a) do
    if not same(v, b[k]) then
      return false
    end
  end
  for k in pairs(b) do
    if a[k] == nil then
      return false
    end
  end
  return true
end

function test.equal(got, wanted, what)
  if not same(got, wanted) then
    fail("%sgot %s, wanted %s", what and what .. ": " or "", show(got), show(wanted))
  end
end

-- Runs f, which must raise an error with this tag; returns the error.
function test.error(tag, f)
  local ok, err = pcall(f)
  if ok then
    fail("no error, wanted %s", tag)
  elseif getmetatable(err) ~= Fault then
    error(err, 0)
  elseif err.tag ~= tag then
    fail("got the error %s, wanted %s", tostring(err), tag)
  end
  return err
end

---- connections ----

local Connection = {}
Connection.__index = Connection

local function say(c, frame, text)
  if not c.native:receive(frame, text) then
    fail("the connection %s is closed", c.id)
  end
end

function Connection:receive(event)
  say(self, native.encode(event), true)
end

function Connection:receive_raw(frame, binary)
  say(self, frame, not binary)
end

function Connection:received()
  return self.native:take()
end

function Connection:is_open()
  return self.native:status()
end

function Connection:close(code, reason)
  self.native:leave(code or 1000, reason or "")
end

---- rooms ----

local Room = {}
Room.__index = Room

local function room_open(world, file, id, config)
  if type(file) ~= "string" or type(id) ~= "string" or id == "" then
    fail('a room is opened by its file and id: test.room("chat.lua", "lobby")')
  end
  return setmetatable({ world = world, id = id, key = world:load(file, config) .. ":" .. id }, Room)
end

function test.room(file, id, config)
  return room_open(native.world(), file, id, config)
end

-- Another room in the same shard, of this type or another.
function Room:room(file, id, config)
  return room_open(self.world, file, id, config)
end

local wishes = { query = true, claims = true, headers = true, ip = true, client_state = true }

function Room:connect(wish)
  wish = wish or {}
  for name in pairs(wish) do
    if not wishes[name] then
      fail("%s: not something that identify sees", tostring(name))
    end
  end
  local c, id, tags, session = self.world:join(self.key, {
    query = wish.query or {},
    claims = wish.claims or native.null,
    headers = wish.headers or {},
    ip = wish.ip or "127.0.0.1",
    client_state = wish.client_state or native.null,
  })
  if not c then
    return setmetatable(id, Fault)
  end
  return setmetatable({ native = c, id = id, tags = tags, session = session }, Connection)
end

local function ask(room, verb, name, input)
  return value_of(room.world:call(room.key, verb, name, input))
end

function Room:send(event)
  return ask(self, "send", "", event)
end

function Room:broadcast(message)
  return ask(self, "broadcast", "", message)
end

function Room:call(method, input)
  return ask(self, "method", method, input)
end

function Room:state()
  return ask(self, "state", "")
end

function Room:connections(tag)
  return ask(self, "connections", tag or "")
end

function Room:fire_alarm()
  return ask(self, "alarm", "")
end

function Room:log()
  return value_of(self.world:log(self.key))
end

function Room:purge()
  value_of(self.world:purge(self.key))
end

function Room:next_alarm()
  return self.world:alarm(self.key)
end

function Room:now()
  return self.world:now()
end

function Room:tick(ms)
  self.world:tick(ms)
end

function Room:restart(how)
  self.world:restart(how ~= nil and how.gateways == true)
end

function Room:fail_commits(from)
  self.world:fill(from)
end

---- cases ----

local path, cases, failed, inside = nil, 0, 0, false

-- The innermost line of a file that is not this one.
local function where()
  for level = 3, 200 do
    local info = debug.getinfo(level, "Sl")
    if not info then
      break
    elseif info.source:sub(1, 1) == "@" then
      return info.source:sub(2) .. ":" .. info.currentline
    end
  end
  return path
end

-- Lua puts its own idea of the line in front of texts.
local function described(err)
  local place, text = where(), tostring(err)
  if type(err) == "string" then
    text = text:gsub("^test:%d+: ", ""):gsub("^" .. place:gsub("%p", "%%%0") .. ": ", "")
  end
  return place .. ": " .. text
end

local function report(name, ok, why)
  if ok then
    print("ok    " .. name)
  else
    failed = failed + 1
    print("FAIL  " .. name .. ": " .. why)
    for line in native.lines():gmatch("[^\n]+") do
      -- A traceback is one line of the log.
      line = line:gsub("\\n", "\n          "):gsub("\\u0009", "  ")
      print("        " .. line)
    end
  end
  native.lines()
  io.stdout:flush()
end

function test.case(name, f)
  if type(name) ~= "string" or type(f) ~= "function" then
    fail('a case has a name and a function: test.case("joins", function() ... end)')
  elseif inside then
    fail("a case within a case")
  end
  cases, inside = cases + 1, true
  local ok, why = xpcall(f, described)
  inside = false
  report(name, ok, why)
  collectgarbage() -- the case's rooms
end

-- Runs the file; whether it came to its end, cases, failures.
return function(file)
  path = file
  _G.test = test
  package.preload.test = function()
    return test
  end
  local chunk, why = loadfile(file)
  local complete = chunk ~= nil
  if complete then
    complete, why = xpcall(chunk, described)
  end
  if not complete then
    cases = cases + 1
    report(file, false, why)
  end
  return complete, cases, failed
end

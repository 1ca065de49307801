---@meta room
-- Types of what a room file (examples/chat/chat.lua) can reach, for the Lua language server: put this file
-- into its workspace library. A test keeps it equal to the host.

---@alias Json nil|boolean|number|string|table|lightuserdata
---@alias Duration integer|string  milliseconds, or "250ms", "30s", "5m", "1h", "7d", "30 seconds"

---What ctx methods raise; catch it with pcall.
---@class RoomFault
---@field tag string  RoomError, UpgradeError, SendError, BroadcastError, AttachmentTooLargeError, RoomValidationError, RoomExecutionError, RoomNotFoundError, SystemFailure, or a code given to room.error
---@field message string
---@field status? integer
---@field data? Json

---@class Recipients
---@field tags? string|string[]  those with any of them
---@field to? string|Connection|(string|Connection)[]  these; goes before tags
---@field except? string|Connection|(string|Connection)[]  but not these

---@class PublishOptions: Recipients
---@field conflate? string  of events with the same text, who catches up gets the newest only
---@field ephemeral? boolean  for who is there now; not kept
---@field meta? Json  which parts are more than JSON, for oRPC's clients: { { type, name or place, ... }, ... }, places from 0

---The module: local room = require "room".
---@class room
---@field json json
---@field null lightuserdata  JSON's null, where nil would be nothing
local room = {}

---A line of the shard's log, with the room's key. print does the same.
---@param ... any
function room.log(...) end

---Milliseconds since 1970, the same within a segment.
---@return integer
function room.now_ms() end

---A random UUID.
---@return string
function room.uuid() end

---Raises: the upgrade is refused with this status. For identify and on_connect.
---@param status integer 400 to 599
---@param text? string
function room.refuse(status, text) end

---Raises the error that a method's caller sees.
---@param code string
---@param options? { status?: integer, message?: string, data?: Json }
function room.error(code, options) end

---@class json
---@field null lightuserdata
local json = {}

---@param value Json
---@return string
function json.encode(value) end

---@param text string
---@return Json
function json.decode(text) end

---Marks a table as an array, so that it is [] even when it is empty.
---@param t? table
---@return table
function json.array(t) end

---@class Ctx
---@field id string  "lobby" of the key "chat:lobby"
---@field name string  the room type, "chat"
---@field key string
---@field connection Connection?  whose frame, upgrade or close this is; nil: a direct send, a method, an alarm
---@field connections Connections
---@field mem table  the room's own in memory; lost when the room leaves it
---@field env table  what init(env) got
---@field meta Json?  how a method's input is typed, when an oRPC client said so: { { type, name or place, ... }, ... }
---@field system_failure string?  on an alarm's retries: why
local ctx = {}

---The saved state; nil: there is none.
---@return Json
function ctx:recall() end

---@param state Json
function ctx:save(state) end

---Saves what f makes of the state; does nothing and returns false if there is none.
---@param f fun(state: Json): Json
---@return boolean
function ctx:update(f) end

---To those connected now.
---@param message Json
---@param options? Recipients
function ctx:broadcast(message, options) end

---To everybody, now and on replay.
---@param message Json
---@param options? PublishOptions
function ctx:publish(message, options) end

---Retained events, oldest first.
---@param options? { after?: string, limit?: integer }
---@return { id: string, ts: integer, data: Json }[]
function ctx:log(options) end

---One alarm per room: a new one replaces it.
---@param delay Duration
function ctx:schedule_in(delay) end

---@param unix_ms integer
function ctx:schedule_at(unix_ms) end

function ctx:cancel_schedule() end

---@return integer? unix_ms
function ctx:next_alarm() end

---Another room type; its methods wait for their answers.
---@param name string
---@return Sibling
function ctx:room(name) end

---Ends the segment; other events of the room may run meanwhile.
---@param duration Duration at most 30 s
function ctx:sleep(duration) end

---Ends the handler and deletes state, alarm and retained events.
function ctx:purge() end

---@class Connections
local connections = {}

---@return Connection[] oldest first
function connections:all() end

---@param tag string
---@return Connection[]
function connections:by_tag(tag) end

---The oldest with this id.
---@param id string
---@return Connection?
function connections:by_id(id) end

---@param f fun(c: Connection): boolean
---@return Connection[]
function connections:filter(f) end

---@param tag? string
---@return integer
function connections:count(tag) end

---Valid during its run. Two objects of one connection are equal.
---@class Connection
---@field id string
---@field session string  unique, never used again
---@field tags string[]
---@field state Json
---@field meta Json  in on_connect only
local connection = {}

---@param message Json
function connection:send(message) end

---@param state Json
function connection:set_state(state) end

---@param code? integer 1000 if left out
---@param reason? string
function connection:close(code, reason) end

---@return boolean
function connection:is_open() end

---@class Sibling
local sibling = {}

---@param id string
---@param event Json
function sibling:send(id, event) end

---@param id string
---@return Json
function sibling:get_state(id) end

---@param id string
---@param message Json
function sibling:broadcast(id, message) end

---@param id string
---@param method string
---@param input? Json
---@return Json
function sibling:call(id, method, input) end

---What a room file returns; every field may be left out.
---@class Room
---@field on_duplicate? "allow"|"replace"|"reject"
---@field max_connections? integer  1 to 32768
---@field max_connection_state? integer  bytes of JSON, at most 16384
---@field auto_response? { [1]: string, [2]: string }  request and answer, given without running the room
---@field alarm_retries? integer  0 to 100
---@field state_version? integer
---@field rollback? boolean  a failing segment leaves nothing
---@field exclusive? boolean  nothing else runs while a run waits
---@field identify? fun(req: { query: table, claims: table?, headers: table, ip: string, client_state: Json }): { id?: string, tags?: string[], state?: Json, meta?: Json }?
---@field init? fun(env: table)
---@field decode_event? fun(e: Json): Json
---@field decode_state? fun(s: Json): Json  of what is read; what is saved must pass, too
---@field decode_connection? fun(c: Json): Json  the same of connections' states
---@field encode_broadcast? fun(m: Json): Json  what is sent in its place
---@field on_connect? fun(ctx: Ctx)
---@field on_event? fun(ctx: Ctx, e: Json)
---@field on_close? fun(ctx: Ctx, info: { code: integer, reason: string, clean: boolean, replaced: boolean, recovered: boolean })
---@field on_alarm? fun(ctx: Ctx)
---@field on_decode_error? fun(ctx: Ctx, raw: string, err: RoomFault)
---@field on_error? fun(ctx: Ctx, phase: string, err: RoomFault)
---@field migrate? fun(state: Json, from: integer): Json
---@field rpc? table<string, fun(ctx: Ctx, input: Json, yield: fun(item: Json)): Json>

return room

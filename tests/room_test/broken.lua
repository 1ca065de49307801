#!room name=broken api=1
local M = {}
M.on_event = 5
return M

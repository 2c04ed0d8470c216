-- How files are loaded, and what only they call: a run that waits does not keep it.
local host, errors, tables, options, E, extras = ...

local raw_next, raw_tostring, raw_format, raw_setmetatable = next, tostring, string.format,
  setmetatable
local refuse, guarded = errors.refuse, errors.guarded

local M = {}

local FLOW = { name = true, summary = true, api = true, timeout = true, params = true,
  validate = true, destroys = true, actions = true, default = true }

function M.flow(def)
  local o = options("flow", def, FLOW)
  if type(o.name) ~= "string" then refuse("invalid", "flow: `name` is missing") end
  if type(o.actions) ~= "table" or raw_next(o.actions) == nil then
    refuse("invalid", "flow: `actions` is missing",
      "actions = { deploy = function(ctx, node, p) ... end }")
  end
  for name, fn in tables.pairs(o.actions) do
    if type(fn) ~= "function" then
      refuse("invalid", "flow: the action " .. raw_tostring(name) .. " is not a function")
    end
  end
  return raw_setmetatable(def, { __name = "flow" })
end

function M.quirk(def) return extras.quirks().declare(def) end
function M.test(name, fn) return extras.tests().declare(name, fn) end

function M.load(path)
  local chunk, why = host.chunk(path, E)
  if not chunk then return false, errors.mark(host.syntax(why)) end
  local results
  if host.is_test(path) then
    results = guarded(function() return M.flow(extras.tests().load(path, chunk)) end)
  else
    results = guarded(chunk)
  end
  local def = results[2]
  if not results[1] then return false, def end
  if type(def) ~= "table" or (host.metatable(def) or {}).__name ~= "flow" then
    return false, errors.new("invalid", path .. " does not return a flow",
      "end the file with `return flow { ... }`")
  end
  return true, def
end

-- What a file of a flow folder is: its flow, or nil for a module. A module that stands for one of
-- the standard library has all that is in that one.
function M.look(path, name)
  local chunk, why = host.chunk(path, E)
  if not chunk then return false, errors.mark(host.syntax(why)) end
  local results = guarded(chunk, name)
  local value = results[2]
  if not results[1] then return false, value end
  if value == nil then
    return false, errors.new("invalid", path .. " returns nothing",
      "a flow file ends with `return flow { ... }`, a module with `return` and its table")
  end
  if type(value) == "table" and (host.metatable(value) or {}).__name == "flow" then
    return true, value
  end
  local stock = host.module("stock:" .. name) and guarded(E.require, "stock:" .. name)[2]
  for key in tables.pairs(type(stock) == "table" and stock or {}) do
    if type(value) ~= "table" or value[key] == nil then
      return false, errors.new("invalid", raw_format("%s stands for stdlib/%s.lua and lacks %s.%s",
        path, name, name, raw_tostring(key)), raw_format("begin with `require \"stock:%s\"`", name))
    end
  end
  return true, nil
end

function M.load_quirk(path)
  local chunk, why = host.chunk(path, E)
  if not chunk then return false, errors.mark(host.syntax(why)) end
  local results = guarded(extras.quirks().load, path, chunk)
  return results[1], results[2]
end

function M.quirks_need_info() return extras.quirks().need_info() end
function M.judge_quirks(info) return extras.quirks().judge(info) end
function M.tests() return extras.tests().list() end

function M.destroys(def, node, p, action)
  if not def.destroys then return true, {} end
  local results = guarded(def.destroys, tables.freeze(node, "node"), p, action)
  return results[1], results[2]
end

return M

-- Errors of flows: one shape, with fields that survive as long as they stay inside Lua.
local host = ...

local raw_tostring, raw_setmetatable, raw_match = tostring, setmetatable, string.match
local pack = table.pack

local Err = { __name = "error" }

function Err.__tostring(e)
  local what = e.op or ""
  if e.target and e.target ~= "" then
    what = what .. (what == "" and e.target or "(" .. e.target .. ")")
  end
  if what ~= "" then what = what .. ": " end
  return what .. raw_tostring(e.message) .. " [" .. raw_tostring(e.kind) .. "]"
end

local function is_error(e)
  return type(e) == "table" and getmetatable(e) == Err
end

local function new_error(kind, message, hint)
  local e = { kind = kind, message = message, hint = hint, retryable = false, at = host.frames() }
  return raw_setmetatable(e, Err)
end

local function refuse(kind, message, hint)
  error(new_error(kind, message, hint), 0)
end

-- A fault of the script itself: Lua's own error, or a value passed to error().
local function fault_text(e)
  local text = raw_tostring(e)
  text = raw_match(text, "^(.-)\nstack traceback:") or text
  text = raw_match(text, "^runtime error: (.*)$") or text
  return raw_match(text, "^[^\n]-:%-?%d+: (.*)$") or text -- the prelude has no lines: `?:-1: `
end

-- An error that the flow raises on purpose; what is wrong with the flow itself is not marked.
local function raised(kind, message, hint)
  local e = new_error(kind, message, hint)
  e.detail = { raised = true }
  return e
end

local function on_error(e)
  if is_error(e) then return e end
  if type(e) == "table" and type(e.kind) == "string" and type(e.message) == "string" then
    local err = raised(e.kind, e.message, e.hint)
    err.retryable = e.retryable == true
    return err
  end
  local text = fault_text(e)
  if text:find("attempt to yield across a C-call boundary", 1, true) then
    return new_error("invalid", "a primitive cannot be called here",
      "not inside an xpcall handler, or a metamethod that a library function calls")
  end
  if text:find("the script computes without end", 1, true) then
    return new_error("timeout", "the script computes without end and ran out of time")
  end
  if text:find("not enough memory", 1, true) then
    return new_error("limit", "the flow's memory limit is reached")
  end
  if raw_match(text, "^attempt to ") or raw_match(text, "^bad argument ") then
    return new_error("invalid", text)
  end
  return raised("invalid", text)
end

-- pcall whose failure is always one of our errors. Lua calls no handler when memory runs out.
local function guarded(fn, ...)
  local results = pack(xpcall(fn, on_error, ...))
  if not results[1] and not is_error(results[2]) then results[2] = on_error(results[2]) end
  return results
end

return { is = is_error, new = new_error, refuse = refuse, raised = raised, guarded = guarded,
  mark = function(e) return raw_setmetatable(e, Err) end }

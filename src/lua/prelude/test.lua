-- Tests of flows: `test("name", function(t) … end)` in a file `*_test.lua`. A file of tests becomes
-- a flow whose actions are the tests; what a test runs goes through the primitives of `lab`.
local host, tools = ...

local refuse, raised, sorted_pairs, show = tools.refuse, tools.raised, tools.sorted_pairs,
  tools.tostring
local format = string.format

local declared, loading = {}, nil

local function fail(message, note)
  error(raised("refused", note and format("%s: %s", show(note), message) or message), 0)
end

-- A value as a failure shows it.
local function shown(value, depth)
  if type(value) == "string" then return format("%q", value) end
  if type(value) ~= "table" then return show(value) end
  if depth > 4 then return "{…}" end
  local parts = {}
  for key, field in sorted_pairs(value) do
    local text = shown(field, depth + 1)
    parts[#parts + 1] = type(key) == "number" and text or format("%s = %s", show(key), text)
  end
  return #parts == 0 and "{}" or "{ " .. table.concat(parts, ", ") .. " }"
end

local function equal(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, field in sorted_pairs(a) do
    if not equal(field, b[key]) then return false end
  end
  for key in sorted_pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

-- What a test gets as `t`.
local T = {}

function T.ok(value, note)
  if not value then fail("expected a true value, got " .. shown(value, 0), note) end
end

function T.equal(got, wanted, note)
  if not equal(got, wanted) then
    fail(format("expected %s, got %s", shown(wanted, 0), shown(got, 0)), note)
  end
end

-- A text that holds `wanted`, or a list with an item that is or holds it.
function T.contains(got, wanted, note)
  local list = type(got) == "table" and got or { got }
  for _, item in ipairs(list) do
    if equal(item, wanted) then return end
    if type(item) == "string" and type(wanted) == "string"
      and host.find(item, wanted, 1, true) then
      return
    end
  end
  fail(format("expected %s in %s", shown(wanted, 0), shown(got, 0)), note)
end

-- Each of these is in the list, after the one before it.
function T.in_order(list, ...)
  local from = 1
  for _, wanted in ipairs({ ... }) do
    local at
    for i = from, #list do
      if list[i] == wanted then at = i break end
    end
    if not at then
      fail(format("expected %s from position %d on in %s", shown(wanted, 0), from, shown(list, 0)))
    end
    from = at + 1
  end
end

function T.run(o) return tools.primitive("lab", "run")(o or {}) end

local M = {}

function M.declare(name, fn)
  if not loading then refuse("invalid", "test belongs in a file that is named *_test.lua") end
  if type(name) ~= "string" or type(fn) ~= "function" then
    refuse("invalid", "test wants a name and a function", 'test("boots", function(t) ... end)')
  end
  for _, other in ipairs(declared) do
    if other.name == name then refuse("invalid", format("there are two tests %q", name)) end
  end
  declared[#declared + 1] = { name = name, fn = fn, at = host.frames()[1] }
end

-- The tests of a file as a flow; `chunk` is its code.
function M.load(path, chunk)
  loading = path
  chunk()
  loading = nil
  local actions = {}
  for _, each in ipairs(declared) do
    actions[each.name] = function() return each.fn(T) end
  end
  if #declared == 0 then refuse("invalid", path .. " has no test") end
  return { name = path, actions = actions }
end

-- Name and place of each test, in the order of the file.
function M.list()
  local list = {}
  for i, each in ipairs(declared) do list[i] = { name = each.name, at = each.at } end
  return list
end

return M

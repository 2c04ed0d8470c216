-- Quirks: overlays for particular hardware, matched on what the node's iLO reported.
--
-- A quirk's function runs in a step of its own, `quirk ID`: its calls are journaled below that
-- step, so whoever reads a run sees which calls are the quirk's.
local host, tools = ...

local refuse, options, sorted_pairs = tools.refuse, tools.options, tools.sorted_pairs
local text, format = tostring, string.format

local QUIRK = { id = true, why = true, match = true, set = true, wrap = true, around = true,
  expires = true }
local MATCH = { model = true, ilo = true, firmware = true, bios = true }
local SECTIONS = { driver_info = true, properties = true, instance_info = true }
-- The field of `ilo.info` that each condition looks at.
local REPORTED = { model = "model", ilo = "generation", firmware = "firmware",
  bios = "bios_version" }
local ORDER = {
  ["<"] = function(c) return c < 0 end, ["<="] = function(c) return c <= 0 end,
  [">"] = function(c) return c > 0 end, [">="] = function(c) return c >= 0 end,
  ["="] = function(c) return c == 0 end,
}

-- In the order of their files' names: the first is the outermost where several wrap one thing.
local declared, loading = {}, nil
local wraps, arounds = {}, {}

-- Conditions ----------------------------------------------------------------------------------

-- "iLO 2.30 Aug 2020" → { 2, 30 }; nil if there is no number.
local function version(value)
  local digits = host.match(text(value), "%d+%.[%d.]*") or host.match(text(value), "%d+")
  if not digits then return nil end
  local parts = {}
  for _, part in ipairs(host.matches(digits, "%d+", false)) do
    parts[#parts + 1] = math.tointeger(tonumber(part[1])) or math.maxinteger
  end
  return parts
end

local function compare(a, b)
  for i = 1, math.max(#a, #b) do
    local x, y = a[i] or 0, b[i] or 0
    if x ~= y then return x < y and -1 or 1 end
  end
  return 0
end

-- ">= 2.10, < 2.30" → a list of { order, version }; nil if it cannot be read.
local function bounds(value)
  local list = {}
  for _, part in ipairs(host.matches(value .. ",", "([^,]*),", false)) do
    local order, number = host.match(part[1], "^%s*([<>=]*)%s*(%d[%d.]*)%s*$")
    if order == "" then order = "=" end
    if not order or not ORDER[order] then return nil end
    list[#list + 1] = { order = ORDER[order], version = version(number) }
  end
  return list
end

local function within_bounds(wanted, reported)
  local have = version(reported)
  if not have then return false end
  for _, bound in ipairs(bounds(wanted)) do
    if not bound.order(compare(have, bound.version)) then return false end
  end
  return true
end

local function alike(wanted, reported)
  return host.find(reported, wanted, 1, true) ~= nil or host.find(reported, wanted) ~= nil
end

local HOLDS = {
  ilo = function(wanted, reported) return wanted == reported end,
  firmware = within_bounds, model = alike, bios = alike,
}

-- Whether the quirk applies, and why or why not.
local function judge(quirk, info)
  local reasons, applies = {}, true
  for key, wanted in sorted_pairs(quirk.match) do
    local reported = info[REPORTED[key]]
    local known = reported ~= nil and reported ~= ""
    local holds = known and HOLDS[key](wanted, reported)
    applies = applies and holds
    reasons[#reasons + 1] = format("%s %s: the iLO reports %s%s", key, text(wanted),
      known and text(reported) or "nothing", holds and "" or ", no match")
  end
  if #reasons == 0 then reasons[1] = "it has no match: every node" end
  return applies, reasons
end

-- Declaration ---------------------------------------------------------------------------------

local function wrong(id, message, hint)
  refuse("invalid", format("quirk %s: %s", id, message), hint)
end

local function check_match(id, match)
  for key, wanted in sorted_pairs(match) do
    if key == "ilo" then
      if math.type(wanted) ~= "integer" then
        wrong(id, "match.ilo must be a number, not " .. type(wanted), "ilo = 4")
      end
    elseif type(wanted) ~= "string" or wanted == "" then
      wrong(id, format("match.%s must be a text, not %s", key,
        wanted == "" and "an empty one" or type(wanted)))
    elseif key == "firmware" then
      if not bounds(wanted) then
        wrong(id, format("match.firmware %q is not understood", wanted),
          'firmware = "< 2.30", or ">= 2.10, < 2.30"')
      end
    elseif not pcall(host.find, "", wanted) then
      wrong(id, format("match.%s %q is no Lua pattern", key, wanted), "% quotes a sign: %[")
    end
  end
end

local function check_data(id, where, value)
  if type(value) == "table" then
    for key, field in sorted_pairs(value) do check_data(id, where .. "." .. text(key), field) end
  elseif type(value) ~= "string" and type(value) ~= "number" and type(value) ~= "boolean" then
    wrong(id, where .. " must be data, not a " .. type(value))
  end
end

local function check_set(id, set)
  for section, fields in sorted_pairs(set) do
    if type(fields) ~= "table" then
      wrong(id, format("set.%s must be a table, not %s", section, type(fields)))
    end
    check_data(id, "set." .. section, fields)
  end
  for key in sorted_pairs(set.driver_info or {}) do
    if host.match(text(key), "^ilo_") then
      wrong(id, format("set.driver_info.%s has no effect: flows do not read it", key),
        "change it in flowrun.toml")
    end
  end
end

local function functions_of(id, what, functions)
  if functions == nil then return {} end
  if type(functions) ~= "table" then
    wrong(id, format("%s must be a table, not %s", what, type(functions)))
  end
  for name, fn in sorted_pairs(functions) do
    if type(name) ~= "string" then
      wrong(id, what .. " names what it changes",
        what .. ' = { ["a name"] = function(next) ... end }')
    end
    if type(fn) ~= "function" then
      wrong(id, format("%s[%q] must be a function, not %s", what, name, type(fn)))
    end
  end
  return functions
end

-- `2027-01-01`, a day that there is.
local function is_date(value)
  local year, month, day = host.match(text(value), "^(%d%d%d%d)%-(%d%d)%-(%d%d)$")
  if not year then return false end
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  local leap = year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
  local days = { 31, leap and 29 or 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }
  return days[month] ~= nil and day >= 1 and day <= days[month]
end

local function check_once(id)
  for _, other in ipairs(declared) do
    if other.id == id then
      wrong(id, "this id is declared twice, first at " .. other.at, "ids are unique")
    end
  end
end

local primitives = {}
for module, functions in pairs(host.primitives()) do
  for name in pairs(functions) do
    primitives[module == "" and name or module .. "." .. name] = true
  end
end

local M = {}

-- `quirk { … }` in a quirk file.
function M.declare(def)
  if not loading then
    refuse("invalid", "quirk belongs in a file of a folder `quirks` beside the flow")
  end
  local o = options("quirk", def, QUIRK)
  if type(o.id) ~= "string" or o.id == "" then
    refuse("invalid", "quirk: `id` is missing", 'id = "slow-media"')
  end
  local id = o.id
  check_once(id)
  if type(o.why) ~= "string" or o.why == "" then
    wrong(id, "`why` is missing", "say what the hardware does and who saw it")
  end
  local match = options("quirk " .. id .. ": match", o.match, MATCH)
  check_match(id, match)
  local set = options("quirk " .. id .. ": set", o.set, SECTIONS)
  check_set(id, set)
  local wrap, around = functions_of(id, "wrap", o.wrap), functions_of(id, "around", o.around)
  for name in sorted_pairs(wrap) do
    if not primitives[name] then
      local near = host.near(name, primitives)
      wrong(id, "wrap: there is no primitive " .. name, near and "did you mean " .. near .. "?")
    end
  end
  if o.expires ~= nil and not is_date(o.expires) then
    wrong(id, "expires is no date", 'expires = "2027-01-01"')
  end
  declared[#declared + 1] = { id = id, why = o.why, match = match, set = set, wrap = wrap,
    around = around, expires = o.expires, at = host.frames()[1] or loading }
end

-- Runs a quirk file; `chunk` is its code.
function M.load(path, chunk)
  loading = path
  chunk()
  loading = nil
end

-- Whether a quirk has to know the iLO.
function M.need_info()
  for _, quirk in ipairs(declared) do
    if next(quirk.match) ~= nil then return true end
  end
  return false
end

-- What is known of each quirk, in order. `info` is what `ilo.info` answered.
function M.judge(info)
  local list = {}
  for i, quirk in ipairs(declared) do
    local applies, reasons = judge(quirk, info)
    local what = {}
    for name in sorted_pairs(quirk.wrap) do what[#what + 1] = "wrap " .. name end
    local around = {}
    for name in sorted_pairs(quirk.around) do
      around[#around + 1], what[#what + 1] = name, "around " .. name
    end
    for section, fields in sorted_pairs(quirk.set) do
      for key in sorted_pairs(fields) do what[#what + 1] = "set " .. section .. "." .. key end
    end
    list[i] = { id = quirk.id, why = quirk.why, at = quirk.at, applies = applies,
      reasons = reasons, changes = table.concat(what, ", "), around = around,
      expires = quirk.expires, expired = quirk.expires ~= nil and host.today() > quirk.expires }
  end
  return list
end

-- Application ---------------------------------------------------------------------------------

local function lay_over(target, values)
  for key, value in sorted_pairs(values) do
    if type(value) == "table" and #value == 0 and type(target[key]) == "table" then
      lay_over(target[key], value)
    else
      target[key] = value
    end
  end
end

local function add(chains, name, quirk, fn)
  chains[name] = chains[name] or {}
  table.insert(chains[name], { id = quirk.id, fn = fn })
end

-- Puts the quirks that apply into force, and answers them for the log.
local function apply(info, node)
  local list = M.judge(info)
  for i, verdict in ipairs(list) do
    local quirk = declared[i]
    if verdict.applies then
      lay_over(node, quirk.set)
      for name, fn in sorted_pairs(quirk.wrap) do add(wraps, name, quirk, fn) end
      for name, fn in sorted_pairs(quirk.around) do add(arounds, name, quirk, fn) end
    end
  end
  return list
end

-- The iLO is asked once, and a replay sees the same answer: the same quirks apply again.
function M.use(node)
  local info = {}
  if M.need_info() then
    info = tools.step("quirks", function() return tools.info(node) end)
  end
  for _, verdict in ipairs(apply(info, node)) do
    if verdict.applies then
      host.note("info", "quirks", format("quirk %s applies (%s): %s", verdict.id, verdict.at,
        table.concat(verdict.reasons, "; ")))
    end
    if verdict.applies and verdict.expired then
      host.note("warn", "quirks", format("quirk %s expired on %s (%s) and still applies",
        verdict.id, verdict.expires, verdict.at))
    end
  end
end

-- `fn` inside the functions of a chain. What a chain changes is the original again inside it:
-- a quirk that calls the primitive by name does not meet itself.
local function chained(chain, mark, fn)
  local whole = fn
  for i = #chain, 1, -1 do
    local inner, quirk = whole, chain[i]
    whole = function(...)
      local args = table.pack(...)
      return tools.step("quirk " .. quirk.id, function()
        tools.enter(mark)
        return quirk.fn(inner, table.unpack(args, 1, args.n))
      end)
    end
  end
  return whole
end

-- The function that stands for a primitive in this scope; nil where it is the primitive itself.
function M.wrapped(name, scope, original)
  local chain = wraps[name]
  if not chain or scope.inside[name] then return nil end
  return chained(chain, name, original)
end

-- The function that a step runs.
function M.surrounded(name, scope, fn)
  local mark = "step " .. name
  local chain = arounds[name]
  if not chain or scope.inside[mark] then return fn end
  return chained(chain, mark, fn)
end

return M

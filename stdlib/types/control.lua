---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

---A secret or signed URL: it can be passed to a primitive, not read.
---@class Secret

---An open session: it can be passed to a primitive, and is closed when the run ends.
---@class Session

---A server of the inventory, as it was when the run started. It cannot be changed.
---@class Node
---@field name string
---@field uuid string
---@field ports string[] MAC addresses
---@field driver_info table<string, any> without passwords
---@field properties table<string, any>
---@field instance_info table<string, any>
---@field provision_state? string as the last run left it: `active`, `deploy failed`, …
---@field last_error? string
---@field driver_internal_info? table<string, any> what flows keep for themselves

---@class Ctx
---@field run string the run's id
---@field flow string path of the flow file
---@field action string
---@field node string

---What a primitive or `fail` raises.
---@class Error
---@field kind ErrorKind
---@field op string what was tried
---@field target string what it was tried on
---@field message string what came back
---@field hint? string what to do next
---@field retryable boolean
---@field detail table<string, any>
---@field causes string[]

---@alias ErrorKind "invalid"|"not_found"|"conflict"|"auth"|"unsupported"|"refused"|"protocol"|"timeout"|"unreachable"|"io"|"corrupt"|"limit"|"cancelled"|"in_doubt"|"internal"
---@alias Duration string|number
---@alias RetryOptions { times?: integer, delay?: Duration, factor?: number, max?: Duration, on?: ErrorKind[] }
---@alias ParamType "string"|"integer"|"boolean"|"enum"|"duration"|"size"
---@alias FlowParam { type: ParamType, default?: any, required?: boolean, values?: string[], help?: string }

---@class Flow
---@field name string
---@field summary? string
---@field api? string
---@field timeout? Duration
---@field params? table<string, FlowParam>
---@field validate? fun(ctx: Ctx, node: Node, p: table)
---@field destroys? fun(node: Node, p: table, action: string): string[]
---@field actions table<string, fun(ctx: Ctx, node: Node, p: table): any>
---@field default? string

---A run of a flow on the simulated site of a test.
---@class TestRun
---@field status "done"|"failed"|"cancelled"|"stopped"|"stuck"
---@field error? Error
---@field result any what the action returned
---@field calls string[] the primitives that were called, in order
---@field steps string[] the steps that ended, in order
---@field log string[] what was told
---@field site table what the simulated site saw, as `flowrun … --lab --json` prints it

---What a test gets. A failed expectation ends the test with its line.
---@class Test
---@field run fun(o?: { flow?: string, action?: string, node?: string, params?: table, set?: table<string, any>, faults?: string[], ilo?: string, crash_at?: string, cancel_at?: string }): TestRun runs a flow on the test's simulated site; `flow` is the one that the file is named after, `node` is lab-1. `crash_at` and `cancel_at` name a call: `iscsi.login#1`
---@field equal fun(got: any, wanted: any, note?: string)
---@field ok fun(value: any, note?: string)
---@field contains fun(got: string|any[], wanted: any, note?: string)
---@field in_order fun(list: any[], ...: any) each is in the list, after the one before it

---Declares a test, in a file `*_test.lua`; `flowrun test` runs it.
---@param name string
---@param fn fun(t: Test)
function test(name, fn) end

---Declares a flow; the file returns it.
---@param def Flow
---@return Flow
function flow(def) end

---Labels, bounds and retries a part of a run.
---@generic T
---@param name string
---@param fn fun(): T
---@param opts? { timeout?: Duration, retry?: RetryOptions }
---@return T
function step(name, fn, opts) end

---Runs `fn` when this step ends, whatever way; last first.
---@param fn fun(err?: Error)
function defer(fn) end

---Runs `fn` when the run ends, whatever way; last first.
---@param fn fun(err?: Error)
function at_end(fn) end

---Runs `fn` when the run fails or is cancelled; last first.
---@param fn fun(err: Error)
function undo(fn) end

---Tries `fn` again while it fails with a retryable error, or one of the kinds in `on`.
---@generic T
---@param opts RetryOptions
---@param fn fun(attempt: integer): T
---@return T
function retry(opts, fn) end

---Runs named functions side by side; the first failure cancels the others.
---@generic T
---@param branches table<string, fun(): T>
---@param opts? { limit?: integer, on_error?: "collect" }
---@return table<string, T> values
---@return table<string, Error> errors
function parallel(branches, opts) end

---Runs `fn` for each item, side by side.
---@generic T, R
---@param list T[]
---@param fn fun(item: T, index: integer): R
---@param opts? { limit?: integer, on_error?: "collect" }
---@return R[] values
---@return table<integer, Error> errors
function each(list, fn, opts) end

---Calls `fn`; returns its value, or nil and the error. A cancelled run is not caught.
---@generic T
---@param fn fun(...): T
---@return T?
---@return Error?
function try(fn, ...) end

---Raises an error.
---@param kind ErrorKind
---@param message string
---@param hint? string
function fail(kind, message, hint) end

---@class QuirkMatch
---@field ilo? integer generation of the iLO
---@field firmware? string of the iLO: "< 2.30", or ">= 2.10, < 2.30"
---@field model? string part of the product name, plain or as a Lua pattern
---@field bios? string part of the system ROM's version, plain or as a Lua pattern

---@class Quirk
---@field id string
---@field why string what the hardware does, and who saw it
---@field match? QuirkMatch all of it must hold; without it every node matches
---@field set? { driver_info?: table, properties?: table, instance_info?: table }
---@field wrap? table<string, fun(next: function, ...): any> by primitive
---@field around? table<string, fun(next: function): any> by step
---@field expires? string "2027-01-01": runs warn after that day

---Declares a quirk, in a file of a folder `quirks` beside the flow.
---@param def Quirk
function quirk(def) end

-- An example of a quirk, not a known fault of iLO 4: waits before an insert, and tries twice.
-- flowrun quirks lab-1 examples/health.lua --lab --lab-ilo ilo4-rest
quirk {
  id = "ilo4-settle",
  why = "example: as if a drive were not ready right after an eject",
  match = { ilo = 4 },
  wrap = {
    ["ilo.attach_vmedia"] = function(next, node, o)
      ilo.eject_vmedia(node, { device = o.device })
      sleep("1s")
      return retry({ times = 2, delay = "2s", on = { "timeout", "conflict" } }, function()
        return next(node, o)
      end)
    end,
  },
}

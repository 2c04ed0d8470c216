-- A site's own experience with its iLO 4: a drive is not ready right after an eject. Try it:
-- flowrun quirks lab-1 examples/health.lua --lab --lab-ilo ilo4-rest
quirk {
  id = "ilo4-settle",
  why = "a medium that is inserted right after an eject is refused or lost",
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

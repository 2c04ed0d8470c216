-- placeholder
return flow { name = "ilo_vmedia_iscsi", actions = { deploy = function() end } }

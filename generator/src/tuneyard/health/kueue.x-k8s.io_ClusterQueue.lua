-- ClusterQueue: Active says that its flavours exist and that it admits. One that is held (stopPolicy) waits for a person.
for _, c in ipairs((obj.status or {}).conditions or {}) do
  if c.type == "Active" then
    if c.status == "True" then return {status = "Healthy", message = c.message or ""} end
    local status = "Progressing"
    if c.reason == "Stopped" then status = "Suspended" end
    return {status = status, message = c.message or c.reason or "not active"}
  end
end
return {status = "Progressing", message = "waiting for its first status"}

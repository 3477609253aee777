-- ClusterQueue: Active says that its flavours exist and that it admits.
for _, c in ipairs((obj.status or {}).conditions or {}) do
  if c.type == "Active" then
    if c.status == "True" then return {status = "Healthy", message = c.message or ""} end
    return {status = "Progressing", message = c.message or c.reason or "not active"}
  end
end
return {status = "Progressing", message = "waiting for its first status"}

-- NIM and NeMo services: Failed is Degraded, unless all that is missing is a cache that is still being filled.
local meta = obj.metadata or {}
local events = "no status yet; its events say why: kubectl describe -n " .. (meta.namespace or "") .. " " .. (obj.kind or "") .. "/" .. (meta.name or "")
local hs = {status = "Progressing", message = events}
local st = obj.status
if st == nil or st.state == nil or st.state == "" then return hs end
hs.message = st.state
for _, c in ipairs(st.conditions or {}) do
  if c.status == "True" and c.type == "Failed" then
    if c.message ~= nil and c.message ~= "" then hs.message = c.message end
    if c.reason == "NIMCacheNotFound" or c.reason == "NIMCacheFailed" then
      if hs.message == st.state then hs.message = c.reason .. ": its NIMCache says why" end
      return hs
    end
  end
end
if st.state == "Ready" then return {status = "Healthy", message = st.state} end
if st.state == "Failed" then hs.status = "Degraded" end
return hs

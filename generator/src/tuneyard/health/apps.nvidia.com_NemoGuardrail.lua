-- NIM and NeMo services: Failed is Degraded, unless all that is missing is a cache that is still being filled.
local hs = {status = "Progressing", message = "waiting for its first status"}
local st = obj.status
if st == nil or st.state == nil or st.state == "" then return hs end
hs.message = st.state
for _, c in ipairs(st.conditions or {}) do
  if c.status == "True" and c.type == "Failed" and c.message ~= nil and c.message ~= "" then hs.message = c.message end
  if c.type == "Failed" and c.status == "True" and (c.reason == "NIMCacheNotFound" or c.reason == "NIMCacheFailed") then
    return hs
  end
end
if st.state == "Ready" then return {status = "Healthy", message = st.state} end
if st.state == "Failed" then hs.status = "Degraded" end
return hs

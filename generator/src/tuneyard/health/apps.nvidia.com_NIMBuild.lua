-- Caches and builds: the operator retries and flaps between Failed and InProgress, so Failed is not Degraded.
local hs = {status = "Progressing", message = "waiting for its first status"}
local st = obj.status
if st == nil or st.state == nil or st.state == "" then return hs end
hs.message = st.state
for _, c in ipairs(st.conditions or {}) do
  if c.status == "True" and c.type == "NIM_CACHE_RECONCILE_FAILED" and c.message ~= nil and c.message ~= "" then hs.message = c.message end
end
if st.state == "Ready" then return {status = "Healthy", message = st.state} end
return hs

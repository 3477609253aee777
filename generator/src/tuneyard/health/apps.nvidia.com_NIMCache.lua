-- Caches and builds: the operator retries and flaps between Failed and InProgress, so Failed is not Degraded.
local hs = {status = "Progressing", message = "waiting for its first status"}
local st, meta = obj.status, obj.metadata or {}
if st == nil or st.state == nil or st.state == "" then return hs end
hs.message = st.state
if st.state == "Ready" then return {status = "Healthy", message = st.state} end
for _, c in ipairs(st.conditions or {}) do
  if c.type == "NIM_CACHE_JOB_COMPLETED" and c.reason == "JobFailed" then
    hs.message = st.state .. ", a download has failed: kubectl logs -n " .. (meta.namespace or "") .. " job/" .. (meta.name or "") .. "-job"
  end
end
for _, c in ipairs(st.conditions or {}) do
  if c.status == "True" and c.type == "NIM_CACHE_RECONCILE_FAILED" and c.message ~= nil and c.message ~= "" then hs.message = c.message end
end
return hs

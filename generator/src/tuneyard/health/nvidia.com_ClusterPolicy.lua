-- The GPU Operator's objects: ready is not a proof of GPUs, so the Ready condition's reason is shown.
local hs = {status = "Progressing", message = "waiting for its first status"}
local st = obj.status
if st == nil or st.state == nil or st.state == "" then return hs end
hs.message = st.state
for _, c in ipairs(st.conditions or {}) do
  if c.status == "True" and c.type == "Error" and c.message ~= nil and c.message ~= "" then hs.message = c.message end
end
if st.state == "ready" then
  for _, c in ipairs(st.conditions or {}) do
    if c.type == "Ready" and c.reason ~= nil then hs.message = c.reason end
  end
  return {status = "Healthy", message = hs.message}
end
if st.state == "ignored" then return {status = "Degraded", message = "another ClusterPolicy exists; this one is ignored"} end
if st.state == "disabled" then return {status = "Suspended", message = st.state} end
return hs

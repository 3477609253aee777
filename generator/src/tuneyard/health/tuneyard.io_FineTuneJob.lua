-- A FineTuneJob in git: waiting is Progressing, a failure Degraded, and an end stays one whatever is edited after it.
local hs = {status = "Progressing", message = "not seen by the operator yet"}
local st = obj.status
if st == nil or st.conditions == nil then return hs end
hs.message = st.state or "accepted"
local refused = nil
for _, c in ipairs(st.conditions) do
  if c.type == "Succeeded" and c.status == "True" then return {status = "Healthy", message = c.message or ""} end
  if c.type == "Succeeded" and c.status == "False" then
    return {status = "Degraded", message = c.message or c.reason or "failed"}
  end
  local current = c.observedGeneration == nil or c.observedGeneration == obj.metadata.generation
  if current and c.type == "Accepted" and c.status == "False" then refused = c.message or c.reason or "refused" end
end
if obj.spec.suspend == true then return {status = "Suspended", message = "spec.suspend"} end
if refused ~= nil then return {status = "Degraded", message = refused} end
return hs

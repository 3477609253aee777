-- A FineTuneJob in git: waiting is Progressing, a failure Degraded; status is judged only for the generation it was made for.
local hs = {status = "Progressing", message = "not seen by the operator yet"}
local st = obj.status
if st == nil or st.conditions == nil then return hs end
if obj.spec.suspend == true then return {status = "Suspended", message = "spec.suspend"} end
hs.message = st.state or "accepted"
for _, c in ipairs(st.conditions) do
  local current = c.observedGeneration == nil or c.observedGeneration == obj.metadata.generation
  if current and c.type == "Succeeded" and c.status == "True" then return {status = "Healthy", message = c.message or ""} end
  if current and (c.type == "Succeeded" or c.type == "Accepted") and c.status == "False" then
    return {status = "Degraded", message = c.message or c.reason or "failed"}
  end
end
return hs

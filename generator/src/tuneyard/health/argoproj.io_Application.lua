-- argoproj.io/Application: a child is Healthy only for the spec that it has now, and only when that is synced.
-- Judges only Applications of this generator; all others are never waited for, as without any check.
local labels = obj.metadata.labels
if labels == nil or labels["tuneyard.io/environment"] == nil then return {status = "Healthy", message = ""} end
local hs = {status = "Progressing", message = "waiting for the first comparison"}
local function same(a, b)
  if type(a) ~= type(b) then return false end
  if type(a) ~= "table" then return a == b end
  for k, v in pairs(a) do if not same(v, b[k]) then return false end end
  for k in pairs(b) do if a[k] == nil then return false end end
  return true
end
local function current(o)   -- was this computed for the spec we see now?
  if o == nil then return true end
  if obj.spec.sources ~= nil then return o.sources == nil or same(obj.spec.sources, o.sources) end
  return o.source == nil or same(obj.spec.source, o.source)
end
local st = obj.status
if st == nil or st.sync == nil or st.health == nil or st.sync.comparedTo == nil then return hs end
if not current(st.sync.comparedTo) then hs.message = "status belongs to an older spec"; return hs end
local op = st.operationState
if op ~= nil and op.phase ~= "Succeeded" then
  if not current(op.operation ~= nil and op.operation.sync or nil) then hs.message = "last sync was of an older spec"; return hs end
  if op.phase == "Failed" or op.phase == "Error" or (op.retryCount or 0) >= 2 then
    return {status = "Degraded", message = op.message or "sync failed"}
  end
  hs.message = "sync running"; return hs
end
if obj.operation ~= nil then hs.message = "sync requested"; return hs end
if st.sync.status ~= "Synced" then hs.message = "sync status " .. (st.sync.status or "?"); return hs end
local h = st.health.status
if h == "Healthy" or h == "Suspended" or h == "Degraded" then hs.status = h; hs.message = st.health.message or ""; return hs end
hs.message = "health " .. (h or "?"); return hs

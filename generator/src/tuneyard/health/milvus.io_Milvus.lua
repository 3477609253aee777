-- Milvus of the Milvus operator: status.status as its API documents it (Pending, Healthy, Unhealthy, Deleting, Stopped).
local st = obj.status
if st == nil or st.status == nil then return {status = "Progressing", message = "waiting for its first status"} end
if st.status == "Healthy" then return {status = "Healthy", message = st.status} end
if st.status == "Stopped" then return {status = "Suspended", message = st.status} end
return {status = "Progressing", message = st.status}

-- The newest window of each group, by group: {members}, {rows} and {layers}.
local timeline, rows, layers = unpack(KEYS)
local call = redis.call
local answer = {{}, {}, {}}
local next_group = '-'
while true do
  local member = call('ZRANGEBYLEX', timeline, next_group, '+', 'LIMIT', 0, 1)[1]
  if not member then return answer end
  local group = string.sub(member, 1, -18)
  next_group = '(' .. group .. '\0\255'
  local last = call('ZREVRANGEBYLEX', timeline, next_group, '-', 'LIMIT', 0, 1)[1]
  local field = string.sub(last, -16) .. '\0' .. group
  table.insert(answer[1], field)
  table.insert(answer[2], call('HGET', rows, field))
  table.insert(answer[3], call('HGET', layers, field))
end

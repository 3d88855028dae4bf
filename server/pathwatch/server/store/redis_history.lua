-- Windows and signals of one moment. ARGV: lower bound of the windows' members, their upper bound, how many,
-- whether they are a group's, step that signals come after, how many signals.
-- Answers the run's row, its configuration, {members}, {rows}, {layers} and {signals}.
local run, windows, timeline, rows, layers, signals, signal_steps = unpack(KEYS)
local call = redis.call

local function values(key, fields)
  local found = {}
  for first = 1, #fields, 1000 do
    local part = call('HMGET', key, unpack(fields, first, math.min(first + 999, #fields)))
    for i = 1, #part do found[first + i - 1] = part[i] end
  end
  return found
end

local is_group = ARGV[4] == '1'
local fields = call('ZRANGEBYLEX', is_group and timeline or windows, ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])
if is_group then
  for i, member in ipairs(fields) do fields[i] = string.sub(member, -16) .. '\0' .. string.sub(member, 1, -18) end
end
local revisions = call('ZRANGEBYSCORE', signal_steps, '(' .. ARGV[5], '+inf')
table.sort(revisions, function(a, b) return tonumber(a) < tonumber(b) end)
local most = tonumber(ARGV[6])
if most >= 0 then
  for i = #revisions, most + 1, -1 do revisions[i] = nil end
end
return {
  call('HGET', run, 'row'), call('HGET', run, 'config'),
  fields, values(rows, fields), values(layers, fields), values(signals, revisions),
}

-- Few windows that stand for many, found by seeks. ARGV: points, step that they come after, whether layers are
-- wanted, groups. Answers the run's row, its configuration and, for each group, {members}, {rows}, {layers} and how
-- many windows there are; false where there is no such run.
local run, timeline, turns, rows, layers = unpack(KEYS)
local call = redis.call
local points, after = tonumber(ARGV[1]), tonumber(ARGV[2])
local with_layers = ARGV[3] == '1'

local function text(step) return string.format('%016d', step) end
local function step_of(member) return tonumber(string.sub(member, -16)) end

local function chosen(group)
  local low, high = '[' .. group .. '\0' .. text(math.max(0, after + 1)), '(' .. group .. '\0\255'
  local count = call('ZLEXCOUNT', timeline, low, high)
  if count <= points then return call('ZRANGEBYLEX', timeline, low, high), count end
  local first = call('ZRANGEBYLEX', timeline, low, high, 'LIMIT', 0, 1)[1]
  local last = call('ZREVRANGEBYLEX', timeline, high, low, 'LIMIT', 0, 1)[1]
  local wanted = call('ZRANGEBYLEX', turns, '(' .. first, high, 'LIMIT', 0, points)
  local kept, number = {}, 0
  local function keep(member)
    if not kept[member] then
      kept[member] = true
      number = number + 1
    end
  end
  for _, member in ipairs({first, last}) do keep(member) end
  for _, member in ipairs(wanted) do keep(member) end
  if number > points then
    kept, number = {}, 0
    keep(first)
    keep(last)
  end
  local between = points - number
  local from, to = step_of(first), step_of(last)
  for i = 1, between do
    local step = from + math.floor((to - from) * i / (between + 1))
    keep(call('ZRANGEBYLEX', timeline, '[' .. group .. '\0' .. text(step), high, 'LIMIT', 0, 1)[1])
  end
  local members = {}
  for member in pairs(kept) do members[#members + 1] = member end
  table.sort(members)
  return members, count
end

local row = call('HGET', run, 'row')
if not row then return false end
local answer = {row, call('HGET', run, 'config')}
for i = 4, #ARGV do
  local members, count = chosen(ARGV[i])
  local found = {members, {}, {}, count}
  for number, member in ipairs(members) do
    local field = string.sub(member, -16) .. '\0' .. string.sub(member, 1, -18)
    members[number] = field
    found[2][number] = call('HGET', rows, field)
    found[3][number] = with_layers and call('HGET', layers, field) or '[]'
  end
  answer[#answer + 1] = found
end
return answer

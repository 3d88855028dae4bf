-- Applies one commit of one run, whole or not at all. KEYS: those of redis_keys.KINDS.
-- ARGV: epoch, owner and milliseconds of the lease that is held ('' = no lease is looked at), mark of the commit,
-- how many marks it may follow, those, and its writes.
-- Answers APPLIED, AGAIN (it was applied already), AT, the mark found and who else has the lease ('' = nobody), or
-- FENCED and epoch and owner found.
local commits, run, ranks, sessions = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local batches, batch_steps, geometries, partial_rounds = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local windows, timeline, turns, rows, layers, remains = KEYS[9], KEYS[10], KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local observations, observed, checkpoints = KEYS[15], KEYS[16], KEYS[17]
local signals, revisions, signal_steps, lease = KEYS[18], KEYS[19], KEYS[20], KEYS[21]
local call, sub, match = redis.call, string.sub, string.match

local epoch, owner, lasts, mark = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local is_lease_lost, now, other = false, 0, ''
if epoch ~= '' then
  local function number(of) return tonumber(match(of, '^%d+')) or 0 end
  local held, by, ends = unpack(call('HMGET', lease, 'epoch', 'owner', 'until'))
  held, by = held or '', by or ''
  -- Numbers only grow: below this one, Redis has lost its newest, this lease among them.
  is_lease_lost = number(held) < number(epoch)
  if held ~= epoch and not is_lease_lost then return {'FENCED', held, by} end
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
  if by ~= owner and (tonumber(ends or '') or 0) > now then other = by end
end
local found = call('GET', commits) or ''
local at, fits = 6 + tonumber(ARGV[5]), found == mark
for i = 6, at - 1 do fits = fits or ARGV[i] == found end
if not fits then return {'AT', found, other} end
if is_lease_lost then
  -- Put back only here: whoever has taken the run since, and written, has left another mark.
  call('HSET', lease, 'epoch', epoch, 'owner', owner, 'until', string.format('%.0f', now + lasts))
end
if found == mark then
  -- A write, for WAIT to wait for.
  call('SET', commits, mark, 'KEEPTTL')
  return {'AGAIN', mark}
end

local function take()
  at = at + 1
  return ARGV[at - 1]
end
local function take_number() return tonumber(take()) end

local function drop_batches(low, high, below)
  for _, id in ipairs(call('ZRANGEBYSCORE', batch_steps, low, high)) do
    if tonumber(match(id, '^%d+:%d+:(%d+):')) < below then
      call('ZREM', batch_steps, id)
      call('HDEL', batches, id)
    end
  end
end

-- Fields of a hash that begin with an attempt, and a step where there is one.
local function drop_fields(key, is_over)
  for _, field in ipairs(call('HKEYS', key)) do
    local attempt, step = match(field, '^(%d+):?(%d*)')
    if is_over(tonumber(attempt), tonumber(step)) then call('HDEL', key, field) end
  end
end

local function field_of(member) return sub(member, -16) .. '\0' .. sub(member, 1, -18) end
local function phase_at(member) return match(call('HGET', rows, field_of(member)), '^%-?%d+ (%-?%d+) ') end

local function note_turn(member, group)
  local before = call('ZREVRANGEBYLEX', timeline, '(' .. member, '[' .. group .. '\0', 'LIMIT', 0, 1)[1]
  if before and phase_at(before) ~= phase_at(member) then
    call('ZADD', turns, 0, member)
  else
    call('ZREM', turns, member)
  end
end

local function note_turn_after(bound, group)
  local after = call('ZRANGEBYLEX', timeline, bound, '(' .. group .. '\0\255', 'LIMIT', 0, 1)[1]
  if after then note_turn(after, group) end
end

local function drop_observation(member)
  call('ZREM', observed, member)
  for piece = 1, tonumber(match(member, '%d+$')) do call('HDEL', observations, member .. ':' .. piece) end
end

local apply = {}

function apply.run() call('HSET', run, 'row', take(), 'config', take()) end

function apply.put()
  local key = KEYS[take_number()]
  call('HSET', key, take(), take())
end

function apply.remove()
  local key = KEYS[take_number()]
  call('HDEL', key, take())
end

function apply.batch()
  local id, step = take(), take()
  call('HSET', batches, id, take())
  call('ZADD', batch_steps, step, id)
end

function apply.window()
  local step, group = take(), take()
  local field, member = step .. '\0' .. group, group .. '\0' .. step
  call('HSET', rows, field, take())
  call('HSET', layers, field, take())
  call('HSET', remains, field, take())
  call('ZADD', windows, 0, field)
  call('ZADD', timeline, 0, member)
  note_turn(member, group)
  note_turn_after('(' .. member, group)
end

function apply.keep()
  local step, member = take(), take()
  for _, old in ipairs(call('ZRANGEBYSCORE', observed, step, step)) do drop_observation(old) end
  for piece = 1, tonumber(match(member, '%d+$')) do
    call('HSET', observations, member .. ':' .. piece, take())
  end
  call('ZADD', observed, step, member)
end

function apply.judged()
  local attempt, step = take_number(), take_number()
  drop_batches('-inf', step, attempt + 1)
  drop_fields(partial_rounds, function(a, s) return a <= attempt and s <= step end)
  -- The attempt's newest geometry at or before this round holds for the next one too.
  local newest = -1
  for _, field in ipairs(call('HKEYS', geometries)) do
    local a, s = match(field, '^(%d+):(%d+)')
    if tonumber(a) == attempt and tonumber(s) <= step then newest = math.max(newest, tonumber(s)) end
  end
  drop_fields(geometries, function(a, s) return a < attempt or (a == attempt and s < newest) end)
end

function apply.signal()
  local revision, step, value = take(), take(), take()
  if call('HSETNX', signals, revision, value) == 1 then
    call('ZADD', revisions, revision, revision)
    call('ZADD', signal_steps, step, revision)
  end
  call('HSET', run, 'signal', value)
end

function apply.attempt()
  local attempt, closed = take_number(), take()
  drop_fields(ranks, function(a) return a < attempt end)
  drop_fields(sessions, function(a) return a < attempt end)
  drop_batches('(' .. closed, '+inf', attempt)
end

function apply.rewind()
  local attempt, first, first_text, first_in_window = take_number(), take_number(), take(), take()
  local function is_over(a, s) return a < attempt and s >= first end
  local groups = {}
  for _, field in ipairs(call('ZRANGEBYLEX', windows, '[' .. first_text, '+')) do
    if tonumber(match(call('HGET', rows, field), '^%-?%d+')) < attempt then
      local group = sub(field, 18)
      local member = group .. '\0' .. sub(field, 1, 16)
      groups[group] = true
      call('ZREM', windows, field)
      call('ZREM', timeline, member)
      call('ZREM', turns, member)
      for _, key in ipairs({rows, layers, remains}) do call('HDEL', key, field) end
    end
  end
  for group in pairs(groups) do note_turn_after('[' .. group .. '\0' .. first_text, group) end
  for _, member in ipairs(call('ZRANGEBYSCORE', observed, first, '+inf')) do
    if tonumber(match(member, '^%d+')) < attempt then drop_observation(member) end
  end
  for _, key in ipairs({checkpoints, geometries, partial_rounds}) do drop_fields(key, is_over) end
  drop_batches(first_in_window, '+inf', attempt)
end

local is_gone = false

function apply.delete()
  for _, key in ipairs(KEYS) do
    if key ~= commits and key ~= lease then call('DEL', key) end
  end
  is_gone = true
end

while at <= #ARGV do
  is_gone = false
  apply[take()]()
end
if is_gone then
  -- Of a run that is gone the mark stays a while: a commit that comes late is still refused.
  call('SET', commits, mark, 'EX', 3600)
else
  call('SET', commits, mark)
end
return {'APPLIED', mark}

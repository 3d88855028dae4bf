-- Takes, renews or lets go of the lease of a run. KEYS: lease, run.
-- ARGV: take, renew or release; HOST:PORT of who asks; a new token, else the epoch that is held; for how many
-- milliseconds. Answers HELD and the epoch, or OTHER, the owner and for how many milliseconds it still has it.
local lease, run = KEYS[1], KEYS[2]
local what, own, epoch, lasts = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local call = redis.call

-- Redis's own clock: those of the servers may differ.
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stored, owner, ends = unpack(call('HMGET', lease, 'epoch', 'owner', 'until'))
stored, owner = stored or '', owner or ''
local left = math.max(0, (tonumber(ends or '') or 0) - now)

local function number(of) return tonumber(string.match(of, '^%d+')) or 0 end

local function put(new, by, milliseconds)
  call('HSET', lease, 'epoch', new, 'owner', by, 'until', string.format('%.0f', now + milliseconds))
  -- Numbers grow as long as there is a run, and longer than anybody may have been paused who had it.
  if call('EXISTS', run) == 1 then call('PERSIST', lease) else call('EXPIRE', lease, 86400) end
  return {'HELD', new}
end

if what == 'take' then
  if owner ~= '' and owner ~= own and left > 0 then return {'OTHER', owner, left} end
  return put(number(stored) + 1 .. '-' .. epoch, own, lasts)
end
-- With a number below that of the asker, Redis has lost its newest: it is put back, but where somebody else has the
-- run, who may have taken it since. Whether he has written, a write can tell (redis_write.lua).
local is_lost = number(stored) < number(epoch) and (owner == '' or owner == own or left == 0)
local is_askers = (stored == epoch and owner ~= '') or is_lost
if not is_askers then return {'OTHER', owner, left} end
if what == 'release' then return put(epoch, '', 0) end
return put(epoch, own, lasts)

-- Counts a request unless a limit is in the way: everything or nothing.
-- Stands after the scripts of `limits` for moving windows, given as the functions `acquire` (counts
-- one hit) and `counted` (the oldest in the window, and how many lie in it).
--
-- KEYS: the request's mark; of its key: hits, tokens, their sum, running; the budget;
--       of its address: hits, running; the epoch.
-- ARGV: id, tokens, six limits (-1: none; hits, tokens, running, budget, address hits, address
--       running), seconds left of the budget's period (-1: no end), replica, seconds that a running
--       request is believed, age in seconds (-1: a question; else it was admitted that long ago
--       while we were out of reach, and its budget is counted apart), the epoch that it is asked of.
-- Error: FORGOTTEN, to a question of another epoch or of one that is not trusted yet (beat.lua).
-- Returns: reason ('': admitted), seconds to wait (-1: for ever), counts of the six, and how long
--       ago the newest hit and the newest tokens of the key were.
local mark, hits, tokens, sum, running, budget, address_hits, address_running, epoch = unpack(KEYS)
local id, amount, replica = ARGV[1], tonumber(ARGV[2]), ARGV[10]
local limit = {}
for i = 1, 6 do limit[i] = tonumber(ARGV[i + 2]) end
local period_left, believed, age = tonumber(ARGV[9]), tonumber(ARGV[11]), tonumber(ARGV[12])
local WINDOW, GUESS = 60, 1
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local function exact(number) return string.format('%.6f', number) end

if age < 0 then
  local id, trusted = unpack(redis.call('HMGET', epoch, 'id', 'trusted'))
  if id ~= ARGV[13] or tonumber(trusted) > now then
    return redis.error_reply('FORGOTTEN what was admitted before may not be here')
  end
end

local function count_hits(key, most)
  if most < 0 then return 0 end
  local found = counted({key}, {now - WINDOW, most})
  return found and found[2] or 0
end

local function sweep_tokens()
  if limit[2] < 0 then return 0 end
  local old = redis.call('ZRANGEBYSCORE', tokens, '-inf', '(' .. exact(now - WINDOW))
  for _, member in ipairs(old) do
    redis.call('DECRBY', sum, string.match(member, '%d+$'))
    redis.call('ZREM', tokens, member)
  end
  if redis.call('EXISTS', tokens) == 0 then redis.call('DEL', sum) end
  return tonumber(redis.call('GET', sum) or 0)
end

local function count_running(key, most)
  if most < 0 then return 0 end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', exact(now))
  return redis.call('ZCARD', key)
end

local used = {
  count_hits(hits, limit[1]), sweep_tokens(), count_running(running, limit[3]),
  limit[4] < 0 and 0 or tonumber(redis.call('HGET', budget, 'sum') or 0),
  count_hits(address_hits, limit[5]), count_running(address_running, limit[6]),
}

local function reply(reason, wait)
  local newest_hit = limit[1] >= 0 and redis.call('LINDEX', hits, 0) or now - WINDOW
  local newest_tokens = limit[2] >= 0 and redis.call('ZRANGE', tokens, -1, -1, 'WITHSCORES')[2]
  return {reason, exact(wait), used[1], used[2], used[3], used[4], used[5], used[6],
    exact(now - newest_hit), exact(now - (newest_tokens or now - WINDOW))}
end

-- Marked: the same question came twice, or the request ended before we heard of it.
if redis.call('EXISTS', mark) == 1 then return reply('', 0) end

if age < 0 then
  local why, longest = '', 0
  local function refuse(reason, wait)
    wait = wait < 0 and wait or math.max(wait, 1e-6)
    if longest >= 0 and (wait < 0 or wait > longest) then why, longest = reason, wait end
  end
  local function wait_for_hits(key, most)
    if most < 1 then return -1 end
    return tonumber(redis.call('LINDEX', key, most - 1)) + WINDOW - now
  end
  local function wait_for_tokens()
    local over = used[2] + amount - limit[2]
    if amount > limit[2] then return -1 end
    local entries = redis.call('ZRANGE', tokens, 0, -1, 'WITHSCORES')
    for i = 1, #entries, 2 do
      over = over - tonumber(string.match(entries[i], '%d+$'))
      if over <= 0 then return tonumber(entries[i + 1]) + WINDOW - now end
    end
    return -1
  end
  local function full(i, more) return limit[i] >= 0 and used[i] + more > limit[i] end
  if full(1, 1) then refuse('rate_limit', wait_for_hits(hits, limit[1])) end
  if full(2, amount) then refuse('token_limit', wait_for_tokens()) end
  if full(3, 1) then refuse('concurrency', GUESS) end
  if full(4, amount) then refuse('budget', amount > limit[4] and -1 or period_left) end
  if full(5, 1) then refuse('address_rate_limit', wait_for_hits(address_hits, limit[5])) end
  if full(6, 1) then refuse('address_concurrency', GUESS) end
  if why ~= '' then return reply(why, longest) end
end

local function hit(key, most)
  if most < 0 then return end
  if age < 0 then
    acquire({key}, {now, most, WINDOW, 1})
  elseif age < WINDOW then
    -- Late entries take their place in time: `limits` finds the oldest by its position.
    local low, high = 0, redis.call('LLEN', key)
    while low < high do
      local middle = math.floor((low + high) / 2)
      if tonumber(redis.call('LINDEX', key, middle)) > now - age then
        low = middle + 1
      else
        high = middle
      end
    end
    local older = redis.call('LINDEX', key, low)
    if older then
      redis.call('LINSERT', key, 'BEFORE', older, exact(now - age))
    else
      redis.call('RPUSH', key, exact(now - age))
    end
    redis.call('EXPIRE', key, WINDOW)
  end
end

hit(hits, limit[1])
hit(address_hits, limit[5])
if limit[2] >= 0 and age < WINDOW then
  redis.call('ZADD', tokens, exact(now - math.max(age, 0)), id .. ':' .. amount)
  redis.call('INCRBY', sum, amount)
  redis.call('EXPIRE', tokens, 2 * WINDOW)
  redis.call('EXPIRE', sum, 2 * WINDOW)
end
for i, key in pairs({[3] = running, [6] = address_running}) do
  if limit[i] >= 0 then
    redis.call('ZADD', key, exact(now + believed), id)
    redis.call('EXPIRE', key, 2 * believed)
  end
end
if limit[4] >= 0 and age < 0 then
  redis.call('HINCRBY', budget, 'sum', amount)
  redis.call('HINCRBY', budget, replica, amount)
  if period_left >= 0 then redis.call('EXPIRE', budget, math.ceil(period_left) + 86400) end
end
redis.call('SET', mark, 'open', 'EX', 86400)
for i, more in ipairs({1, amount, 1, amount, 1, 1}) do
  if limit[i] >= 0 then used[i] = used[i] + more end
end
return reply('', 0)

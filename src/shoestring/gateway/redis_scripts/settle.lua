-- Frees what a request held and counts what it used, once, however often it is told.
-- A request that is not known is marked as settled: it may come later than its end.
--
-- KEYS: as in admit.lua. ARGV: id, tokens set aside, tokens used, age in seconds of the end, whether
--       tokens a minute are counted, replica ('': the budget is counted apart).
local mark, _, tokens, sum, running, budget, _, address_running = unpack(KEYS)
local id, aside, used = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local ended, counts_tokens, replica = tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6]
if redis.call('SET', mark, 'settled', 'EX', 120, 'GET') ~= 'open' then return 0 end
redis.call('ZREM', running, id)
redis.call('ZREM', address_running, id)
if counts_tokens then
  local member = id .. ':' .. aside
  local at = redis.call('ZSCORE', tokens, member)
  if used > aside then
    local time = redis.call('TIME')
    local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
    redis.call('ZADD', tokens, string.format('%.6f', now - ended), id .. ':more:' .. used - aside)
    redis.call('INCRBY', sum, used - aside)
    redis.call('EXPIRE', tokens, 120)
    redis.call('EXPIRE', sum, 120)
  elseif at then
    redis.call('ZREM', tokens, member)
    redis.call('ZADD', tokens, at, id .. ':' .. used)
    redis.call('DECRBY', sum, aside - used)
  end
end
if replica ~= '' and redis.call('EXISTS', budget) == 1 then
  redis.call('HINCRBY', budget, 'sum', used - aside)
  redis.call('HINCRBY', budget, replica, used - aside)
end
return 1

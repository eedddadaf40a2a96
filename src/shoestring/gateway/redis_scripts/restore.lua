-- Sets what one replica spent of a budget; what Redis knows of it already is not counted twice.
--
-- KEYS: the budget. ARGV: replica, tokens that it spent, seconds to keep it (-1: for good).
local known = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0)
redis.call('HINCRBY', KEYS[1], 'sum', tonumber(ARGV[2]) - known)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if tonumber(ARGV[3]) >= 0 then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return redis.call('HGET', KEYS[1], 'sum')

-- A replica says that it lives, and what runs there; or that it ends (believed for less than 0 s).
-- Who has ended is remembered for as long as what it admitted lies in a window.
--
-- KEYS: the replicas; then for each running request the set that it is counted in.
-- ARGV: replica, seconds that it is believed, seconds that a running request is believed; then the
--       requests' ids.
-- Returns: 1 if it was known before, how many replicas live, and how many are remembered besides.
local replica, believed, request_believed = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local WINDOW = 60
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
for i = 2, #KEYS do
  redis.call('ZADD', KEYS[i], string.format('%.6f', now + request_believed), ARGV[i + 2])
  redis.call('EXPIRE', KEYS[i], 2 * request_believed)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now - WINDOW))
local added = redis.call('ZADD', KEYS[1], string.format('%.6f', now + believed), replica)
local living = redis.call('ZCOUNT', KEYS[1], '(' .. string.format('%.6f', now), '+inf')
return {1 - added, living, redis.call('ZCARD', KEYS[1]) - living}

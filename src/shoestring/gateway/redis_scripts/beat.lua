-- A replica says that it lives, and what runs there.
-- The epoch stands for all that was counted here: it is another one where Redis came back empty.
-- Who comes from another epoch has told what it had admitted, and names whom it had seen in the
-- last minute. Until all of these have told, too, this epoch is not trusted; who has ended since
-- cannot, and then it is not until what that one had admitted lies in no window any more.
--
-- KEYS: the replicas; the epoch; who is awaited; who has told; then for each running request the
--       set that it is counted in.
-- ARGV: replica, seconds that it is believed, seconds that a running request is believed, the epoch
--       that it comes from ('': none), a name for a new one, seconds of distrust, how many it had
--       seen, and who; then the requests' ids.
-- Returns: the epoch, seconds until it is trusted, and the replicas that live.
local replica, believed, request_believed = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local from, new, distrust, seen = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local function exact(number) return string.format('%.6f', number) end

for i = 5, #KEYS do
  redis.call('ZADD', KEYS[i], exact(now + request_believed), ARGV[seen + i + 3])
  redis.call('EXPIRE', KEYS[i], 2 * request_believed)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', exact(now))
redis.call('ZADD', KEYS[1], exact(now + believed), replica)
if redis.call('HSETNX', KEYS[2], 'id', new) == 1 then
  redis.call('HSET', KEYS[2], 'trusted', exact(now))
end
local epoch, trusted = unpack(redis.call('HMGET', KEYS[2], 'id', 'trusted'))
if from ~= '' and from ~= epoch then
  trusted = exact(math.max(tonumber(trusted), now + distrust))
  if seen > 0 then
    redis.call('SADD', KEYS[3], unpack(ARGV, 8, 7 + seen))
    redis.call('SADD', KEYS[4], replica)
    if #redis.call('SDIFF', KEYS[3], KEYS[4]) == 0 then trusted = exact(now) end
    redis.call('EXPIRE', KEYS[3], 86400)
    redis.call('EXPIRE', KEYS[4], 86400)
  end
  redis.call('HSET', KEYS[2], 'trusted', trusted)
end
local left = math.max(0, tonumber(trusted) - now)
return {epoch, exact(left), redis.call('ZRANGE', KEYS[1], 0, -1)}

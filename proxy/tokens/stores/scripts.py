"""What Redis does in one step for the store, in Lua. Every key of an identity has the same hash tag, for Cluster.

The pair's key holds the sealed pair. The lock's holds ``TOKEN NUMBER ORPHANED`` for as long as somebody holds it, and
expires with a dead holder. The fence's outlives both: ``NUMBER TOKEN held|free``, of whoever had the lock last. It is
what refuses the save of a holder whose lock ran out and was taken by somebody else, and what tells the next holder
that the last one never came back. All three are gone after a loss of data; nobody can be ahead of the holder then.
"""

from typing import Final

ACQUIRE: Final = """
local held = redis.call('GET', KEYS[1])
if held then
  local token, number, orphaned = held:match('^(%S+) (%d+) (%d)$')
  if token == ARGV[1] then return {tonumber(number), tonumber(orphaned)} end
  return {0, 0}
end
local number, state = (redis.call('GET', KEYS[2]) or ''):match('^(%d+) %S+ (%a+)$')
local orphaned = state == 'held' and 1 or 0
number = string.format('%d', (tonumber(number) or 0) + 1)
redis.call('SET', KEYS[2], number .. ' ' .. ARGV[1] .. ' held', 'PX', ARGV[3])
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. number .. ' ' .. orphaned, 'PX', ARGV[2])
return {tonumber(number), orphaned}
"""
"""Keys: lock, fence. Arguments: token, lease and the fence's life in ms. Answers number and orphaned; 0, 0: busy."""

RENEW: Final = """
local held = redis.call('GET', KEYS[1])
if held then
  if held:match('^%S+') ~= ARGV[1] then return 0 end
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
local last = redis.call('GET', KEYS[2])
if last and last:match('^%d+ (%S+)') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[4] .. ' ' .. ARGV[1] .. ' held', 'PX', ARGV[3])
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[4] .. ' 0', 'PX', ARGV[2])
return 1
"""
"""Keys: lock, fence. Arguments: token, lease and the fence's life in ms, number. Answers 1; 0: lost. A lock that ran
out, or went down with Redis, and that nobody took meanwhile is taken up again."""

SAVE: Final = """
local number, token = (redis.call('GET', KEYS[3]) or ''):match('^(%d+) (%S+)')
if ARGV[1] == '' then
  if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
  number = string.format('%d', (tonumber(number) or 0) + 1)
  redis.call('SET', KEYS[3], number .. ' - free', 'PX', ARGV[5])
elseif token and token ~= ARGV[1] then
  return 0
end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
redis.pcall('PUBLISH', ARGV[4], '')
return 1
"""
"""Keys: pair, lock, fence. Arguments: token (empty: without the lock), value, its life in ms (0: no end), channel, the
fence's life in ms. Answers 1; 0: the lock is somebody else's. A user who may not publish still saves."""

RELEASE: Final = """
local number, token = (redis.call('GET', KEYS[2]) or ''):match('^(%d+) (%S+)')
if token == ARGV[1] and ARGV[2] == '1' then
  redis.call('SET', KEYS[2], number .. ' ' .. token .. ' free', 'PX', ARGV[3])
end
if (redis.call('GET', KEYS[1]) or ''):match('^%S+') == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""
"""Keys: lock, fence. Arguments: token, 1: what was got is saved, the fence's life in ms. Compares, then deletes."""

FORGET: Final = """
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', ARGV[1], '')
return 1
"""
"""Keys: pair. Arguments: channel."""

ASIDE: Final = """
if redis.call('GETRANGE', KEYS[1], 0, -1 + #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
"""
"""Keys: pair, where to. Arguments: what the pair's key was seen to begin with, how long to keep it in ms. Answers 1;
0: it holds something else by now."""

-- Sends requests made beforehand, one after the other and round again, and prints what came of it as one line of JSON.
-- wrk … -s drive.lua URL -- FILE START: the file holds, for each request, its length, a line feed, and its bytes.

local calls = {}
local at = 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  while true do
    local length = file:read("*n")
    if not length then break end
    file:read(1)
    calls[#calls + 1] = file:read(length)
  end
  file:close()
  at = tonumber(args[2] or "0")
end

function request()
  local call = calls[at % #calls + 1]
  at = at + 1
  return call
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"seconds": %.6f, "requests": %d, "bytes": %d, "p50": %.6f, "p99": %.6f, "refused": %d, "broken": %d}\n',
    summary.duration / 1e6, summary.requests, summary.bytes, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end

-- The demo's configuration: read by nginx (LuaJIT) and by the reconciler (Lua 5.4) alike.
return {
  store = "@DIR@/store",
  api_key = "demo-key",
  base_url = "@PROVIDER@",
  hook_url = "http://127.0.0.1:@PORT@/webhooks/midjourney",
  secrets = { "a secret for the demo only, 0123456789" },
  poll = { first = 2, max = 4 }, -- seconds; a minute is too long for a demo
  policy = "policy.lua",
}

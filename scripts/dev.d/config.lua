-- Written by mjhook dev at each start, for nginx, the reconciler and the command line.  policy.lua is yours.
return {
  store = "store",
  api_key = "dev-key",
  base_url = "@PROVIDER@",
  hook_url = "http://127.0.0.1:@PORT@/webhooks/midjourney",
  secrets_file = "secrets",
  policy = "policy.lua",
  -- Seconds, so that a lost callback is noticed, and a job given up, while one looks on.
  poll = { first = 2, max = 2, learn = false },
  lost_after = 8,
}

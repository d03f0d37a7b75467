--- A provider for measurements of what asks it. It keeps no books and checks nothing: each submission is accepted, and
-- each job that it is asked about has ended. So it takes a small part of the processor time that scripts/simulator
-- takes, which answers the same.
local M = {}

local CONF = [[
load_module @MODULES@/ndk_http_module.so;
load_module @MODULES@/ngx_http_lua_module.so;
@USER@
worker_processes 1;
pid @DIR@/nginx.pid;
error_log @DIR@/error.log warn;
events { worker_connections 1024; }
http {
  access_log off;
  server_tokens off;
  default_type application/json;
  keepalive_requests 1000000000;
  client_max_body_size 2m; client_body_buffer_size 2m;
  client_body_temp_path @DIR@/body; proxy_temp_path @DIR@/proxy; fastcgi_temp_path @DIR@/fastcgi;
  uwsgi_temp_path @DIR@/uwsgi; scgi_temp_path @DIR@/scgi;
  init_by_lua_block {
    local submitted = 0

    local function send(text)
      ngx.header.content_length = #text
      ngx.print(text)
    end

    function submit()
      ngx.req.read_body()
      submitted = submitted + 1
      send(('{"status":0,"message":"success","data":{"taskId":"S%020d"}}'):format(submitted))
    end

    local function job(id)
      local at = '"http://127.0.0.1:@PORT@/images/' .. id
      return '{"taskId":"' .. id .. '","status":1,"jobId":"3dbbd469-36af-4a0f-8f02-df6c579e7011","image":' .. at
        .. '/grid.png","images":[' .. at .. '/0.png",' .. at .. '/1.png",' .. at .. '/2.png",' .. at
        .. '/3.png"],"prompt":"a red fox in the snow","mjPrompt":"a red fox in the snow","failReason":"",'
        .. '"createdAt":1776211200000,"meta":{"width":64,"height":64}}'
    end

    function status()
      ngx.req.read_body()
      local jobs = {}
      for id in ngx.req.get_body_data():match("%[(.*)%]"):gmatch '"([^"]+)"' do
        jobs[#jobs + 1] = job(id)
      end
      send('{"status":0,"message":"success","data":[' .. table.concat(jobs, ",") .. "]}")
    end
  }
  server {
    listen 127.0.0.1:@PORT@ backlog=1024;
    location = /ping { return 200 "pong\n"; }
    location = /midjourney/v1/submit-jobs { content_by_lua_block { submit() } }
    location = /midjourney/v1/job-status { content_by_lua_block { status() } }
  }
}
]]

--- Starts it; kit.finish() ends it.
-- @tparam table kit callback_kit
-- @treturn string its URL
function M.start(kit)
  local dir = kit.dir .. "/provider"
  kit.must(kit.sh("mkdir -p " .. dir))
  return kit.start_server(dir, CONF, { PORT = kit.free_port() })
end

return M

--- The provider's view of a job: the task object of status answers and callbacks.

local settings = require "settings"
local cjson = require "cjson"

local cfg = settings.values
local null = cjson.null

local _M = {}

local function uuid(id)
    local hex = ngx.md5(id)
    return hex:sub(1, 8) .. "-" .. hex:sub(9, 12) .. "-4" .. hex:sub(14, 16)
           .. "-a" .. hex:sub(18, 20) .. "-" .. hex:sub(21, 32)
end

local function plain(job, status)
    local task = {
        taskId = job.id,
        status = status,
        prompt = job.prompt,
        mjPrompt = job.prompt,
        failReason = "",
        createdAt = job.accepted_at,
    }
    if status == 1 then
        local at = cfg.image_base .. "/images/" .. job.id .. "/"
        task.jobId = uuid(job.id)
        task.image = at .. "grid.png"
        task.images = { at .. "0.png", at .. "1.png", at .. "2.png", at .. "3.png" }
        task.meta = { width = cfg.image_size, height = cfg.image_size }
    elseif status == 2 then
        task.failReason = job.reason or "failed"
    end
    return task
end

local damage = {
    empty_image = function(task)
        task.image, task.images = "", nil
    end,
    string_numbers = function(task)
        task.status = tostring(task.status)
        task.createdAt = ("%.0f"):format(task.createdAt)
        if task.meta then
            task.meta = { width = tostring(cfg.image_size), height = tostring(cfg.image_size) }
        end
    end,
    nulls = function(task)
        for _, name in ipairs { "jobId", "image", "images", "prompt", "mjPrompt",
                                "failReason", "createdAt", "meta" } do
            task[name] = null
        end
    end,
    sparse = function(task)
        for name in pairs(task) do
            if name ~= "taskId" and name ~= "status" then
                task[name] = nil
            end
        end
    end,
    image_objects = function(task)
        for i, url in ipairs(task.images or {}) do
            task.images[i] = { url = url }
        end
    end,
    odd_urls = function(task)
        for i, url in ipairs(task.images or {}) do
            local odd = { url .. "?name=a red fox", url .. "?name=füchse", url:gsub("^http", "HTTP"), "//" .. url }
            task.images[i] = odd[i]
        end
    end,
    odd_status = function(task)
        task.status = 7
    end,
    odd_types = function(task)
        task.status, task.image, task.images, task.meta = { 1 }, 42, "none", false
    end,
}

--- The task object; `kind` names its damage, `status` overrules the job's.
function _M.object(job, kind, status)
    local task = plain(job, status or job.status)
    if damage[kind] then
        damage[kind](task)
    end
    return task
end

return _M

--- The provider's view of a job: the task object of status answers and callbacks.
-- Its names are written out, though mjhook.core has them: the simulator is the tests' own opinion of the provider, and
-- would otherwise agree with every mistake.

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

local WORDS = { [0] = "IN_PROGRESS", "SUCCESS", "FAILURE" }

local function change_urls(task, change)
    task.image = task.image and change(task.image)
    for i, url in ipairs(task.images or {}) do
        task.images[i] = change(url)
    end
end

local damage = {
    word_status = function(task)
        task.status = WORDS[task.status]
    end,
    unknown_word = function(task)
        task.status = "WAITING_FOR_A_GPU"
    end,
    no_status = function(task)
        task.status = nil
    end,
    job_id = function(task)
        task.jobId, task.taskId = task.taskId, nil
    end,
    message_reason = function(task)
        task.message, task.failReason = task.failReason, nil
    end,
    error_reason = function(task)
        task.error, task.failReason = { message = task.failReason }, nil
    end,
    upper_urls = function(task)
        change_urls(task, function(url)
            return (url:gsub("^%l+", string.upper))
        end)
    end,
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
    image_map = function(task)
        local map = {}
        for i, url in ipairs(task.images or {}) do
            map[tostring(i)] = url
        end
        task.images = next(map) and map or nil
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

-- A member that makes the text around it unreadable, or too long.
local sick = {
    nan = function()
        return '"meta":{"seed":NaN}'
    end,
    bad_escape = function()
        return '"note":"\\x41"'
    end,
    deep = function()
        return '"note":' .. ("["):rep(100) .. ("]"):rep(100)
    end,
    giant = function()
        return '"note":"' .. ("x"):rep(5 * 1024 * 1024) .. '"'
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

--- The text of a task object, given as by object(); `kind` also names what makes it unreadable.
function _M.text(object, kind)
    local text = cjson.encode(object)
    if sick[kind] then
        text = text:sub(1, -2) .. "," .. sick[kind]() .. "}"
    end
    return cfg.integer_ids and _M.with_integer_ids(text) or text
end

--- Ids of digits alone as numbers.
function _M.with_integer_ids(text)
    return (text:gsub('("taskId":)"(%d+)"', "%1%2"):gsub('("jobId":)"(%d+)"', "%1%2"))
end

--- The body of a callback as resellers of the same shape send it; `status` overrules the job's.
function _M.reseller(job, kind, status, progress)
    local inner = _M.object(job, kind, status)
    local words = { [0] = progress == 0 and "PENDING_QUEUE" or "ON_QUEUE", "SUCCESS", "FAILED" }
    local outer = {
        status = words[inner.status] or inner.status, jobId = job.id,
        message = job.status == 2 and job.reason or "success",
        data = { jobId = job.id, progress = tostring(progress), cdnImage = inner.image, images = inner.images },
    }
    return _M.text(outer, kind)
end

return _M

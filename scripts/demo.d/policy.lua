-- The demo's policy: writes one line for each event that reaches it.
return {
  on_event = function(task, ctx)
    local file = assert(io.open("@DIR@/events", "a"))
    file:write(("%s %s %s\n"):format(ctx.event_id, ctx.type, task.ref))
    file:close()
  end,
}

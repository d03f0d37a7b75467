--- Calls f without LuaJIT's compiler: compiled code runs no hooks, neither the code of f nor what it calls, so nothing
-- could interrupt it.
-- @tparam function f which does not raise
-- @return what f gives, at most four values
return function(f, ...)
  local compiled = jit and jit.status()
  if compiled then
    jit.off()
    jit.flush()
  end
  local a, b, c, d = f(...)
  if compiled then
    jit.on()
  end
  return a, b, c, d
end

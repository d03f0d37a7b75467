# What starts an nginx of its own has in common: the simulator, mjhook dev and the demo source it.

# An nginx that runs Lua, in PATH or where OpenResty has it; one that does not, where there is no other.
nginx_program() {
    local program any=''
    while IFS= read -r program; do
        lua_modules "$program" >/dev/null && { echo "$program"; return 0; }
        any=${any:-$program}
    done < <(PATH=$PATH:/usr/sbin:/usr/local/sbin:/usr/local/openresty/nginx/sbin type -ap nginx openresty)
    [ -n "$any" ] && echo "$any"
}

# The lines that its configuration begins with, so that this nginx runs Lua: none where Lua is built in, as in OpenResty.
lua_modules() {
    local dir
    if "$1" -V 2>&1 | grep -qE -e '--add-module=[^ ]*/(ngx_lua|lua-nginx-module)'; then
        return 0
    fi
    for dir in /usr/lib/nginx/modules /usr/lib64/nginx/modules \
               /usr/share/nginx/modules /usr/local/lib/nginx/modules; do
        if [ -e "$dir/ngx_http_lua_module.so" ] && [ -e "$dir/ndk_http_module.so" ]; then
            printf 'load_module %s;\n' "$dir/ndk_http_module.so" "$dir/ngx_http_lua_module.so"
            return 0
        fi
    done
    return 1
}

# Is something listening there? nginx itself would try for 2.5 s to bind.
listening() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# A port below the range that outgoing connections use.
random_port() {
    local port tries=50
    while [ $((tries -= 1)) -gt 0 ]; do
        port=$((10000 + (RANDOM * 32768 + RANDOM) % 22000))
        if ! listening "$port"; then
            echo "$port"
            return 0
        fi
    done
    return 1
}

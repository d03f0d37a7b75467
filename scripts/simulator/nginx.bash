# What starts an nginx of its own has in common: the simulator, mjhook dev and the demo source it.

nginx_program() {
    PATH=$PATH:/usr/sbin:/usr/local/sbin command -v nginx
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

modules_dir() {
    local dir
    for dir in /usr/lib/nginx/modules /usr/lib64/nginx/modules \
               /usr/share/nginx/modules /usr/local/lib/nginx/modules; do
        if [ -e "$dir/ngx_http_lua_module.so" ] && [ -e "$dir/ndk_http_module.so" ]; then
            echo "$dir"
            return 0
        fi
    done
    return 1
}

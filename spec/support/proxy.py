"""An HTTP proxy: CONNECT tunnels, and plain requests passed on.

Usage: proxy.py DIR [USER:PASSWORD].  DIR/port gets the port; DIR/requests a JSON line for each request that a client
makes of the proxy itself: {"line": "CONNECT a:443 HTTP/1.1", "headers": {...}}.  A DIR/refuse holds a status line with
which every request is refused while it is there; DIR/hosts (JSON, {"name:port": port}) says where hosts are, on
loopback: others are 502.
"""
import base64
import json
import os
import socket
import sys
import threading
from urllib.parse import urlsplit

where = sys.argv[1]
password = base64.b64encode(sys.argv[2].encode()).decode() if len(sys.argv) > 2 else None
lock = threading.Lock()


def read_head(sock):
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError
        head += data
    head, rest = head.split(b"\r\n\r\n", 1)
    line, *lines = head.decode("latin-1").split("\r\n")
    return line, dict((name.lower(), value.strip()) for name, value in (l.split(":", 1) for l in lines)), rest


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    try:
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def address(target):
    with open(where + "/hosts", encoding="ascii") as file:
        return "127.0.0.1", json.load(file)[target]


def refusal(headers):
    if os.path.exists(where + "/refuse"):
        with open(where + "/refuse", encoding="ascii") as file:
            return file.read()
    if password and headers.get("proxy-authorization") != "Basic " + password:
        return "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=proxy"
    return None


def serve(client):
    line, headers, rest = read_head(client)
    with lock, open(where + "/requests", "a", encoding="ascii") as log:
        log.write(json.dumps({"line": line, "headers": headers}) + "\n")
    method, target, _ = line.split(" ")
    status = refusal(headers)
    url = urlsplit(target) if method != "CONNECT" else None
    try:
        server = None if status else socket.create_connection(address(url.netloc if url else target))
    except (OSError, KeyError):
        status = "502 Bad Gateway"
    if status:
        client.sendall(("HTTP/1.1 %s\r\nContent-Length: 5\r\n\r\nproxy" % status).encode())
        client.close()
        return
    if url:
        kept = "".join("%s: %s\r\n" % item for item in headers.items() if not item[0].startswith("proxy-"))
        server.sendall(("%s %s HTTP/1.1\r\n%s\r\n" % (method, url.path, kept)).encode("latin-1") + rest)
    else:
        client.sendall(b"HTTP/1.1 200 Connection established\r\nRetry-After: 77\r\nTransfer-Encoding: chunked\r\n\r\n")
        server.sendall(rest)
    threading.Thread(target=pump, args=(server, client), daemon=True).start()
    pump(client, server)


def guarded(client):
    try:
        serve(client)
    except OSError:
        client.close()


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    with open(where + "/port.new", "w", encoding="ascii") as file:
        file.write("%d\n" % listener.getsockname()[1])
    os.rename(where + "/port.new", where + "/port")
    while True:
        client, _ = listener.accept()
        threading.Thread(target=guarded, args=(client,), daemon=True).start()


main()

"""An HTTPS server of images that misbehaves as the URL asks.

Usage: images.py DIR CERTIFICATE KEY.  DIR/port gets the port; DIR/requests a JSON line for each request: {"path": "...",
"headers": {...}, "sent": bytes of the body}, written when its answer has been sent.

A path is any name; its query says what is to be sent: kind=png|jpg|webp|gif|html|text|fifo (png), size=N (1000),
type=CONTENT-TYPE (by the kind; "" for none), resttype=CONTENT-TYPE (of a 206), status=N, retry=SECONDS, to=LOCATION,
length=N (announced; 0: chunked),
etag=TEXT (a strong one of the content; weak, none, or changes: another one each time), ranges=no (ignored), bad (from the
wrong byte), lie (of another entity), range=TEXT (the Content-Range of a 206, {from}, {last} and {size} in it filled in),
cut=N (closes after so many bytes of the body, without saying that they are all, the first time only; cutall=N: each
time), drip=SECONDS (between pieces of 1000 bytes), hang (no answer), seed=N (which image), header=NAME:VALUE (one more),
raw=NAME (an answer that is none of HTTP's best: see RAW).
"""
import gzip
import hashlib
import json
import os
import ssl
import sys
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

where, certificate, key = sys.argv[1:4]
lock = threading.Lock()
seen = {}

HEADS = {
    "png": (b"\x89PNG\r\n\x1a\n", "image/png"),
    "jpg": (b"\xff\xd8\xff\xe0", "image/jpeg"),
    "webp": (b"RIFF\0\0\0\0WEBP", "image/webp"),
    "gif": (b"GIF89a", "image/gif"),
    "html": (b"<!doctype html><svg onload=alert(1)>", "text/html"),
}


def content(kind, size, seed):
    head = HEADS[kind][0]
    body, i = bytearray(head), 0
    while len(body) < size:
        body += hashlib.sha256(b"%d:%d" % (seed, i)).digest()
        i += 1
    return bytes(body[:size])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def note(self, sent):
        line = json.dumps({"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "sent": sent})
        with lock, open(where + "/requests", "a", encoding="ascii") as log:
            log.write(line + "\n")

    def do_GET(self):
        query = {k: v[-1] for k, v in parse_qs(urlsplit(self.path).query, keep_blank_values=True).items()}
        with lock:
            nth = seen[self.path] = seen.get(self.path, 0) + 1
        if "hang" in query:
            self.note(0)
            time.sleep(20)
            return
        if "raw" in query:
            self.note(0)
            self.close_connection = True
            try:
                RAW[query["raw"]](self)
            except OSError:
                pass
            return
        kind = query.get("kind", "png")
        body = content(kind, int(query.get("size", 1000)), int(query.get("seed", 0)))
        etag = '"%s"' % hashlib.sha256(body).hexdigest()[:16]
        etag = {"weak": "W/" + etag, "none": None, "changes": '"%d"' % nth}.get(query.get("etag"), etag)
        status, start = int(query.get("status", 200)), 0
        wanted = self.headers.get("Range", "")
        ranges = query.get("ranges")
        if wanted.startswith("bytes=") and ranges != "no" and status == 200:
            if self.headers.get("If-Range") == etag or ranges == "lie":
                start, status = int(wanted[6:-1]), 206
        self.send_response(status)
        named = query.get("resttype" if status == 206 and "resttype" in query else "type", HEADS[kind][1])
        if named:
            self.send_header("Content-Type", named)
        if etag:
            self.send_header("ETag", etag)
        if "retry" in query:
            self.send_header("Retry-After", query["retry"])
        if "to" in query:
            self.send_header("Location", query["to"])
        rest = body[start:]
        if "header" in query:
            self.send_header(*query["header"].split(":", 1))
        if status == 206:
            self.send_header("Content-Range", query.get("range", "bytes {from}-{last}/{size}").format(
                **{"from": start - (ranges == "bad"), "last": len(body) - 1, "size": len(body)}))
        length = int(query.get("length", len(rest)))
        chunked = length == 0
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        sent = self.send(rest, query, nth, chunked)
        self.note(sent)

    def send(self, rest, query, nth, chunked):
        limit = int(query.get("cutall", query["cut"] if "cut" in query and nth == 1 else len(rest)))
        piece = 1000 if "drip" in query else 65536
        sent = 0
        try:
            while sent < min(limit, len(rest)):
                part = rest[sent:min(sent + piece, limit)]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
                self.wfile.flush()
                sent += len(part)
                if "drip" in query:
                    time.sleep(float(query["drip"]))
            if limit < len(rest) or ("cut" in query and nth == 1):
                self.close_connection = True
            elif chunked:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True
        return sent


IMAGE = content("png", 1000, 0)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"


def chunks(data, size=16384):
    return b"".join(b"%x\r\n%s\r\n" % (len(data[i:i + size]), data[i:i + size]) for i in range(0, len(data), size))


def forever(handler, first, piece):
    handler.wfile.write(first)
    while True:
        handler.wfile.write(piece)


def slowly(handler, first, rest):
    handler.wfile.write(first)
    for i in range(len(rest)):
        handler.wfile.write(rest[i:i + 1])
        handler.wfile.flush()
        time.sleep(0.2)


def closed(handler, data):
    handler.wfile.write(data)
    handler.connection.unwrap()


def bomb(handler):
    """Gigabytes that come to nothing, in gzip, in gzip, in gzip: empty blocks and no end."""
    start = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"

    def packed(data):
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        return deflate.compress(data) + deflate.flush(zlib.Z_FULL_FLUSH)  # may stand any number of times

    inner = packed(b"\0\0\0\xff\xff" * 200000)
    outer = packed(inner * 1000)
    first = packed(start + packed(start))
    forever(handler, HEAD + b"Transfer-Encoding: gzip, gzip, gzip, chunked\r\n\r\n" + chunks(start + first),
            chunks(outer))


RAW = {
    # No header at all.
    "http09": lambda h: h.wfile.write(IMAGE),
    # A header without an end; many headers before the one; a trailer without an end.
    "header": lambda h: forever(h, HEAD, b"X-Header: %s\r\n" % (b"x" * 900)),
    "line": lambda h: forever(h, HEAD + b"X-Header: ", b"x" * 9000),
    "hints": lambda h: forever(h, b"", b"HTTP/1.1 103 Early Hints\r\nX-Hint: %s\r\n\r\n" % (b"x" * 900)),
    "trailer": lambda h: forever(h, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks(IMAGE) + b"0\r\n",
                                 b"X-Trailer: %s\r\n" % (b"x" * 900)),
    # As much as a server may say.
    "extension": lambda h: forever(h, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks(IMAGE) + b"3e8;", b"x=y;" * 200),
    "folds": lambda h: forever(h, HEAD + b"X-Header: x\r\n", b" folded\r\n" * 100),
    "foldfirst": lambda h: h.wfile.write(b"HTTP/1.1 200 OK\r\n X-Folded: yes\r\nContent-Length: 1000\r\n\r\n" + IMAGE),
    "long": lambda h: h.wfile.write(HEAD + b"X-Header: %s\r\n" % (b"x" * 900) * 50
                                    + b"Content-Length: 1000\r\n\r\n" + IMAGE),
    # Packed, though nobody asked for it.
    "zipped": lambda h: h.wfile.write(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(
        gzip.compress(IMAGE)) + gzip.compress(IMAGE)),
    "packed": lambda h: h.wfile.write(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks(gzip.compress(IMAGE))
                                      + b"0\r\n\r\n"),
    "unpacked": lambda h: h.wfile.write(HEAD + b"transfer-encoding:gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
                                        + chunks(gzip.compress(IMAGE)) + b"0\r\n\r\n"),
    "bomb": bomb,
    # No length: ended by TLS, or torn off.
    "closed": lambda h: closed(h, HEAD + b"\r\n" + IMAGE),
    "torn": lambda h: h.wfile.write(HEAD + b"\r\n" + IMAGE[:500]),
    # A byte at a time.
    "slow": lambda h: slowly(h, HEAD + b"Content-Length: 1000\r\n\r\n", IMAGE),
    "slowhead": lambda h: slowly(h, b"HTTP/1.1 200 OK\r\n", b"X-Header: %s\r\n" % (b"x" * 900)),
    # Lengths that are none.
    "negative": lambda h: h.wfile.write(HEAD + b"Content-Length: -1\r\n\r\n" + IMAGE),
    "huge": lambda h: h.wfile.write(HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + IMAGE),
    "large": lambda h: h.wfile.write(HEAD + b"Content-Length: 9223372036854775807\r\n\r\n" + IMAGE),
    "chunk": lambda h: h.wfile.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + IMAGE),
    "types": lambda h: h.wfile.write(HEAD + b"Content-Type: text/html\r\nContent-Length: 1000\r\n\r\n" + IMAGE),
    "words": lambda h: h.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: \x1b[31mr\xc3\xa4d\r\nContent-Length: 0\r\n\r\n"),
}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass

    def finish_request(self, request, client_address):
        # The handshake here, in the connection's own thread.
        request.settimeout(20)
        with context.wrap_socket(request, server_side=True) as secured:
            self.RequestHandlerClass(secured, client_address, self)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server = Server(("127.0.0.1", 0), Handler)
with open(where + "/port.new", "w", encoding="ascii") as f:
    f.write("%d\n" % server.server_address[1])
os.rename(where + "/port.new", where + "/port")
server.serve_forever()

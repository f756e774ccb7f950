#!/usr/bin/env bash
# @electric-sql/pglite-socket 0.2.17 with pglite 0.5.14 (npm, Node.js 20): after Terminate ('X', the protocol's
# goodbye) the socket server leaves the connection open, where PostgreSQL closes it ("the frontend sends Terminate,
# closes; the backend closes"). A client that waits for the close before it counts a session as over waits for good;
# one that shuts down its own sending side gets the end at once.
# Seen: 3 s after Terminate nothing has come; after shutdown(SHUT_WR) the connection ends.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
npm init -y >/dev/null
npm install --silent "@electric-sql/pglite@0.5.14" "@electric-sql/pglite-socket@0.2.17"
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >server.mjs <<'JS'
import { PGlite } from "@electric-sql/pglite";
import { PGLiteSocketServer } from "@electric-sql/pglite-socket";
const db = await PGlite.create();
await new PGLiteSocketServer({ db, port: Number(process.argv[2]), host: "127.0.0.1" }).start();
JS
timeout 120 node server.mjs "$port" &
server=$!
seen=$(python3 - "$port" <<'PY'
import socket
import struct
import sys
import time

for _ in range(600):
    try:
        server = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
startup = struct.pack("!i", 3 << 16) + b"user\0postgres\0database\0postgres\0\0"
server.sendall(struct.pack("!i", len(startup) + 4) + startup)
answer = b""
while not answer.endswith(b"Z\0\0\0\x05I"):
    answer += server.recv(4096)
server.sendall(b"X\0\0\0\x04")
server.settimeout(3)
try:
    first = "closed" if server.recv(1) == b"" else "data"
except TimeoutError:
    first = "open"
server.shutdown(socket.SHUT_WR)
server.settimeout(10)
try:
    second = "closed" if server.recv(1) == b"" else "data"
except TimeoutError:
    second = "open"
print(first, second)
PY
)
echo "after Terminate, and after our own half-close: $seen"
[ "$seen" = "open closed" ]

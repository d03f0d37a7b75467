// A receiver of webhooks that believes what the Standard Webhooks specification's own library believes.
// Usage: node webhook_receiver.mjs DIR SECRET [KEY CERT]
// DIR/node_modules holds the library; DIR/port gets the port; DIR/received a JSON line for each request.
import { appendFileSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import http from "node:http";
import https from "node:https";

const [dir, secret, key, cert] = process.argv.slice(2);
const { Webhook } = createRequire(dir + "/")("standardwebhooks");
const webhook = new Webhook(secret);

function receive(request, response) {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks).toString("utf8");
    const seen = { path: request.url, headers: request.headers, body };
    try {
      seen.payload = webhook.verify(body, request.headers);
    } catch (error) {
      seen.refused = String(error.message);
    }
    appendFileSync(dir + "/received", JSON.stringify(seen) + "\n");
    response.writeHead(seen.payload ? 204 : 401).end();
  });
}

const server = key
  ? https.createServer({ key: readFileSync(key), cert: readFileSync(cert) }, receive)
  : http.createServer(receive);
server.listen(0, "127.0.0.1", () => {
  writeFileSync(dir + "/port.new", server.address().port + "\n");
  renameSync(dir + "/port.new", dir + "/port");
});

// What most teams have: an Express receiver that parses the callback and stores nothing.
const express = require("express");
const app = express();
app.disable("x-powered-by");
app.post("/express", express.json({ limit: "1mb" }), (req, res) => {
  const data = req.body.data || req.body;
  if (!data.taskId) return res.status(400).json({ status: "unreadable" });
  res.json({ status: "stored" });
});
const server = app.listen(Number(process.argv[2]), "127.0.0.1", 1024, () => console.log("listening"));
server.keepAliveTimeout = 60000;
